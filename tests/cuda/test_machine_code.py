"""Every kernel's machine code, for two generations of GPUs: nothing spills, and what matters is there."""

import pytest

from numbanet.cuda.compile import Capability, Kernel
from numbanet.cuda.conv_gemm import conv_gemm
from numbanet.problem.conv import Epilogue
from tests.cuda.machine_code import Report, report

CAPABILITIES = [(8, 0), (9, 0)]
GEMM = [conv_gemm(vector, turned, Epilogue()) for vector in (True, False) for turned in (False, True)]
GEMM.append(conv_gemm(True, False, Epilogue(True, True, "relu6")))


def checked(kernel: Kernel, dtype: str, capability: Capability) -> Report:
    """Assemble, and check what holds for every kernel."""
    found = report(kernel, dtype, capability)
    assert found.local_bytes == 0
    assert not any(opcode.startswith(("LDL", "STL")) for opcode in found.opcodes)
    assert found.registers * kernel.threads * kernel.blocks <= 65536
    if dtype == "float32":  # one literal too wide, and Python computes in float64
        assert not any(opcode.startswith(("DADD", "DMUL", "DFMA", "DSETP", "F2F.F64")) for opcode in found.opcodes)
    return found


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("kernel", GEMM, ids=lambda kernel: kernel.name)
def test_conv_gemm(kernel: Kernel, capability: Capability) -> None:
    found = checked(kernel, "float32", capability)
    assert found.shared_bytes == 16384
    assert found.opcodes["LDS.128"] >= 4
    if "vector" in kernel.name:
        assert found.opcodes["LDG.E.128"] >= 2 and found.opcodes["STG.E.128"] >= 2
        assert found.share("FFMA") > 0.6
