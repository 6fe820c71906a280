"""Every update rule's kernel against its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import ops
from numbanet.cpu.parallel import get_num_threads, set_num_threads

RULES: dict[str, tuple[Callable[..., None], int, list[dict[str, Any]]]] = {
    "sgd": (
        ops.sgd_step,
        1,
        [
            {"lr": 0.1},
            {"lr": 0.1, "weight_decay": 0.3, "maximize": True},
            {"lr": 0.1, "momentum": 0.9, "dampening": 0.4},
            {"lr": 0.1, "momentum": 0.9, "first": True},
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
        ],
    ),
    "adam": (
        ops.adam_step,
        3,
        [
            {"step": 1},
            {"step": 7, "lr": 0.1, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.3, "maximize": True},
            {"step": 7, "lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True},
        ],
    ),
    "rmsprop": (
        ops.rmsprop_step,
        3,
        [{"lr": 0.1}, {"alpha": 0.5, "eps": 0.1, "weight_decay": 0.3, "momentum": 0.9, "maximize": True}],
    ),
    "adagrad": (ops.adagrad_step, 1, [{"lr": 0.1}, {"eps": 0.1, "weight_decay": 0.3, "maximize": True}]),
    "adadelta": (
        ops.adadelta_step,
        2,
        [{"lr": 0.1}, {"rho": 0.5, "eps": 0.1, "weight_decay": 0.3, "maximize": True}],
    ),
}
CASES = [(rule, options) for rule, (_, _, variants) in RULES.items() for options in variants]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (7,), (8,), (9,), (15,), (16,), (17,), (33,), (3, 5), (40000,)]


def operands(rule: str, shape: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    """Parameter, gradient and state of a rule; running squares are positive, and above the square of running means."""
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape) for _ in range(2 + RULES[rule][1])]
    for position in {"adam": (3, 4), "rmsprop": (2,), "adagrad": (2,), "adadelta": (2, 3)}.get(rule, ()):
        arrays[position] = np.abs(arrays[position]) + 20.0
    return [np.asarray(a, dtype) for a in arrays]


def error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(np.abs(f - e).max(initial=0) / max(np.abs(e).max(initial=0), 1e-30) for f, e in zip(found, expected))


@pytest.mark.parametrize("dtype, tolerance", [("float32", 5e-7), ("float64", 1e-15)])
@pytest.mark.parametrize("rule, options", CASES)
def test_against_definition(rule: str, options: dict[str, Any], dtype: str, tolerance: float) -> None:
    step, states, _ = RULES[rule]
    for shape in SHAPES:
        for used in range(states + 1):
            if (rule == "adam" and used < 2) or (rule in ("rmsprop", "adagrad") and used < 1):
                continue
            if rule == "adadelta" and used < 2 or ("first" in options and not used):
                continue
            found = operands(rule, shape, dtype)[: 2 + used]
            expected = [a.astype(np.float64) for a in found]
            if options.get("first"):
                found[2].fill(np.nan)  # a buffer that starts is not read
            step(*found, **options)
            with nnet.use("reference"):
                step(*expected, **options)
            assert error(found, expected) < tolerance, (shape, used)


def test_rmsprop_takes_any_of_its_states() -> None:
    param, grad, square, _, buffer = operands("rmsprop", (33,), "float64")
    expected = [a.copy() for a in (param, square, buffer)]
    ops.rmsprop_step(param, grad, square, None, buffer, momentum=0.9)
    with nnet.use("reference"):
        ops.rmsprop_step(expected[0], grad, expected[1], None, expected[2], momentum=0.9)
    assert error([param, square, buffer], expected) < 1e-15


def variants(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same values in other memory: channels-last, transposed, with gaps, reversed."""
    gaps = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    gaps[..., ::2] = x
    return {
        "channels-last": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "transposed": np.asfortranarray(x),
        "gaps": gaps[..., ::2],
        "reversed": np.ascontiguousarray(x[::-1])[::-1],
    }


