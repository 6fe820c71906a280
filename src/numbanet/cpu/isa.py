"""What the host's vector unit looks like: vector width and register tiles, as a table.

The instruction set is the one Numba compiles for, so ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` work here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Isa:
    """A vector instruction set.

    Attributes
    ----------
    name : str
    vector_bytes : int
        Bytes of one vector register.
    tile_rows : tuple of int
        ``tile_rows[v - 1]`` is the number of rows of a register tile that is ``v`` vectors wide: the accumulators, one
        row of the other operand and one broadcast value fit the register file, and the addresses of the rows do too.
    run_rows : tuple of tuples of int
        ``run_rows[v - 1]`` are the numbers of rows, ascending, of the tiles that are ``v`` vectors wide and whose rows
        follow each other in memory: one address serves them all. A few each: less is wasted on what is left over.
    masks : bool
        Whether a masked load or store takes no longer than an ordinary one.
    masked_loads : bool
        Whether a masked load is one instruction at least. Else it is a branch for each lane.
    """

    name: str
    vector_bytes: int
    tile_rows: tuple[int, ...]
    run_rows: tuple[tuple[int, ...], ...]
    masks: bool = False
    masked_loads: bool = False

    @property
    def tile_vectors(self) -> int:
        """Width of the widest register tile, in vectors."""
        return len(self.tile_rows)


_OF_32 = (6, 9, 16, 24), (6, 9, 12), (4, 7, 9), (4, 6)  # with 32 registers,
_OF_16 = (4, 8, 12), (4, 5, 6)  # and with 16
AVX512 = Isa("avx512", 64, (14, 12, 8, 6), _OF_32, masks=True, masked_loads=True)
AVX2 = Isa("avx2", 32, (8, 6, 4), _OF_16, masked_loads=True)
SSE2 = Isa("sse2", 16, (8, 4), _OF_16)
# Its machine code is cross-compiled and inspected by the tests, but was never run: there was no such machine. A product
# takes its number from a register of four, and so a tile of runs has to hold those of all its rows too.
NEON = Isa("neon", 16, (14, 12, 8, 6), ((6, 9, 16, 24), (6, 9, 12), (4, 8), (4, 6)))
_ARM = "aarch64", "arm64"


def target() -> tuple[str, str, frozenset[str]]:
    """Return what Numba compiles for: the target triple, LLVM's name of the CPU, and the enabled features."""
    from numba.core.registry import cpu_target

    codegen = cpu_target.target_context.codegen()
    triple, cpu, features = codegen.magic_tuple()
    return triple, cpu, frozenset(word[1:] for word in features.split(",") if word.startswith("+"))


def is_x86(context: Any) -> bool:
    """Return whether a target context of Numba makes code for x86."""
    return context.codegen().magic_tuple()[0].startswith(("x86_64", "i686"))


def is_arm(context: Any) -> bool:
    """Return whether a target context of Numba makes code for 64-bit ARM."""
    return context.codegen().magic_tuple()[0].startswith(_ARM)


@lru_cache(maxsize=1)
def host_isa() -> Isa:
    """Return the widest instruction set that Numba's CPU target allows."""
    triple, _, features = target()
    if triple.startswith(_ARM):
        return NEON
    if {"avx512f", "avx512dq", "avx512vl", "avx512bw"} <= features:
        return AVX512
    if {"avx2", "fma"} <= features:
        return AVX2
    return SSE2


@lru_cache(maxsize=1)
def fetches_ahead() -> bool:
    """Return whether a kernel that goes through many rows at once shall prefetch those that it reads next.

    On AMD's Zen cores that gains. Intel's find such rows themselves, and prefetches beside only delay the rest.
    """
    _, cpu, _ = target()
    return cpu.startswith("znver")
