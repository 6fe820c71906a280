"""Kernels for an instruction set that is not the host's, 64-bit ARM's: cross-compiled, looked at, not run.

A process that takes such a machine for its own compiles whole kernels, as it would compile them to run them: one after
the other, since a compiler's start takes a second by itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from numbanet.cpu.isa import NEON

CODE = """
import importlib, json, sys
from llvmlite import binding
binding.initialize_all_targets()
binding.initialize_all_asmprinters()
binding.get_process_triple = lambda: "aarch64-unknown-linux-gnu"
try:
    binding.Target.from_triple(binding.get_process_triple())
except RuntimeError:
    print(json.dumps("missing"))
    sys.exit()
from numba import types
from numba.core.compiler import compile_extra, DEFAULT_FLAGS
from numba.core.registry import cpu_target
from numbanet.cpu.isa import host_isa
from numbanet.cpu.winograd_form import F4X4
assert host_isa().name == "neon"
for line in sys.stdin:
    module, name, *dtype = line.replace(".", " ").split()
    source = importlib.import_module("numbanet.cpu." + module)
    function = getattr(source, name, None) or getattr(source.kernels_of(F4X4), name)
    if dtype:
        text = function.inspect_asm(*dtype)
    else:
        contexts = cpu_target.typing_context, cpu_target.target_context
        made = compile_extra(*contexts, function.py_func, (types.int64,) * 5, None, DEFAULT_FLAGS, {})
        text = made.library.get_asm_str()
    print(json.dumps(text), flush=True)
"""


@pytest.fixture(scope="module")
def assembly() -> Iterator[Callable[..., str]]:
    """A function that returns the assembly of ``module.kernel``."""
    environment = {"NUMBA_CPU_NAME": "neoverse-n1", "NUMBA_CPU_FEATURES": "+neon", "NUMBANET_CACHE": "0"}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CODE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout

        @cache
        def of(name: str, dtype: str = "float32") -> str:
            assert process.stdin and process.stdout
            process.stdin.write(f"{name} {dtype}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"the compiler of {name} ended: its last words stand above"
            found = json.loads(line)
            if found == "missing":
                pytest.skip("this llvmlite has no AArch64 back end")
            return found

        yield of
        process.stdin.close()


def loops(text: str) -> Iterator[list[str]]:
    """Yield the instructions of each innermost loop: from a label to the last branch back to it."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {line.partition(":")[0]: i for i, line in enumerate(lines) if re.match(r"\.LBB\w+:", line)}
    spans = []
    for i, line in enumerate(lines):
        branch = re.match(r"(?:b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.LBB\w+)$", line)
        if branch and labels[branch[1]] < i:
            spans.append((labels[branch[1]], i))
    for start, end in spans:
        if not any((a, b) != (start, end) and start <= a and b <= end for a, b in spans):
            yield [line for line in lines[start : end + 1] if line and not line.startswith(("//", "."))]


def products(body: list[str]) -> list[str]:
    return [line for line in body if line.startswith("fmla")]


def fault(body: list[str], lanes: str) -> str | None:
    """Return the first instruction that the main loop of a tile must not have."""
    for line in body:
        word = line.split()[0]
        if word in ("bl", "blr"):
            return line
        if re.search(r"\[sp\b", line) and re.search(r"\b[qdsv]\d+\b", line):
            return line  # a register that did not suffice
        if word in ("dup", "tbz", "tbnz", "ins"):
            return line  # a number that the product could have taken where it is, a lane that is loaded by itself
        if word == "fmla" and not re.match(rf"fmla\s+v\d+\.{lanes}, v\d+\.{lanes}, v\d+\.({lanes}|[sd]\[\d\])$", line):
            return line
    return None


def clean(text: str, lanes: str = "4s") -> set[int]:
    """Return the numbers of products of the innermost loops that have no fault."""
    return {len(products(body)) for body in loops(text) if products(body) and fault(body, lanes) is None}


def missing(counts: list[int], text: str, lanes: str = "4s") -> list[int]:
    """Return which numbers of products no loop without fault has (or a multiple, where it was unrolled)."""
    found = clean(text, lanes)
    return [count for count in counts if not any(number % count == 0 for number in found)]


TILES = [vectors * rows for vectors, rows in enumerate(NEON.tile_rows, 1)]
RUNS = [vectors * rows for vectors, sizes in enumerate(NEON.run_rows, 1) for rows in sizes]


FEW = [vectors * (4 if rows > 4 else 2) for vectors, rows in enumerate(NEON.tile_rows, 1)]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("conv_direct.gather", TILES),  # panel_tile
        ("conv_weight.weight_gradient", TILES),  # outer_tile
        ("conv_band_weight.band_weight_gradient", RUNS),  # run_tile
        ("winograd_kernels.winograd", [*TILES, *FEW]),
        ("matmul_outer.products", TILES),
        ("matmul_few.dots", [16]),
        ("conv_depthwise.depthwise_gather", [8, 24, 40]),
    ],
)
def test_tiles_stay_in_registers(name: str, counts: list[int], assembly: Callable[..., str]) -> None:
    assert not missing(counts, assembly(name))


def test_tiles_of_float64_stay_in_registers(assembly: Callable[..., str]) -> None:
    for name in ("conv_direct.gather", "conv_weight.weight_gradient"):
        assert not missing(TILES, assembly(name, "float64"), "2d")


def test_groups_are_permuted_by_one_instruction(assembly: Callable[..., str]) -> None:
    for name in ("conv_grouped.grouped_gather", "conv_grouped_weight.grouped_weight_by_four"):
        bodies = [body for body in loops(assembly(name)) if products(body)]
        assert any(line.startswith("tbl") and "{" in line for body in bodies for line in body)
        assert not any(line.split()[0] in ("bl", "blr") for body in bodies for line in body)


FUNCTIONS = [
    "winograd_kernels.transform_inputs", "winograd_kernels.transform_weights", "conv_winograd_weight.weight_by_blocks",
    "activation.gelu", "softmax.rows_forward", "norm.moments", "pool_max.max_pool2d", "optim.adam", "reduce.rows",
]  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_are_those_of_the_machine(name: str, assembly: Callable[..., str]) -> None:
    """Arithmetic is on whole registers, and no loop of it calls a function."""
    text = assembly(name)
    assert re.search(r"\b(fmla|fadd|fmul|fcmg[te]|fmax\w*)\s+v\d+\.(4s|2d)", text)
    for body in loops(text):
        if any(re.match(r"f\w+\s+v\d+\.(4s|2d)", line) for line in body):
            assert not any(line.split()[0] in ("bl", "blr") for line in body)


def test_denormals_are_flushed_and_the_state_is_put_back(assembly: Callable[..., str]) -> None:
    lines = [line.strip() for line in assembly("task.run_task", "").splitlines()]
    kinds = [re.sub(r"\s+", " ", line) for line in lines if re.match(r"(mrs|msr|blr|orr)\b", line)]
    read, *rest, put_back = [kind for kind in kinds if "FPCR" in kind or kind.startswith(("blr", "orr"))]
    former = re.match(r"mrs (x\d+), FPCR", read)
    assert former and put_back == f"msr FPCR, {former[1]}"
    flushed = next(i for i, kind in enumerate(rest) if kind.startswith("msr"))
    assert f"{former[1]}, #0x1000000" in rest[flushed - 1]
    assert all(kind.startswith("blr") for kind in rest[flushed + 1 :]), "kernels run in between"
