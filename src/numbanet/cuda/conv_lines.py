"""What kernels share that convolve line by line, without a product of matrices."""

from __future__ import annotations

from typing import Any

from numbanet.cuda import ptx, tile
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import types
from numbanet.problem.conv import Epilogue

i32 = types.int32


def source_line(turned: bool) -> Any:
    """Make ``line(i, tap, stride, pad, dilation)``: that of the source which a result's line meets through a tap.

    It is negative where there is none. `turned`: the source is the gradient of y, and the result that of x.
    """

    @device
    def line_of(i, tap, stride, pad, dilation):
        if turned:
            line = i32(i + pad - tap * dilation)
            if stride == 1:
                return line
            quotient = i32(line // stride)
            return quotient if quotient * stride == line else i32(-1)
        return i32(i * stride - pad + tap * dilation)

    return line_of


def put_four(epilogue: Epilogue) -> Any:
    """Make ``put(total, u, c, at, bias, residual, y)``, which stores row u of four results by one access."""
    finish = tile.finisher(epilogue)
    fetch_bias, fetch_addend = tile.fetcher(epilogue.bias, 4), tile.fetcher(epilogue.residual, 4)

    @device
    def put(total, u, c, at, bias, residual, y):
        b, addend = fetch_bias(bias, c), fetch_addend(residual, at)
        ptx.store4(y, at, (
            finish(total[u, 0], b[0], addend[0]), finish(total[u, 1], b[1], addend[1]),
            finish(total[u, 2], b[2], addend[2]), finish(total[u, 3], b[3], addend[3]),
        ))  # fmt: skip

    return put


def put_singles(epilogue: Epilogue, count: int) -> Any:
    """Make the same for `count` results, one after the other."""
    finish = tile.finisher(epilogue)
    fetch_bias, fetch_addend = tile.fetcher(epilogue.bias, 1), tile.fetcher(epilogue.residual, 1)

    @device
    def put(total, u, c, at, bias, residual, y):
        for e in range(count):
            b, addend = fetch_bias(bias, i32(c + e)), fetch_addend(residual, i32(at + e))
            y[i32(at + e)] = finish(total[u, e], b, addend)

    return put
