"""The machine code of all but products: nothing in local memory; 16 bytes an access where whole tensors are read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import numbanet.cuda
from numbanet.cuda import moments, norm_backward
from numbanet.cuda.compile import Kernel
from tests.cuda import kernels, products, table
from tests.cuda.machine_code import report
from tests.cuda.test_planted import KERNELS

SUMMING = [moments.column_moments("float32", 4), norm_backward.gradient_sums("float32", 4, True, True)]
HARDEST = ("gelu_backward", "[add", "dropout", "normalise", "apply", "maxima", "adam")  # of the streaming kernels
STREAMING = [kernel for kernel in kernels.streaming("float32") if any(word in kernel.name for word in HARDEST)]
DOUBLES = ("DADD", "DMUL", "DFMA", "DSETP", "F2F.F64")


@pytest.mark.parametrize("kernel", STREAMING + SUMMING, ids=lambda kernel: kernel.name)
def test_every_access_takes_16_bytes(kernel: Kernel) -> None:
    found = report(kernel, "float32", (9, 0))
    assert found.local_bytes == 0
    assert not any(opcode.startswith(("LDL", "STL")) for opcode in found.opcodes)
    assert found.registers * kernel.threads * kernel.blocks <= 65536
    assert any(opcode.startswith("LDG.E.128") for opcode in found.opcodes)
    if kernel not in SUMMING:  # one literal too wide, and Python computes in float64
        assert any(opcode.startswith("STG.E.128") for opcode in found.opcodes)
        assert not any(opcode.startswith(DOUBLES) for opcode in found.opcodes)


FORMS = list(kernels.forms())
PLANTED = {name for name, *_ in KERNELS}  # where a test leaves barriers out


@pytest.mark.parametrize(("kernel", "dtype"), FORMS, ids=[f"{kernel.name} {dtype}" for kernel, dtype in FORMS])
def test_nothing_spills(kernel: Kernel, dtype: str) -> None:
    name = kernel.name.partition("[")[0]
    assert "bar.sync" not in kernel.ptx(dtype, (8, 0)) or name in PLANTED, "no test leaves out its barriers"
    for capability in ((8, 0), (9, 0)):  # most of the time goes into what they share
        found = report(kernel, dtype, capability, code_too=False)
        assert found.local_bytes == 0 and found.warnings == () and found.registers > 0
        assert found.registers * kernel.threads * kernel.blocks <= 65536


def entry_points() -> Iterator[str]:
    """Yield ``module.function`` of what the package's files make kernels of."""
    for file in sorted(Path(numbanet.cuda.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(map(is_kernel, node.decorator_list)):
                yield f"{file.stem}.{node.name}"
            if isinstance(node, ast.Call) and is_kernel(node.func) and isinstance(node.args[0], ast.Name):
                yield f"{file.stem}.{node.args[0].id}"


def is_kernel(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "kernel"


def test_every_kernel_is_assembled() -> None:
    lists = (
        products.GEMM, products.TENSOR, products.WARPGROUPS, products.COPIED, products.PACKING, products.WINOGRAD,
        products.OTHERS, products.GROUPED, products.NAIVE, [kernel for kernel, _ in FORMS],
    )  # fmt: skip
    assert {kernel.name.partition("[")[0] for each in lists for kernel in each} == set(entry_points())


def test_the_page_lists_every_kernel() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "cuda-kernels.md").read_text(encoding="utf-8")
    assert page.startswith(table.HEAD), "python -m tests.cuda.table writes it"
    rows = [line.removeprefix("| ").split(" | ")[:4] for line in page.removeprefix(table.HEAD).splitlines()]
    assert rows == [table.form(*chosen) for chosen in table.chosen()]
