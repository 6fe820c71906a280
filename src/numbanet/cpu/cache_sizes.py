"""How much data the caches of this machine hold: what the sizes of blocks follow from."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_LINUX = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 10, "M": 20, "G": 30}


@dataclass(frozen=True)
class Caches:
    """Bytes that each level of caches holds. Of what a system does not tell, those of the machines measured on stand.

    Attributes
    ----------
    first, second : int
        A core's share of the first and second level.
    last : int
        What the last level holds for all cores that share it.
    """

    first: int = 32 << 10
    second: int = 1 << 20
    last: int = 32 << 20


def _made(first: int, second: int, last: int) -> Caches:
    """Return what was found (0: nothing), and the defaults for the rest."""
    found = {"first": first, "second": second, "last": last}
    return Caches(**{name: size for name, size in found.items() if size > 0})


def _size(text: str) -> int:
    unit = _UNITS.get(text.strip()[-1:], 0)
    return int(text.strip().rstrip("KMG")) << unit


def _count(text: str) -> int:
    """Return how many CPUs a list such as ``0-3,8`` names."""
    ranges = [part.split("-") for part in text.strip().split(",")]
    return sum(int(numbers[-1]) - int(numbers[0]) + 1 for numbers in ranges)


def linux_caches(root: Path = _LINUX) -> Caches:
    """Return what Linux tells of the first CPU's caches."""
    sizes, sharing = {}, {}
    for folder in sorted(root.glob("index*")):
        try:
            level = int((folder / "level").read_text())
            if (folder / "type").read_text().strip() != "Instruction":
                sizes[level] = _size((folder / "size").read_text())
                sharing[level] = _count((folder / "shared_cpu_list").read_text())
        except (OSError, ValueError):
            continue  # some virtual machines tell half of it
    threads = max(1, sharing.get(1, 1))  # that one core runs
    cores = max(1, sharing.get(2, 1) // threads)
    last = sizes[max(sizes)] if max(sizes, default=1) > 1 else 0
    return _made(sizes.get(1, 0), sizes.get(2, 0) // cores, last)


def _sysctl(name: str) -> int:
    value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
    failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else int(value.value)


def macos_caches(ask: Callable[[str], int] = _sysctl) -> Caches:
    """Return what macOS tells of its caches, those of the fast cores where there are two kinds."""
    first, second = (ask(f"hw.perflevel0.{name}") or ask(f"hw.{name}") for name in ("l1dcachesize", "l2cachesize"))
    cores = max(1, ask("hw.perflevel0.cpusperl2"))
    return _made(first, second // cores, ask("hw.l3cachesize") or second)


@lru_cache(maxsize=1)
def caches() -> Caches:
    """Return the sizes of this machine's caches."""
    if sys.platform == "linux":
        return linux_caches()
    return macos_caches() if sys.platform == "darwin" else Caches()
