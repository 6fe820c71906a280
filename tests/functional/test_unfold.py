"""Windows of images as columns, and back: definitions, gradients, edges, layers."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck

OPTIONS = [(2,), (3, 1, 1), ((2, 3), (2, 1), (1, 0), (1, 2)), (1, 1, 0, 3), (2, 1, 0, 2)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_by_definition(options, dtype, rng, poisoned):
    kernel, gap, pads, step = (np.broadcast_to(v, 2) for v in (*options, *(1, 0, 1)[len(options) - 1 :]))
    for shape in [(2, 3, 5, 7), (1, 17, 9, 40), (0, 2, 5, 5)]:
        x = rng.standard_normal(shape).astype(dtype)
        wide = np.pad(x, ((0, 0), (0, 0), (pads[0],) * 2, (pads[1],) * 2))
        rows = range(0, wide.shape[2] - gap[0] * (kernel[0] - 1), step[0])
        columns = range(0, wide.shape[3] - gap[1] * (kernel[1] - 1), step[1])
        size = (shape[0], shape[1] * kernel[0] * kernel[1])
        tall, long = gap[0] * (kernel[0] - 1) + 1, gap[1] * (kernel[1] - 1) + 1
        taken = [wide[:, :, i : i + tall : gap[0], j : j + long : gap[1]] for i in rows for j in columns]
        want = np.stack([window.reshape(size) for window in taken], -1)
        y = ops.unfold(x, *options)
        assert np.array_equal(y, want)
        back = ops.fold(y, shape[2:], *options)
        with nnet.use("reference"):
            np.testing.assert_allclose(back, ops.fold(y, shape[2:], *options), atol=1e-5)
        assert back.shape == shape and back.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients(options, rng):
    x = rng.standard_normal((2, 2, 4, 5))
    gradcheck(lambda t: F.unfold(t, *options), x)
    gradcheck(lambda t: F.fold(t, (4, 5), *options), ops.unfold(x, *options))
    gradcheck(lambda t: F.unfold(t, *options), x[0])


def test_strides_threads_and_layers(rng):
    from numbanet.cpu.parallel import get_num_threads, set_num_threads

    x = rng.standard_normal((2, 6, 30, 40))[:, ::-1, :, ::2]
    x.flags.writeable = False
    threads, results = get_num_threads(), []
    for count, view in ((1, x), (threads, x.copy())):
        set_num_threads(count)
        y = nn.Unfold(3, padding=1)(nnet.Tensor(view))
        results.append((y.data, nn.Fold((30, 20), 3, padding=1)(y).data))
    assert all(np.array_equal(a, b) for a, b in zip(*results))
    assert repr(nn.Unfold(2)) == "Unfold(kernel_size=2, dilation=1, padding=0, stride=1)"


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda x: F.unfold(x, 6), "does not fit in 5 x 4"), (lambda x: F.unfold(x, 0), "kernel_size must be at least 1"),
     (lambda x: F.unfold(x[0, 0], 2), "input must have shape"), (lambda x: F.unfold(x, 2, padding=-1), "padding"),
     (lambda x: F.fold(x, (5, 4), 2), "input must have shape"),
     (lambda x: F.fold(x[..., 0], -3, 2), "output_size must be at least 0, got -3"),
     (lambda x: F.fold(x[0, :, :, 0], (5, 4), (2, 1)), r"C \* 2, 16")],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(nnet.tensor(np.zeros((2, 3, 5, 4))))
