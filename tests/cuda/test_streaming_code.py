"""The machine code of what reads and writes whole tensors: 16 bytes an access, and nothing in local memory.

All kernels, for both dtypes and two generations of GPUs, are assembled by ``python -m tests.cuda.kernels``.
"""

import pytest

from numbanet.cuda import moments, norm_backward
from numbanet.cuda.compile import Kernel
from tests.cuda import kernels
from tests.cuda.machine_code import report

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