@pytest.mark.parametrize("layout", ["channels-last", "transposed", "gaps", "reversed"])
@pytest.mark.parametrize("other", ["plain", "channels-last", "gaps"])
def test_any_memory(layout: str, other: str) -> None:
    plain = operands("adam", (4, 3, 2, 5), "float64")
    mixed = [variants(a)[layout] if i in (0, 2) else variants(a).get(other, a) for i, a in enumerate(plain)]
    plain = [a.copy() for a in plain]
    for arrays in (plain, mixed):
        ops.adam_step(*arrays, step=2, weight_decay=0.1)
    for p, m in zip(plain, mixed):
        np.testing.assert_array_equal(p, m)


def test_neighbours_of_gaps_stay() -> None:
    memory = np.full(20, 5.0)
    ops.sgd_step(memory[::2], np.ones(10), lr=1.0)
    np.testing.assert_array_equal(memory[::2], 4.0)
    np.testing.assert_array_equal(memory[1::2], 5.0)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 33, (1 << 14) + 3])
def test_writes_nothing_beyond_its_arrays(size: int) -> None:
    blocks = [np.full(size + 64, 3.0, np.float32) for _ in range(5)]
    ops.adam_step(*(b[32 : 32 + size] for b in blocks), step=1)
    for b in blocks:
        assert (b[:32] == 3).all() and (b[32 + size :] == 3).all()


@pytest.mark.parametrize("rule", RULES)
def test_lists_are_updated_as_one_by_one(rule: str) -> None:
    step, states, choices = RULES[rule]
    shapes = [(5, 3), (), (0,), (70_001,), (16,), (40_000,), (2, 3, 4, 5), (33,)]
    sets = [operands(rule, shape, "float64" if shape == (16,) else "float32") for shape in shapes]
    sets[6] = [np.asfortranarray(a) if j % 2 else a for j, a in enumerate(sets[6])]
    expected = [[a.copy() for a in arrays] for arrays in sets]
    for arrays in expected:
        step(*arrays, **choices[-1])
    step(*(list(arrays) for arrays in zip(*sets)), **choices[-1])
    for found, wanted in zip(sets, expected):
        for f, w in zip(found, wanted):
            np.testing.assert_array_equal(f, w)


@pytest.mark.parametrize("rule", RULES)
def test_threads_give_equal_bits(rule: str) -> None:
    step, _, choices = RULES[rule]
    before, results = get_num_threads(), []
    try:
        for threads in (1, min(2, before)):
            set_num_threads(threads)
            arrays = operands(rule, (100_003,), "float32")
            step(*arrays, **choices[-1])
            results.append(arrays)
    finally:
        set_num_threads(before)
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def test_no_decay_leaves_infinite_parameters() -> None:
    parameter = np.array([np.inf, -np.inf, np.nan, 1.0])
    ops.sgd_step(parameter, np.array([1.0, 1.0, 1.0, np.nan]), lr=0.1)
    np.testing.assert_array_equal(parameter, [np.inf, -np.inf, np.nan, np.nan])


def test_amsgrad_keeps_nan() -> None:
    parameter, grad, m, v, largest = (np.ones(17) for _ in range(5))
    grad[3] = np.nan
    ops.adam_step(parameter, grad, m, v, largest, step=1)
    assert np.isnan(largest[3]) and np.isnan(parameter[3]) and np.isfinite(np.delete(parameter, 3)).all()


