"""Write the table of CUDA kernels in machine code: ``python -m tests.cuda.table docs/cuda-kernels.md``.

It needs the CUDA compiler and assembler (``pip install -e ".[testcuda]"``), and no GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from numbanet.cuda.compile import Capability, Kernel
from tests.cuda import products
from tests.cuda.machine_code import Report, report

_PLAIN: list[Capability] = [(8, 0), (9, 0)]
_HEAD = """# CUDA kernels in machine code

What ptxas makes of each kernel, in the forms that spend most registers. Written by

    python -m tests.cuda.table docs/cuda-kernels.md

with no GPU. The tests (`make test-cuda`) require that no kernel spills or uses local memory, that the blocks which
shall share a multiprocessor find registers for all their threads, and that the instructions that matter are there.

- *sm*: the compute capability; *dtype*: what the kernel's `T` stands for; *blocks*: of so many threads, that shall fit
  on a multiprocessor at once; *shared*: bytes of a block.
- *loop*: instructions of the main loop, and the share of them that multiply (FFMA, DFMA), or, on tensor cores, the
  number of products of matrices (HMMA, HGMMA).
- *memory*: 16-byte loads from global memory, asynchronous copies, 16-byte loads from shared memory, fragments of
  matrices, 16-byte stores: how often each stands in the code.

| kernel | sm | dtype | threads x blocks | registers | shared | loop | LDG.128 | LDGSTS | LDS.128 | LDSM | STG.128 |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def kernels() -> Iterator[tuple[Kernel, str, Capability]]:
    """Yield every kernel with a dtype and a capability."""
    for kernel in [*products.GEMM, *products.WINOGRAD, *products.OTHERS, *products.PACKING]:
        for capability in _PLAIN:
            yield kernel, "float32", capability
    for kernel in products.TENSOR:
        for capability in _PLAIN:
            yield kernel, products.operand_dtype(kernel), capability
    for kernel in products.WARPGROUPS:
        yield kernel, "bfloat16", (9, 0, "a")
    for kernel in products.NAIVE:
        yield kernel, "float64", (8, 0)


def _count(found: Report, *names: str) -> int:
    return sum(count for opcode, count in found.opcodes.items() if opcode.startswith(names))


def _loop(found: Report) -> str:
    matrices = sum(count for opcode, count in found.loop.items() if opcode.startswith(("HMMA", "HGMMA")))
    length = sum(found.loop.values())
    return f"{length}: {matrices} products" if matrices else f"{length}: {found.share('FFMA', 'DFMA'):.0%}"


def line(kernel: Kernel, dtype: str, capability: Capability) -> str:
    """Return one line of the table."""
    found = report(kernel, dtype, capability)
    if found.local_bytes:
        raise ValueError(f"{kernel.name} uses {found.local_bytes} bytes of local memory")
    shared = found.shared_bytes + kernel.shared_bytes
    cells = [
        f"`{kernel.name}`", "".join(map(str, capability)), dtype, f"{kernel.threads} x {kernel.blocks}",
        found.registers, shared, _loop(found), _count(found, "LDG.E.128"), _count(found, "LDGSTS"),
        _count(found, "LDS.128"), _count(found, "LDSM"), _count(found, "STG.E.128"),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"


def main(path: str) -> None:
    """Write the table to a file."""
    lines = [line(*chosen) for chosen in kernels()]
    Path(path).write_text(_HEAD + "".join(lines))
    print(f"{len(lines)} kernels")


if __name__ == "__main__":
    main(sys.argv[1])
