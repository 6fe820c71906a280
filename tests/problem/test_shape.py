"""Rules of shapes: padding, dimensions, reshaping."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbanet.problem.shape import dimension, dimensions, pad_map, pad_problem, reshaped, viewable

X = (2, 3, 4, 5)


@pytest.mark.parametrize(
    "pad, mode, error, message",
    [
        (1, "constant", TypeError, "pad must be a tuple of integers, got 1"),
        ((1.0, 1), "constant", TypeError, "pad must be an integer, got 1.0"),
        ((True, 1), "constant", TypeError, "pad must be an integer, got True"),
        ((1,), "constant", ValueError, "pad must hold one pair for each of at most 4 axes"),
        ((1,) * 10, "constant", ValueError, "pad must hold one pair for each of at most 4 axes"),
        ((-3, -3), "constant", ValueError, "takes away more than there is"),
        ((-6, 2), "constant", ValueError, "takes away more than there is"),
        ((1, 1), "mirror", ValueError, "mode must be one of 'constant', 'reflect', 'replicate', 'circular'"),
        ((1, 1), "reflect", ValueError, "pad must hold 2 numbers for a 2-D or 3-D input"),
        ((), "replicate", ValueError, "pad must hold 2 numbers for a 2-D or 3-D input"),
        ((5, 0, 0, 0), "reflect", ValueError, "must be smaller than the axis"),
        ((6, 0, 0, 0), "circular", ValueError, "must not exceed the axis"),
        ((-5, 2, 0, 0), "circular", ValueError, "leaves no element to repeat"),
    ],
)
def test_pad_errors(pad, mode, error, message):
    with pytest.raises(error, match=message):
        pad_problem("forward", X, "float32", pad, mode)


def test_pad_of_nothing():
    with pytest.raises(ValueError, match="input must have channels and elements"):
        pad_problem("forward", (1, 1, 0, 4), "float32", (0, 0, 1, 1), "replicate")
    assert pad_problem("forward", (0,), "float32", (1, 2)).padded_shape == (3,)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((3, 1, 2, "constant"), [-1, 0, 1, 2, -1, -1]),
        ((3, -1, 1, "constant"), [1, 2, -1]),
        ((3, 2, 2, "reflect"), [2, 1, 0, 1, 2, 1, 0]),
        ((3, 2, 1, "replicate"), [0, 0, 0, 1, 2, 2]),
        ((3, -4, 3, "replicate"), [2, 2]),
        ((3, 2, 1, "circular"), [1, 2, 0, 1, 2, 0]),
        ((4, -1, 4, "circular"), [1, 2, 3, 1, 2, 3, 1]),
    ],
)
def test_pad_map(arguments, expected):
    np.testing.assert_array_equal(pad_map(*arguments), expected)


def test_dimensions():
    assert dimension("dim", -1, 3) == 2
    assert dimension("dim", -1, 0) == 0
    assert dimensions("dims", (0, -1), 3) == (0, 2)
    with pytest.raises(ValueError, match="dim must be between -3 and 2, got 3"):
        dimension("dim", 3, 3)
    with pytest.raises(TypeError, match="dim must be an integer, got 1.0"):
        dimension("dim", 1.0, 3)
    with pytest.raises(ValueError, match="dims must not name a dimension twice"):
        dimensions("dims", (0, -3), 3)


def test_reshaped():
    assert reshaped((2, 6), (3, -1)) == (3, 4)
    assert reshaped((0, 6), (-1, 3)) == (0, 3)
    assert reshaped((), (1, 1)) == (1, 1)
    for wanted, message in [
        ((-1, -1), "at most one -1"),
        ((5, -1), "does not fit the 12 elements"),
        ((5,), "does not fit the 12 elements"),
        ((0, -1), "does not fit"),
        ((-2, 6), "shape must be at least -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            reshaped((2, 6), wanted)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_viewable_as_numpy_finds(data):
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    steps = tuple(data.draw(st.sampled_from([1, 1, 2, -1])) for _ in shape)
    order = data.draw(st.permutations(range(len(shape))))
    base = np.zeros([shape[a] * abs(steps[a]) for a in order]).transpose(np.argsort(order))
    x = base[tuple(slice(None, None, step) for step in steps)]
    left, target = math.prod(shape), []
    while left > 1:
        target.append(data.draw(st.sampled_from([d for d in range(2, left + 1) if left % d == 0])))
        left //= target[-1]
    assert viewable(x.shape, x.strides, tuple(target)) == np.shares_memory(x, x.reshape(target))
