"""A kernel of your own: squared ReLU, max(x, 0)^2, on explicit vectors, with its gradient, used in a layer.

    python examples/write_a_kernel.py
"""

from __future__ import annotations  # a kernel's annotations are words, not Python types

import numpy as np

import numbanet as nnet
from numbanet import memory, tape
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load_tail, maximum, splat, store_tail

CHUNK = 16384  # elements of a task


@kernel
def squared_relu(task: Index, ints: I64, x: T, y: T, slope: T):
    (size,) = integers(ints, 1)
    for i in range(task * CHUNK, min(size, (task + 1) * CHUNK), lanes(x)):
        v = maximum(load_tail(x, i, size - i), splat(x, 0.0))
        store_tail(y, i, v * v, size - i)
        store_tail(slope, i, v + v, size - i)


def relu2(input: nnet.Tensor) -> nnet.Tensor:
    """Return max(input, 0)^2, differentiably."""
    x = memory.dense(input.data)
    y, slope = memory.empty_like(x), memory.empty_like(x)
    arrays = [memory.flat(a) for a in (x, y, slope)]
    launch(squared_relu, -(-x.size // CHUNK), arrays, (x.size,), x.dtype.name)
    return tape.record(y, (input,), lambda grad: (nnet.ops.mul(grad, slope),))


def main():
    x = nnet.tensor(np.linspace(-2, 2, 9), requires_grad=True)
    y = relu2(x)
    y.sum().backward()
    print("x        ", x.detach().numpy())
    print("relu2(x) ", y.detach().numpy())
    print("gradient ", x.grad.numpy())
    print("vectors of 512 bits:", "zmm" in squared_relu.inspect_asm("float64"))
    return y, x.grad


if __name__ == "__main__":
    main()
