"""Shape rules and argument checks of pooling."""

from __future__ import annotations

import pytest

from numbanet.problem.pool import adaptive_avg_pool2d_problem, avg_pool2d_problem, max_pool2d_problem, pooled_size

X = (2, 3, 8, 9)


@pytest.mark.parametrize(
    "arguments, count",
    [
        ((8, 2, 2, 0, 0, 1, False), 4),
        ((7, 2, 2, 0, 0, 1, False), 3),
        ((7, 2, 2, 0, 1, 1, False), 4),
        ((7, 2, 2, 0, 0, 1, True), 4),
        ((7, 3, 3, 0, 0, 1, False), 2),
        ((7, 3, 3, 0, 0, 1, True), 3),
        ((4, 2, 3, 1, 1, 1, True), 2),
        # A third window would start at 6 - 1 = 5, beyond the input of 4 and its left padding: it does not count.
        ((4, 1, 5, 0, 0, 1, True), 1),
        ((5, 2, 3, 1, 1, 1, True), 2),
        ((9, 3, 1, 0, 0, 4, False), 1),
    ],
)
def test_pooled_size(arguments, count):
    assert pooled_size(*arguments) == count


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": 2.0}, TypeError, "kernel_size must be an integer, got 2.0"),
        ({"kernel_size": True}, TypeError, "kernel_size must be an integer, got True"),
        ({"kernel_size": (2, 2, 2)}, ValueError, "kernel_size must be an integer or a pair"),
        ({"kernel_size": 10}, ValueError, "spans more than the input"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"padding": (1, 2)}, ValueError, r"padding must be at most half of kernel_size \(2, 2\), got \(1, 2\)"),
        ({"padding": ((0, 1), (2, 0))}, ValueError, r"half of kernel_size \(2, 2\), got \(\(0, 1\), \(2, 0\)\)"),
        ({"padding": 2, "dilation": 4}, ValueError, r"half of kernel_size \(2, 2\), got 2"),
        ({"padding": "same"}, ValueError, r"padding='same' needs stride 1, got stride \(2, 2\)"),
        ({"padding": "full"}, ValueError, "padding must be one of 'valid', 'same', 'same_upper', got 'full'"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
        ({"dilation": 9}, ValueError, "spans more than the input"),
        ({"ceil_mode": 1}, TypeError, "ceil_mode must be True or False, got 1"),
        ({"x_shape": (2, 0, 8, 8)}, ValueError, "at least one channel and one pixel"),
        ({"x_shape": (2, 3, 0, 8)}, ValueError, "at least one channel and one pixel"),
    ],
)
def test_max_pool_errors(change, error, message):
    arguments = {"which": "forward", "x_shape": X, "dtype": "float32", "kernel_size": 2, **change}
    with pytest.raises(error, match=message):
        max_pool2d_problem(**arguments)


def test_avg_pool_errors():
    with pytest.raises(ValueError, match="divisor_override must not be zero"):
        avg_pool2d_problem("forward", X, "float32", 2, divisor_override=0)
    with pytest.raises(TypeError, match="divisor_override must be an integer, got 1.5"):
        avg_pool2d_problem("forward", X, "float32", 2, divisor_override=1.5)
    with pytest.raises(TypeError, match="count_include_pad must be True or False"):
        avg_pool2d_problem("forward", X, "float32", 2, count_include_pad=1)


@pytest.mark.parametrize("size", [1, 7, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_same_upper_is_as_keras_pads(size, kernel, stride):
    x = (1, 1, size, size)
    count = -(-size // stride)
    total = max((count - 1) * stride + kernel - size, 0)
    for ceil in (False, True):
        p = avg_pool2d_problem("forward", x, "float32", kernel, stride, "same_upper", ceil)
        assert (p.p, p.q) == (count, count)
        assert p.padding == (total // 2,) * 2 and p.after == (total - total // 2,) * 2 and not p.count_include_pad
        assert max_pool2d_problem("forward", x, "float32", kernel, stride, "same_upper", 1, ceil).padding == p.padding
    assert avg_pool2d_problem("forward", x, "float32", kernel, 1, "same").p == size


@pytest.mark.parametrize(
    "size, error",
    [(-1, ValueError), ((2,), ValueError), ((1, 2, 3), ValueError), (None, TypeError), (2.5, TypeError)],
)
def test_adaptive_errors(size, error):
    with pytest.raises(error, match="output_size must be"):
        adaptive_avg_pool2d_problem("forward", X, "float32", size)


def test_defaults():
    assert max_pool2d_problem("forward", X, "float32", 3).stride == (3, 3)
    assert max_pool2d_problem("forward", X, "float32", (2, 3), []).stride == (2, 3)
    assert max_pool2d_problem("forward", X, "float32", [2]).kernel == (2, 2)
    assert max_pool2d_problem("forward", (1, 1, 16, 17), "float32", (16, 17)).offsets == "int32"
    assert max_pool2d_problem("forward", (1, 1, 16, 16), "float32", 16).offsets == "uint8"
    assert adaptive_avg_pool2d_problem("forward", X, "float32", (None, 2)).p == 8
