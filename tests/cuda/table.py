"""Write the table of CUDA kernels in machine code: ``python -m tests.cuda.table docs/cuda-kernels.md``.

It needs the CUDA compiler and assembler (``pip install -e ".[testcuda]"``), and no GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from numbanet.cuda.compile import Capability, Kernel
from tests.cuda import kernels, products
from tests.cuda.machine_code import Report, report

HEAD = """# CUDA kernels in machine code

What ptxas makes of each kernel for an H100 or H200 (compute capability 9.0), in the forms that spend most registers.
Written by

    python -m tests.cuda.table docs/cuda-kernels.md

with no GPU. None spills or uses local memory: the command fails otherwise. The tests (`make test-cuda`) require that,
for capability 8.0 as well; that the blocks which shall share a multiprocessor find registers for all their threads;
that the instructions that matter are there; and that products make up enough of the main loop: FFMA 60 % where loads
take 16 bytes (40 % in groups of few channels), HMMA 15 % with operands of 16 bits and 9 % with TF32. Listed are the
kernels in float32; the tests assemble those in float64, too.

- *sm*: the compute capability (90a: with the instructions that only this chip has); *dtype*: what the kernel's `T`
  stands for; *threads x blocks*: of a block, and how many blocks shall fit on a multiprocessor at once; *shared*: bytes
  of a block.
- *loop*: instructions of the innermost loop with the most products, and the share of them that multiply (FFMA, DFMA),
  or, on tensor cores, the number of products of matrices (HMMA, HGMMA). An optimizer's holds two bodies, one with and
  one without weight decay, of which a step runs one.
- The last columns say how often an instruction stands in the code: 16-byte loads from global memory, asynchronous
  copies to shared memory by threads (LDGSTS) and by the copy engine (TMA), 16-byte loads from shared memory, loads of
  fragments of matrices, 16-byte stores (STG).

| kernel | sm | dtype | threads x blocks | registers | shared | loop | LDG.128 | LDGSTS | TMA | LDS.128 | LDSM | STG |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def chosen() -> Iterator[tuple[Kernel, str, Capability]]:
    """Yield every kernel with a dtype and a capability."""
    for kernel in [*products.GEMM, *products.WINOGRAD, *products.OTHERS, *products.GROUPED, *products.PACKING]:
        yield kernel, "float32", (9, 0)
    for kernel in products.TENSOR:
        yield kernel, products.operand_dtype(kernel), (9, 0)
    for kernel in products.WARPGROUPS:
        yield kernel, products.operand_dtype(kernel), (9, 0, "a")
    for kernel in products.COPIED:
        yield kernel, "float32", (9, 0, "a")
    for kernel in products.NAIVE:
        yield kernel, "float64", (9, 0)
    for kernel in [*kernels.streaming("float32"), *kernels.summing("float32"), *kernels.others("float32")]:
        yield kernel, "float32", (9, 0)


@cache
def _all() -> list[tuple[Kernel, str, Capability]]:
    return list(chosen())


def _count(found: Report, *names: str) -> int:
    return sum(count for opcode, count in found.opcodes.items() if opcode.startswith(names))


def _loop(found: Report) -> str:
    matrices = sum(count for opcode, count in found.loop.items() if opcode.startswith(("HMMA", "HGMMA")))
    length = sum(found.loop.values())
    return f"{length}: {matrices} products" if matrices else f"{length}: {found.share('FFMA', 'DFMA'):.0%}"


def form(kernel: Kernel, dtype: str, capability: Capability) -> list[str]:
    """Return the first cells of a line: they tell a kernel from the others."""
    return [f"`{kernel.name}`", "".join(map(str, capability)), dtype, f"{kernel.threads} x {kernel.blocks}"]


def line(number: int) -> str:
    """Return one line of the table."""
    kernel, dtype, capability = _all()[number]
    found = report(kernel, dtype, capability)
    if found.local_bytes:
        raise ValueError(f"{kernel.name} uses {found.local_bytes} bytes of local memory")
    cells = [
        *form(kernel, dtype, capability), found.registers, found.shared_bytes + kernel.shared_bytes, _loop(found),
        *(_count(found, name) for name in ("LDG.E.128", "LDGSTS", "UTMALDG", "LDS.128", "LDSM", "STG.E.128")),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"


def main(path: str) -> None:
    """Write the table to a file."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        lines = list(pool.map(line, range(len(_all()))))
    Path(path).write_text(HEAD + "".join(lines))
    print(f"{len(lines)} kernels")


if __name__ == "__main__":
    main(sys.argv[1])
