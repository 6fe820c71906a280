"""The generator: seeds, states, and that NumPy's global state is left alone."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet


def test_draws_count_up():
    generator = nnet.random.Generator(7)
    assert [generator.draw() for _ in range(3)] == [(7, 0), (7, 1), (7, 2)]
    assert generator.initial_seed() == 7


def test_state_round_trip():
    generator = nnet.random.Generator(2**64 - 1)
    generator.draw()
    state = generator.get_state()
    assert state.dtype == np.uint64 and state.tolist() == [2**64 - 1, 1]
    following = [generator.numpy_generator().random(4) for _ in range(2)]
    generator.manual_seed(0)
    generator.set_state(state)
    again = [generator.numpy_generator().random(4) for _ in range(2)]
    assert np.array_equal(following, again)
    assert not np.array_equal(following[0], following[1])


def test_default_generator_and_manual_seed():
    state = nnet.random.get_state()
    try:
        assert nnet.manual_seed(3) is nnet.random.default_generator
        first = nnet.random.numpy_generator().random(3)
        assert nnet.random.initial_seed() == 3
        nnet.random.manual_seed(3)
        assert np.array_equal(first, nnet.random.numpy_generator().random(3))
        assert "seed=3" in repr(nnet.random.default_generator)
    finally:
        nnet.random.set_state(state)


def test_negative_seed_wraps():
    assert nnet.random.Generator(-1).initial_seed() == 2**64 - 1


@pytest.mark.parametrize(("seed", "error"), [(2**64, ValueError), (-(2**63) - 1, ValueError), (0.5, TypeError)])
def test_bad_seed(seed, error):
    with pytest.raises(error, match="seed"):
        nnet.random.Generator(seed)


@pytest.mark.parametrize("state", [np.zeros(3, np.uint64), np.zeros(2), [1, 2]])
def test_bad_state(state):
    with pytest.raises(ValueError, match="state"):
        nnet.random.Generator(1).set_state(state)


def test_numpy_global_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not change
    nnet.random.Generator(1).numpy_generator().random(10)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