def test_refuses_what_does_not_fit() -> None:
    x = np.zeros(3, np.float32)
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"grad must have the parameter's shape \(3,\), got \(4,\)"):
        ops.sgd_step(x, np.zeros(4, np.float32), lr=0.1)
    with pytest.raises(TypeError, match="grad must have the parameter's dtype float32, got float64"):
        ops.sgd_step(x, np.zeros(3), lr=0.1)
    with pytest.raises(ValueError, match="parameter is updated in place and must not be read-only"):
        ops.sgd_step(frozen, x, lr=0.1)
    with pytest.raises(TypeError, match="parameter must be an array of native float32 or float64, got int64"):
        ops.sgd_step(np.zeros(3, np.int64), x, lr=0.1)
    with pytest.raises(TypeError, match="parameter must be .* got float"):
        ops.sgd_step([0.0], [x], lr=0.1)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="grad must have as many entries as parameter, 2, got 1"):
        ops.sgd_step([x, x.copy()], [x], lr=0.1)
    with pytest.raises(ValueError, match="exp_avg_sq is updated in place"):
        ops.adam_step(x, x.copy(), x.copy(), frozen, step=1)
    with pytest.raises(TypeError, match="acc_delta must be an array or a list of arrays, got None"):
        ops.adadelta_step(x, x.copy(), x.copy(), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="momentum_buffer must have the parameter's shape"):
        ops.sgd_step(x, x.copy(), np.zeros((3, 1), np.float32), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("ord", [2, 1, np.inf, -np.inf, 0, 3, 0.5, -1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vector_norm(ord: float, dtype: str, rng: np.random.Generator) -> None:
    for shape in [(1,), (15,), (16,), (17,), (3, 5, 7), (1 << 14,), ((1 << 14) + 1,), (40001,)]:
        x = rng.standard_normal(shape).astype(dtype)
        x.flat[0] = -0.0 if ord >= 0 else 0.5
        expected = np.linalg.norm(x.astype(np.float64).ravel(), ord)
        assert ops.vector_norm(x, ord) == pytest.approx(expected, rel=1e-13)
        with nnet.use("reference"):
            assert ops.vector_norm(x, ord) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("ord", [2, 1, np.inf, -np.inf, 3])
def test_vector_norm_of_what_is_not_finite(ord: float, rng: np.random.Generator) -> None:
    for position in (0, 14, 16, 32):
        x = rng.standard_normal(33).astype(np.float32)
        x[position] = np.nan
        assert np.isnan(ops.vector_norm(x, ord))
        x[position] = -np.inf
        assert ops.vector_norm(x, ord) == (np.abs(x).min() if ord == -np.inf else np.inf)


@pytest.mark.parametrize("ord", [2, np.inf, -np.inf, 0, 3, -1])
def test_vector_norms_of_many(ord: float, rng: np.random.Generator) -> None:
    shapes = [(3, 5), (0,), (50_000,), (), (17,)]
    arrays = [rng.standard_normal(shape).astype("float64" if j % 2 else "float32") for j, shape in enumerate(shapes)]
    expected = [ops.vector_norm(x, ord) for x in arrays]
    np.testing.assert_array_equal(ops.vector_norms(arrays, ord), expected)
    with nnet.use("reference"):
        np.testing.assert_allclose(ops.vector_norms(arrays, ord), expected, rtol=1e-12)
    assert ops.vector_norms([], ord).shape == (0,)


def test_fill(rng: np.random.Generator) -> None:
    arrays = [np.full(33, np.nan, np.float32), np.zeros((2, 3, 4)).transpose(2, 0, 1), np.ones((4, 6))[:, ::2]]
    ops.fill_(arrays, 2.5)
    for x in arrays:
        np.testing.assert_array_equal(x, 2.5)


def test_vector_norm_of_nothing_and_of_extremes() -> None:
    assert ops.vector_norm(np.zeros(0, np.float32)) == 0.0
    assert ops.vector_norm(np.zeros(5, np.float32), -1) == 0.0
    assert ops.vector_norm(np.full(100, 1e30, np.float32)) == pytest.approx(1e31, rel=1e-6)  # squares exceed float32
    with pytest.raises(TypeError, match="x must have dtype float32 or float64, got int64"):
        ops.vector_norm(np.arange(3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 33, 40001])
def test_scale_and_clamp(size: int, dtype: str, rng: np.random.Generator) -> None:
    block = rng.standard_normal(size + 32).astype(dtype)
    x, before = block[16 : 16 + size], block.copy()
    ops.scale_(x, 0.37)
    np.testing.assert_array_equal(x, before[16 : 16 + size] * x.dtype.type(0.37))
    ops.clamp_(x, -0.1, 0.2)
    np.testing.assert_array_equal(x, np.clip(before[16 : 16 + size] * x.dtype.type(0.37), -0.1, 0.2).astype(dtype))
    np.testing.assert_array_equal(np.delete(block, slice(16, 16 + size)), np.delete(before, slice(16, 16 + size)))


def test_clamp_keeps_nan_and_strided_memory() -> None:
    block = np.array([np.nan, 7.0, 5.0, 7.0, -5.0, 7.0])
    ops.clamp_(block[::2], -1, 1)
    np.testing.assert_array_equal(block, [np.nan, 7, 1, 7, -1, 7])
    with nnet.use("reference"):
        ops.clamp_(block[1::2], -1, 1)
    np.testing.assert_array_equal(block, [np.nan, 1, 1, 1, -1, 1])
