"""Copies, padding, joining, conversion and indexing on arrays, against NumPy and the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import numbanet as nnet
from numbanet import memory
from numbanet.cpu import parallel
from numbanet.ops import shape as ops
from numbanet.problem.shape import CopyProblem


@pytest.fixture(autouse=True)
def no_small_copies(monkeypatch):
    """Small arrays go through the kernels too."""
    monkeypatch.setattr(ops, "_SMALL", 1)


SHAPES = [(2, 3, 5, 7), (2, 17, 4, 4), (1, 33, 1, 16), (3, 16, 15, 17), (1, 1, 1, 1), (2, 40, 9, 31), (0, 3, 4, 4)]
SLICES = [np.s_[:], np.s_[::-1], np.s_[..., ::-1], np.s_[:, :, ::2, 1::2], np.s_[:, ::-2]]


@pytest.fixture
def poisoned(monkeypatch):
    """Fill every array that the package allocates: what a kernel forgets to write shows."""
    real = memory.empty

    def empty(shape, dtype, like=None):
        out = real(shape, dtype)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", empty)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_copies_between_memory_orders(shape, dtype, rng, poisoned):
    x = rng.integers(0, 250, shape).astype(dtype)
    x.flags.writeable = False
    for base, index, order in itertools.product((x, channels_last(x)), SLICES, itertools.permutations(range(4))):
        view = base[index].transpose(order)
        copy = ops.contiguous(view)
        assert copy.flags.c_contiguous
        np.testing.assert_array_equal(copy, view)
    for model in (x, channels_last(x)):
        copy = ops.copy_like(x[::-1], model)
        assert memory.memory_order(copy) == memory.memory_order(model)
        np.testing.assert_array_equal(copy, x[::-1])
        np.testing.assert_array_equal(ops.clone(model), x)


@pytest.mark.parametrize("shape", [(2, 300, 40, 5), (70, 1000), (100000,), (3, 3, 64, 64)], ids=str)
def test_copies_of_many_tasks(shape, rng, poisoned):
    x = rng.standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(ops.clone(x), x)
    np.testing.assert_array_equal(ops.contiguous(x.T), x.T)
    moved = ops.copy_like(x, x.transpose(np.roll(range(x.ndim), 1)).copy().transpose(np.roll(range(x.ndim), -1)))
    np.testing.assert_array_equal(moved, x)
    np.testing.assert_array_equal(ops.contiguous(moved), x)


def test_broadcast_and_many_axes(rng):
    x = rng.standard_normal((3, 1, 2))
    view = np.broadcast_to(x, (4, 3, 5, 2))
    np.testing.assert_array_equal(ops.contiguous(view), view)
    x = rng.standard_normal((2, 3, 2, 1, 2, 3, 2, 2))
    view = x.transpose(7, 0, 5, 3, 1, 6, 2, 4)
    np.testing.assert_array_equal(ops.contiguous(view), view)
    assert ops.clone(np.array(2.5)).item() == 2.5


def test_axes_that_lie_alike_are_merged():
    # From channels-last to row-major order, (N, C, H, W) = (2, 3, 4, 5): H and W become one axis.
    problem = CopyProblem("forward", "float32", (2, 3, 4, 5), (60, 1, 15, 3), (60, 20, 5, 1))
    assert problem.axes == [(2, 60, 60), (3, 1, 20), (20, 3, 1)]
    assert CopyProblem("forward", "float32", (2, 1, 4), (4, 9, 1), (4, 7, 1)).axes == [(8, 1, 1)]


def test_reshape_is_a_view_where_it_can_be(rng):
    x = rng.standard_normal((2, 6, 4, 5))
    last = channels_last(x)
    for base in (x, last, x[:, ::2], x[..., ::-1], last[1:]):
        for target in ((-1,), (base.shape[0], -1), (*base.shape[:2], -1), (1, *base.shape), base.shape):
            y = ops.reshape(base, target)
            expected = base.reshape(target)
            np.testing.assert_array_equal(y, expected)
            assert np.shares_memory(y, base) == np.shares_memory(expected, base)
    assert np.shares_memory(ops.reshape(last, (2, 6, 20)), last)


PADS = [
    ("constant", (1, 2, 3, 0)),
    ("constant", (-1, 2, 0, -2)),
    ("constant", (1, 1, 0, 0, 2, 1, 1, 0)),
    ("constant", (0, 0, 0, 0, 3, 0)),
    ("constant", ()),
    ("constant", (-6, 7)),
    ("reflect", (2, 1, 3, 0)),
    ("reflect", (1, 1, 2, 0, 1, 1)),
    ("reflect", (-1, 4, 2, -2)),
    ("replicate", (2, 9, 3, 0)),
    ("replicate", (-1, 2, -2, 1)),
    ("circular", (5, 1, 4, 0)),
    ("circular", (-1, 2, 3, -2)),
]


@pytest.mark.parametrize("mode, widths", PADS, ids=str)
@pytest.mark.parametrize("shape", [(2, 19, 5, 6), (1, 3, 5, 6), (2, 16, 5, 6), (0, 2, 5, 6)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pad(mode, widths, shape, dtype, rng, poisoned):
    x = rng.integers(-9, 9, shape).astype(dtype)
    value = 2.5 if mode == "constant" else None
    if mode == "reflect" and len(widths) == 6 and not x.size:  # as in PyTorch: the first axis is one of channels here
        with pytest.raises(ValueError, match="input must have channels and elements"):
            nnet.ops.pad(x, widths, mode)
        return
    for base in (x, channels_last(x), x[..., ::-1]):
        y = nnet.ops.pad(base, widths, mode, value)
        grad = rng.integers(-9, 9, y.shape).astype(dtype)
        dx = nnet.ops.pad_backward(grad, base.shape, widths, mode)
        with nnet.use("reference"):
            np.testing.assert_array_equal(y, nnet.ops.pad(base, widths, mode, value))
            np.testing.assert_array_equal(dx, nnet.ops.pad_backward(grad, base.shape, widths, mode))


@pytest.mark.parametrize("mode, name", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_pad_means_what_numpy_means(mode, name, rng):
    x = rng.standard_normal((2, 3, 5, 6))
    expected = np.pad(x, [(0, 0), (0, 0), (3, 1), (2, 4)], mode=name)
    np.testing.assert_array_equal(nnet.ops.pad(x, (2, 4, 3, 1), mode), expected)


def test_pad_of_integers_and_non_finite_values():
    x = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(nnet.ops.pad(x, (1, -1), value=7), [[7, 0, 1], [7, 3, 4]])
    np.testing.assert_array_equal(nnet.ops.pad(np.zeros((1, 2)), (1, 1), value=True), [[1, 0, 0, 1]])  # as in PyTorch
    y = nnet.ops.pad(np.full((1, 2), np.nan, np.float32), (1, 1), value=-np.inf)
    np.testing.assert_array_equal(y, [[-np.inf, np.nan, np.nan, -np.inf]])
    # Gradients that meet no element of the input do not turn into NaN on their way.
    dx = nnet.ops.pad_backward(np.array([[np.nan, 1.0, 2.0, np.inf]]), (1, 2), (1, 1))
    np.testing.assert_array_equal(dx, [[1, 2]])


def test_cat(rng):
    parts = [rng.standard_normal((2, c, 3, 4)).astype(np.float32) for c in (3, 17, 1, 0)]
    for arrays in (parts, [channels_last(p) for p in parts], [p[::-1] for p in parts]):
        y = nnet.ops.cat(arrays, 1)
        np.testing.assert_array_equal(y, np.concatenate(arrays, 1))
    assert memory.memory_order(nnet.ops.cat([channels_last(p) for p in parts], 1)) == (0, 2, 3, 1)
    mixed = nnet.ops.cat([parts[0], parts[0].astype(np.float64), np.zeros(0, np.float32)], -1)
    assert mixed.dtype == np.float64 and mixed.shape == (2, 3, 3, 8)
    assert nnet.ops.cat([np.arange(2), np.zeros(1, np.float32)]).dtype == np.float32
    assert nnet.ops.cat([np.zeros(0), np.zeros(0)]).shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 40000])
def test_conversion(size, rng):
    x = rng.standard_normal(size)
    y = nnet.ops.to_dtype(x, np.float32)
    np.testing.assert_array_equal(y, x.astype(np.float32))
    back = nnet.ops.to_dtype(y[::-1], "float64")
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, y[::-1].astype(np.float64))
    assert nnet.ops.to_dtype(y, np.float32) is y
    assert nnet.ops.to_dtype(np.arange(size), np.float32).dtype == np.float32


@pytest.mark.parametrize("inner", [1, 5, 16, 300])
def test_index_add(inner, rng, poisoned):
    index = rng.integers(0, 6, (4, 5))
    grad = rng.integers(-9, 9, (4, 5, inner)).astype(np.float64)
    dx = ops.getitem_backward(grad, index, (7, inner), np.float64)
    expected = np.zeros((7, inner))
    np.add.at(expected, index, grad)
    np.testing.assert_array_equal(dx, expected)
    with nnet.use("reference"):
        np.testing.assert_array_equal(ops.getitem_backward(grad, index, (7, inner), np.float64), expected)


def test_same_bits_for_any_number_of_threads(rng):
    if parallel.get_num_threads() < 2:
        pytest.skip("one thread only")
    grad = rng.standard_normal((9, 20, 30, 33)).astype(np.float32)
    index = rng.integers(0, 4, 9)

    def everything() -> list[np.ndarray]:
        folded = nnet.ops.pad_backward(grad, (9, 20, 20, 20), (6, 7, 5, 5), "reflect")
        return [folded, ops.getitem_backward(grad, index, (4, 20, 30, 33), np.float32), ops.contiguous(grad.T)]

    parallel.set_num_threads(1)
    try:
        alone = everything()
    finally:
        parallel.set_num_threads(2)
    for one, two in zip(alone, everything()):
        assert one.tobytes() == two.tobytes()


def test_errors(rng):
    x = rng.standard_normal((2, 3))
    with pytest.raises(ValueError, match="tensors must be a sequence of at least one"):
        nnet.ops.cat([])
    with pytest.raises(ValueError, match="at least one dimension"):
        nnet.ops.cat([np.array(1.0)])
    with pytest.raises(ValueError, match="equal shapes but for dimension 0"):
        nnet.ops.cat([x, x.T])
    with pytest.raises(ValueError, match="grad must have the result's shape"):
        nnet.ops.pad_backward(x, (2, 3), (1, 1))
    with pytest.raises(ValueError, match="value must be None with mode='reflect'"):
        nnet.ops.pad(x, (1, 1), "reflect", 2.0)
    with pytest.raises(TypeError, match="dtype must be bool, an integer, float32 or float64, got float16"):
        nnet.ops.to_dtype(x, np.float16)
    with pytest.raises(TypeError, match="input must have dtype float32 or float64"):
        nnet.ops.pad(x.astype(np.float16), (1, 1))


def test_results_beyond_the_caches(rng):
    a, b = rng.standard_normal((2, 9, 64, 90, 90)).astype(np.float32)
    a, b = (memory.like_layout(x, memory.empty_channels_last(a.shape, np.float32)) for x in (a, b))
    assert a.nbytes > 1 << 24
    assert np.array_equal(ops.cat((a, b), 1), np.concatenate((a, b), 1))
    assert np.array_equal(ops.cat((a[:, :63], b), 1), np.concatenate((a[:, :63], b), 1))
    assert np.array_equal(ops.pad(a, (1, 1, 2, 0)), np.pad(a, ((0, 0), (0, 0), (2, 0), (1, 1))))
    assert np.array_equal(ops.clone(a[:, :, 1:, 1:]), a[:, :, 1:, 1:])


def test_byte_orders_are_taken(rng):
    x = rng.standard_normal((5, 4)).astype(np.float32)
    joined = ops.cat([x.astype(">f4"), x, x.astype(">f8")], 1)
    assert joined.dtype == np.float64 and joined.dtype.isnative
    np.testing.assert_array_equal(joined, np.concatenate([x, x, x], 1))
    assert ops.cat([x.astype(">f4")]).dtype == np.float32
    assert ops.to_dtype(x.astype(">f4"), np.float32).dtype.isnative
    np.testing.assert_array_equal(ops.to_dtype(x.astype(">f4"), np.float64), x)


def test_what_is_no_array_is_refused_by_name():
    x = np.ones((1, 4, 2, 2), np.float32)
    for call, name in [
        (lambda: ops.clone(object()), "x"),
        (lambda: ops.contiguous(None), "x"),
        (lambda: ops.reshape(x, 4.0), "shape"),
        (lambda: ops.to_dtype(x, "nothing"), "dtype"),
        (lambda: ops.to_dtype(x, None), "dtype"),
        (lambda: ops.cat(7), "tensors"),
        (lambda: ops.cat([x, "x"]), "tensors"),
        (lambda: ops.pad(x, (1, 1), []), "mode"),
        (lambda: ops.pad(x, (1, 1), value="x"), "value"),
        (lambda: ops.pad_backward(x, 3, (1, 1)), "input_shape"),
        (lambda: nnet.ops.pixel_shuffle(x, {}), "upscale_factor"),
        (lambda: nnet.ops.channel_shuffle(None, 2), "input"),
        (lambda: nnet.ops.unfold(x, 1, stride=2**70), "stride"),
        (lambda: nnet.ops.interpolate(x, scale_factor=math.inf), "scale_factor"),
    ]:
        with pytest.raises((TypeError, ValueError), match=name):
            call()


def test_a_step_that_nobody_takes_may_be_longer_than_memory(rng):
    x = rng.standard_normal((1, 2, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(nnet.ops.unfold(x, 3, stride=2**62), x.reshape(1, 18, 1))
    np.testing.assert_array_equal(nnet.ops.conv2d(x, x, stride=2**62), nnet.ops.conv2d(x, x))


def test_results_without_a_place_in_memory_are_refused():
    x = np.zeros((0, 9, 4, 4), np.float64)
    with pytest.raises(MemoryError):
        nnet.ops.adaptive_max_pool2d(x, 2**31)
    with pytest.raises(MemoryError):
        nnet.ops.conv2d(np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 1, 1), np.float32), padding=2**61)
