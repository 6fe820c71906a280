"""Every kernel's machine code, for two generations of GPUs: nothing spills, and what matters is there."""

import pytest

from numbanet.cuda import tma_tile
from numbanet.cuda.compile import Capability, Kernel
from numbanet.cuda.mma_tile import KINDS
from numbanet.cuda.wgmma_tile import WGMMA
from tests.cuda.machine_code import Report, report
from tests.cuda.products import (
    COPIED,
    GEMM,
    GROUPED,
    NAIVE,
    OTHERS,
    PACKING,
    TENSOR,
    WARPGROUPS,
    WINOGRAD,
    operand_dtype,
)

CAPABILITIES = [(8, 0), (9, 0)]
HMMA = {"bf16": "HMMA.16816.F32.BF16", "fp16": "HMMA.16816.F32", "tf32": "HMMA.1688.F32.TF32"}
HGMMA = {"bf16": "16.F32.BF16", "fp16": "16.F32", "tf32": "8.F32.TF32"}


def checked(kernel: Kernel, dtype: str, *capabilities: Capability) -> list[Report]:
    """Assemble for each capability (most of the time goes into what they share); check what holds for every kernel."""
    return [_checked(kernel, dtype, capability) for capability in capabilities]


def _checked(kernel: Kernel, dtype: str, capability: Capability) -> Report:
    found = report(kernel, dtype, capability)
    assert found.local_bytes == 0
    assert not any(opcode.startswith(("LDL", "STL")) for opcode in found.opcodes)
    assert found.registers * kernel.threads * kernel.blocks <= 65536
    if dtype == "float32":  # one literal too wide, and Python computes in float64
        assert not any(opcode.startswith(("DADD", "DMUL", "DFMA", "DSETP", "F2F.F64")) for opcode in found.opcodes)
    return found


@pytest.mark.parametrize("kernel", GEMM, ids=lambda kernel: kernel.name)
def test_conv_gemm(kernel: Kernel) -> None:
    for found in checked(kernel, "float32", *CAPABILITIES):
        assert found.shared_bytes == 16384
        assert found.opcodes["LDS.128"] >= 4
        if "vector" in kernel.name:
            assert found.opcodes["LDG.E.128"] >= 2 and found.opcodes["STG.E.128"] >= 2
            assert found.share("FFMA") > 0.6


@pytest.mark.parametrize("kernel", OTHERS + WINOGRAD, ids=lambda kernel: kernel.name)
def test_other_float32_kernels(kernel: Kernel) -> None:
    checked(kernel, "float32", *CAPABILITIES)


@pytest.mark.parametrize("kernel", GROUPED, ids=lambda kernel: kernel.name)
def test_kernels_for_groups(kernel: Kernel) -> None:
    for found in checked(kernel, "float32", *CAPABILITIES):
        if "vector" in kernel.name:
            assert found.opcodes["LDG.E.128"] + found.opcodes["LDG.E.128.CONSTANT"] >= 2
            assert found.share("FFMA") > 0.4


@pytest.mark.parametrize("kernel", TENSOR, ids=lambda kernel: kernel.name)
def test_tensor_core_kernels(kernel: Kernel) -> None:
    narrow = "tf32" not in kernel.name
    product = next(opcode for name, opcode in HMMA.items() if name in kernel.name)
    for found in checked(kernel, operand_dtype(kernel), *CAPABILITIES):
        assert found.shared_bytes == 49152
        assert found.loop[product] in (16, 32)  # of one step of the reduction, or both
        assert found.share(product) >= (0.15 if narrow else 0.09)
        assert sum(n for opcode, n in found.opcodes.items() if opcode.startswith("LDGSTS.E.BYPASS.128")) >= 8
        assert sum(n for opcode, n in found.loop.items() if opcode.startswith("LDSM")) >= (6 if narrow else 0)


def test_only_16_bits_are_for_warpgroups_without_copy_engine() -> None:
    with pytest.raises(ValueError, match="kind must be one of 16 bits.*got 'tf32'"):
        WGMMA.product(KINDS["tf32"], None, False, None, False)


@pytest.mark.parametrize("kernel", WARPGROUPS, ids=lambda kernel: kernel.name)
def test_warpgroup_kernels(kernel: Kernel) -> None:
    (found,) = checked(kernel, operand_dtype(kernel), (9, 0, "a"))
    assert found.warnings == ()
    if "tf32" in kernel.name:  # threads turn the operands on their way
        assert found.loop["HGMMA.64x128x8.F32.TF32"] == 4 and found.loop["STS"] == 32
        assert found.loop["LDG.E.128"] >= 8
        assert 2 * (kernel.shared_bytes + 1024) <= 228 << 10
    else:
        assert found.loop["HGMMA.64x128x16.F32.BF16"] == 2
        assert sum(n for opcode, n in found.opcodes.items() if opcode.startswith("LDGSTS.E.BYPASS.128")) >= 8


@pytest.mark.parametrize("kernel", COPIED, ids=lambda kernel: kernel.name)
def test_kernels_that_the_copy_engine_feeds(kernel: Kernel) -> None:
    (found,) = checked(kernel, "float32", (9, 0, "a"))
    assert found.warnings == ()
    columns = int(kernel.name.split(",")[1].rstrip("]"))
    (tile,) = [tile for tile in tma_tile.TILES if tile.columns == columns]
    suffix = next(suffix for name, suffix in HGMMA.items() if name in kernel.name)
    product = f"HGMMA.64x{columns}x{suffix}"
    assert found.loop[product] == 4 == sum(n for opcode, n in found.opcodes.items() if opcode.startswith("HGMMA"))
    pixels, boxes = {"convolve": (1, 1), "weight_gradient": (columns // 64, 2)}.get(
        kernel.function.__name__, (0, 2 + columns // 64 if "across" in kernel.name else 2)
    )
    assert (found.opcodes["UTMALDG.4D.IM2COL"], found.opcodes["UTMALDG.3D"]) == (pixels, boxes)
    assert sum(n for opcode, n in found.opcodes.items() if opcode.startswith("USETMAXREG")) == 2
    assert found.registers * 384 == 128 * tile.fewer + 256 * tile.more  # so that nobody waits for registers
    assert tile.shared_bytes * tile.blocks + 1024 * tile.blocks <= 228 << 10


@pytest.mark.parametrize("kernel", PACKING, ids=lambda kernel: kernel.name)
def test_packing(kernel: Kernel) -> None:
    for found in checked(kernel, "float32", *CAPABILITIES):
        assert found.opcodes["STG.E.128"] == 1


@pytest.mark.parametrize("kernel", NAIVE, ids=lambda kernel: kernel.name)
def test_naive_kernels(kernel: Kernel) -> None:
    for found in checked(kernel, "float64", *CAPABILITIES):
        assert found.opcodes["DFMA"] >= 1
