"""The kernels of products and convolutions, in the forms that spend most registers: for the tests of machine code."""

from __future__ import annotations

from numbanet.cuda import (
    conv_grouped,
    conv_grouped_weight,
    conv_naive,
    conv_winograd,
    conv_winograd_weight,
    matmul_mma,
    matmul_naive,
    matmul_tma,
    tma_tile,
)
from numbanet.cuda.compile import Kernel
from numbanet.cuda.conv_depthwise import depthwise, depthwise_weight
from numbanet.cuda.conv_gemm import conv_gemm
from numbanet.cuda.conv_mma import DTYPES
from numbanet.cuda.conv_mma_kernels import conv_mma, conv_mma_weight
from numbanet.cuda.conv_tma_kernels import conv_tma
from numbanet.cuda.conv_tma_weight import conv_tma_weight
from numbanet.cuda.conv_weight import conv_gemm_weight
from numbanet.cuda.matmul import gemm
from numbanet.cuda.mma_tile import MMA
from numbanet.cuda.pack import exchange, pack
from numbanet.cuda.split import add_parts
from numbanet.cuda.wgmma_tile import WGMMA
from numbanet.cuda.wgmma_turned import TURNED
from numbanet.problem.conv import Epilogue


def operand_dtype(kernel: Kernel) -> str:
    """Return what T stands for in a kernel on tensor cores."""
    return next((dtype for name, dtype in DTYPES.items() if name in kernel.name), "float32")


PLAIN, ALL = Epilogue(), Epilogue(True, True, "relu6")
# On the tile of float32 products: every kind of access, and the longest epilogue.
GEMM = [
    conv_gemm(True, False, ALL), conv_gemm(True, True, PLAIN), conv_gemm(False, False, PLAIN),
    conv_gemm(False, True, PLAIN), conv_gemm_weight(True), conv_gemm_weight(False),
    gemm(True, False, True, ALL), gemm(False, True, True, PLAIN), gemm(True, True, False, PLAIN),
]  # fmt: skip
TENSOR = [
    conv_mma(MMA, "bf16", False, True, ALL), conv_mma(MMA, "bf16", True, False, PLAIN),
    conv_mma(MMA, "tf32", False, False, PLAIN), conv_mma(MMA, "tf32", True, True, PLAIN),
    conv_mma_weight(MMA, "bf16"), conv_mma_weight(MMA, "tf32"),
    matmul_mma.gemm(MMA, "fp16", True, False, True, ALL), matmul_mma.gemm(MMA, "tf32", False, True, True, PLAIN),
]  # fmt: skip
WARPGROUPS = [
    conv_mma(WGMMA, "bf16", False, True, ALL), conv_mma(WGMMA, "bf16", True, False, PLAIN),
    conv_mma_weight(WGMMA, "bf16"), matmul_mma.gemm(WGMMA, "bf16", False, False, True, PLAIN),
    conv_mma_weight(TURNED, "tf32"), matmul_mma.gemm(TURNED, "tf32", False, True, True, ALL),
]  # fmt: skip
NARROW, MIDDLE, WIDE = tma_tile.TILES
COPIED = [
    conv_tma("bf16", NARROW, True, PLAIN), conv_tma("tf32", MIDDLE, False, ALL), conv_tma("bf16", WIDE, True, ALL),
    conv_tma_weight("fp16", NARROW, True), conv_tma_weight("bf16", WIDE, True),
    matmul_tma.gemm("tf32", NARROW, False, False, True, PLAIN), matmul_tma.gemm("bf16", WIDE, True, True, True, ALL),
]  # fmt: skip
PACKING = [pack("bf16", True), pack("tf32", False), exchange("bf16")]
WINOGRAD = [
    conv_winograd.transform_input, conv_winograd.transform_weight(False), conv_winograd.transform_weight(True),
    conv_winograd.transform_output(ALL), conv_winograd_weight.transform_gradient, conv_winograd_weight.transform_sums,
]  # fmt: skip
OTHERS = [depthwise(True, 9, False, ALL), depthwise(False, 49, True, PLAIN), depthwise_weight(7), add_parts(ALL)]
GROUPED = [
    conv_grouped.arrange(False), conv_grouped.arrange(True),
    conv_grouped.grouped(True, False, ALL), conv_grouped.grouped(False, True, PLAIN),
    conv_grouped_weight.grouped_weight(3, True), conv_grouped_weight.grouped_weight(3, False),
]  # fmt: skip
NAIVE = [conv_naive.forward, conv_naive.backward_input, conv_naive.backward_weight, matmul_naive.matmul]
