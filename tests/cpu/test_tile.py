"""The register tile's machine code on an instruction set that is not the host's: cross-compiled, looked at, not run."""

from __future__ import annotations

import re

import pytest
from llvmlite import binding, ir
from numba import types

from numbanet.cpu import tile
from numbanet.cpu.isa import NEON
from numbanet.cpu.vector import Vec

_TRIPLE = "aarch64-unknown-linux-gnu"


def neon_assembly(rows: int, vectors: int) -> str:
    """Return the assembly of a panel tile of float32 for a 64-bit ARM processor."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple(_TRIPLE)
    except RuntimeError:
        pytest.skip("this llvmlite has no AArch64 back end")
    if not hasattr(binding, "create_pass_builder"):
        pytest.skip("this llvmlite is too old to run the passes by itself")
    vec = Vec(types.float32, NEON.vector_bytes // 4)
    i64 = ir.IntType(64)
    floats, addresses = ir.FloatType().as_pointer(), i64.as_pointer()
    arguments = [addresses, i64, i64, i64, i64, floats, i64, addresses, i64, i64, i64, floats, i64, i64, i64]
    module = ir.Module()
    module.triple = _TRIPLE
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    tile._panel_tile(builder, vec, rows, vectors, *function.args)
    builder.ret_void()
    machine = target.create_target_machine(cpu="neoverse-n1", features="+neon", opt=3)
    module.data_layout = str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_assembly(parsed)


def loops(assembly: str) -> list[list[str]]:
    """Return the instructions of each innermost loop: from a label to the branch back to it."""
    found = []
    for label, body in re.findall(r"^(\.LBB\w+):.*\n((?:(?!\.LBB\w+:).*\n)*)", assembly, re.MULTILINE):
        lines = [line.strip() for line in body.splitlines()]
        back = [i for i, line in enumerate(lines) if re.match(rf"b\S*\s+(.*, *)?{re.escape(label)}$", line)]
        if back:
            found.append([line for line in lines[: back[-1] + 1] if line and not line.startswith(("//", "."))])
    return found


@pytest.mark.parametrize(("vectors", "rows"), list(enumerate(NEON.tile_rows, 1)))
def test_neon_tiles_stay_in_registers(vectors: int, rows: int) -> None:
    bodies = [body for body in loops(neon_assembly(rows, vectors)) if any(line.startswith("fmla") for line in body)]
    assert bodies, "no loop multiplies and adds"
    for body in bodies:
        products = [line for line in body if line.startswith("fmla")]
        assert len(products) % (rows * vectors) == 0
        assert all(re.match(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.(4s|s\[\d\])$", line) for line in products)
        assert not any(re.search(r"\[sp\b", line) and re.search(r"\b[qdsv]\d+\b", line) for line in body), "a spill"
