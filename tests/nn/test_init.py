"""Initial values: distributions, bounds, fans, gains, generators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn, random
from numbanet.nn import init


def blank(*shape: int) -> nnet.Tensor:
    return nnet.tensor(np.full(shape, np.nan, np.float32))


@pytest.mark.parametrize(
    ("nonlinearity", "param", "gain"),
    [
        ("linear", None, 1), ("conv2d", None, 1), ("sigmoid", None, 1), ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)), ("leaky_relu", None, math.sqrt(2 / 1.0001)), ("leaky_relu", 0.5, math.sqrt(1.6)),
        ("leaky_relu", 0, math.sqrt(2)), ("selu", None, 0.75),
    ],
)  # fmt: skip
def test_calculate_gain(nonlinearity: str, param: float | None, gain: float) -> None:
    assert init.calculate_gain(nonlinearity, param) == pytest.approx(gain, rel=1e-15)


def test_calculate_gain_errors() -> None:
    with pytest.raises(ValueError, match="nonlinearity must be one of .*, got 'swish'"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="param must be the slope"):
        init.calculate_gain("leaky_relu", True)


def test_fans() -> None:
    assert init.fans(blank(7, 3)) == (3, 7)
    assert init.fans(blank(7, 3, 5, 2)) == (30, 70)
    with pytest.raises(ValueError, match=r"at least 2 dimensions, got shape \(7,\)"):
        init.fans(blank(7))


# (function, mean, deviation, largest |value|) for a tensor of shape (200, 50, 3, 3): fan_in 450, fan_out 1800
FAMILIES: list[tuple[Callable[..., Any], float, float, float]] = [
    (lambda t, g: init.uniform_(t, -1, 3, g), 1, 4 / math.sqrt(12), 3),
    (lambda t, g: init.normal_(t, 2, 0.5, g), 2, 0.5, np.inf),
    (lambda t, g: init.xavier_uniform_(t, 2, g), 0, 2 * math.sqrt(2 / 2250), 2 * math.sqrt(6 / 2250)),
    (lambda t, g: init.xavier_normal_(t, 2, g), 0, 2 * math.sqrt(2 / 2250), np.inf),
    (lambda t, g: init.kaiming_uniform_(t, generator=g), 0, math.sqrt(2 / 450), math.sqrt(6 / 450)),
    (lambda t, g: init.kaiming_uniform_(t, 1, "fan_out", generator=g), 0, math.sqrt(1 / 1800), math.sqrt(3 / 1800)),
    (lambda t, g: init.kaiming_normal_(t, 0, "fan_out", "relu", g), 0, math.sqrt(2 / 1800), np.inf),
    # A normal distribution cut off at two deviations has the deviation 0.8796.
    (lambda t, g: init.trunc_normal_(t, generator=g), 0, 0.87962566, 2),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_distributions(family: tuple[Callable[..., Any], float, float, float], rng: np.random.Generator) -> None:
    fill, mean, deviation, bound = family
    tensor = blank(200, 50, 3, 3)
    assert fill(tensor, rng) is tensor and tensor._version == 1
    count = tensor.numel()
    assert tensor.data.mean(dtype=np.float64) == pytest.approx(mean, abs=5 * deviation / math.sqrt(count))
    assert tensor.data.std(dtype=np.float64) == pytest.approx(deviation, rel=0.01)
    assert np.abs(tensor.data).max() <= bound * (1 + 1e-6)
    if np.isfinite(bound) and mean == 0:
        assert np.abs(tensor.data).max() >= 0.999 * bound


def test_truncated_normal_reaches_far_tails(rng: np.random.Generator) -> None:
    for a, b in ((6.0, 7.0), (-9.5, -9.0), (40.0, 41.0), (0.5, 0.5)):
        values = init.trunc_normal_(nnet.tensor(np.zeros(50)), a=a, b=b, generator=rng).data
        assert values.min() >= a and values.max() <= b
    with pytest.raises(ValueError, match="got a=1, b=0, std=1.0"):
        init.trunc_normal_(blank(2), a=1, b=0)
    with pytest.raises(ValueError, match="std=0"):
        init.trunc_normal_(blank(2), std=0)


def test_constants() -> None:
    assert init.zeros_(blank(2)).data.tolist() == [0, 0]
    assert init.ones_(blank(2)).data.tolist() == [1, 1]
    assert init.constant_(blank(2), 3.5).data.tolist() == [3.5, 3.5]


def test_numbers_come_from_the_generator_given() -> None:
    def draw(generator: np.random.Generator | None) -> list[float]:
        return init.uniform_(blank(4), generator=generator).data.tolist()

    assert draw(np.random.default_rng(3)) == draw(np.random.default_rng(3)) != draw(np.random.default_rng(4))
    state = random.get_state()
    draw(np.random.default_rng(3))
    assert np.array_equal(random.get_state(), state)
    try:
        random.manual_seed(5)
        first, second = draw(None), draw(None)
        random.manual_seed(5)
        assert draw(None) == first != second
    finally:
        random.set_state(state)
    with pytest.raises(TypeError, match="generator must be a numpy.random.Generator, got int"):
        init.uniform_(blank(1), generator=3)  # type: ignore[arg-type]


def test_values_do_not_depend_on_the_order_of_memory() -> None:
    plain, moved = blank(4, 3, 2, 2), nnet.Tensor(np.empty((4, 2, 2, 3), np.float32).transpose(0, 3, 1, 2))
    for tensor in (plain, moved):
        init.kaiming_normal_(tensor, generator=np.random.default_rng(0))
    assert np.array_equal(plain.data, moved.data)


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 200, 3, groups=2), nn.Linear(288, 200)])
def test_default_of_layers(layer: Any) -> None:
    """Uniform in +-1/sqrt(fan_in), weights and biases."""
    layer.reset_parameters(np.random.default_rng(0))
    bound = 1 / math.sqrt(288)
    for values, least in ((layer.weight.data, 0.999), (layer.bias.data, 0.9)):
        assert least * bound <= np.abs(values).max() <= bound * (1 + 1e-6)
    assert layer.weight.data.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_mode_errors() -> None:
    with pytest.raises(ValueError, match="mode must be one of 'fan_in', 'fan_out', got 'fan'"):
        init.kaiming_uniform_(blank(2, 2), mode="fan")
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        init.xavier_normal_(blank(2))


def test_drawn_from_gives_layers_their_generator() -> None:
    with init.drawn_from(np.random.default_rng(3)):
        first, second = nn.Linear(4, 5), nn.Linear(4, 5, generator=np.random.default_rng(3))
        with init.drawn_from(None):
            third = nn.Linear(4, 5)
    rng = np.random.default_rng(3)
    assert np.array_equal(first.weight.data, nn.Linear(4, 5, generator=rng).weight.data)
    assert np.array_equal(first.weight.data, second.weight.data)
    assert np.array_equal(third.weight.data, nn.Linear(4, 5, generator=rng).weight.data)
    with pytest.raises(TypeError, match="generator must be a numpy.random.Generator, got int"):
        with init.drawn_from(3):  # type: ignore[arg-type]
            pass


def test_skipped_leaves_tensors_as_they_are() -> None:
    with init.skipped():
        assert np.isnan(init.normal_(blank(3, 4)).data).all()
        nn.Conv2d(3, 4, 3)
    assert not np.isnan(init.normal_(blank(3, 4)).data).any()


@pytest.mark.parametrize("fill", [init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_normal_])
def test_large_tensors_are_drawn_in_parts(fill: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fill(blank(7, 3, 5), generator=np.random.default_rng(0)).data
    monkeypatch.setattr(init, "_CHUNK", 40)
    parts = fill(blank(7, 3, 5), generator=np.random.default_rng(0)).data
    if fill is not init.trunc_normal_:  # draws again what fell outside, so its parts follow each other differently
        assert np.array_equal(whole, parts)
    assert not np.isnan(parts).any() and len(np.unique(parts)) == parts.size


def test_dirac_passes_channels_on():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)
    for filters, groups in ((5, 1), (2, 1), (6, 3)):
        weight = init.dirac_(nnet.Tensor(np.full((filters, 3 // groups, 3, 3), 7, np.float32)), groups)
        y = nnet.ops.conv2d(x, weight.data, padding=1, groups=groups)
        for k in range(filters):
            group, channel = divmod(k, filters // groups)
            expected = x[:, group * (3 // groups) + channel] if channel < 3 // groups else 0
            np.testing.assert_array_equal(y[:, k], np.broadcast_to(expected, y[:, k].shape))


def test_dirac_refuses():
    with pytest.raises(ValueError, match="3, 4 or 5 dimensions"):
        init.dirac_(nnet.Tensor(np.ones((2, 2))))
    with pytest.raises(ValueError, match="groups must divide"):
        init.dirac_(nnet.Tensor(np.ones((4, 2, 3))), 3)
    with init.skipped():
        assert init.dirac_(nnet.Tensor(np.ones((4, 2, 3)))).data.all()


@pytest.mark.parametrize(
    "fill",
    [init.zeros_, init.uniform_, init.kaiming_normal_, init.dirac_, init.trunc_normal_, init.fans, init.eye_,
     init.orthogonal_, lambda tensor: init.sparse_(tensor, 0.5)],
)  # fmt: skip
def test_what_is_no_tensor_is_refused_by_name(fill: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="tensor must be a Tensor, got list"):
        fill([[1.0]])


@pytest.mark.parametrize(
    "fill",
    [init.uniform_, init.normal_, init.trunc_normal_, init.xavier_normal_, init.orthogonal_,
     lambda tensor: init.sparse_(tensor, 0.5)],
)  # fmt: skip
def test_random_numbers_fill_no_integers(fill: Callable[[Any], Any]) -> None:
    """As in PyTorch: only their whole parts would be left. Constants are answered."""
    with pytest.raises(TypeError, match="tensor must have a floating-point dtype, got int64"):
        fill(nnet.tensor([[1, 2]]))
    assert init.constant_(nnet.tensor([1, 2]), 3).tolist() == [3, 3]


@pytest.mark.parametrize("fill", [init.xavier_uniform_, init.xavier_normal_])
@pytest.mark.parametrize(("gain", "error"), [(-1.0, ValueError), (math.inf, ValueError), ((1, 2), TypeError)])
def test_gains_are_numbers(fill: Callable[..., Any], gain: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="gain must be"):
        fill(blank(2, 3), gain)
    fill(blank(2, 3), True)  # as PyTorch


def test_slopes_and_moments_are_finite_numbers() -> None:
    with pytest.raises(TypeError, match="a must be a number, got {}"):
        init.kaiming_uniform_(blank(2, 3), {})  # type: ignore[arg-type]
    assert init.calculate_gain("leaky_relu", 1e200) == 0
    with pytest.raises(ValueError, match="mean=nan"):
        init.trunc_normal_(blank(3), math.nan)
    with pytest.raises(ValueError, match="std=inf"):
        init.trunc_normal_(blank(3), 0.0, math.inf)


def test_slope_of_kaiming_that_nobody_reads() -> None:
    weight = nn.Parameter(np.zeros((4, 3, 3, 3), np.float32))
    for nonlinearity in ("leaky_relu", "relu"):
        init.kaiming_uniform_(weight, a=None, nonlinearity=nonlinearity)
        assert abs(weight.data).max() <= init.calculate_gain(nonlinearity) * np.sqrt(3 / 27)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (6, 2, 3, 3), (40, 2, 3, 3), (1, 5), (0, 3)], ids=str)
@pytest.mark.parametrize("gain", [1.0, -2.5])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...], gain: float) -> None:
    tensor = init.orthogonal_(nnet.tensor(np.full(shape, np.nan)), gain, np.random.default_rng(0))
    matrix = tensor.data.reshape(shape[0], -1) if tensor.numel() else np.zeros((1, 1))
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, gain**2 * np.eye(len(small)) * bool(tensor.numel()), atol=1e-12)


def test_all_orthogonal_matrices_are_equally_likely() -> None:
    """The signs of a factorisation are fixed: with them, this mean of the diagonal would be far from zero."""
    rng = np.random.default_rng(0)
    corners = [init.orthogonal_(blank(2, 2), generator=rng).data[0, 0] for _ in range(2000)]
    assert abs(np.mean(corners)) < 4 / math.sqrt(2 * 2000)
    assert np.mean(np.square(corners)) == pytest.approx(0.5, abs=0.05)


def test_sparse_columns() -> None:
    tensor = init.sparse_(blank(50, 40), 0.33, 0.5, np.random.default_rng(0))
    zeros = tensor.data == 0
    assert (zeros.sum(0) == math.ceil(0.33 * 50)).all() and 5 < len(set(map(tuple, zeros.T)))
    assert tensor.data[~zeros].std() == pytest.approx(0.5, rel=0.05)
    assert (init.sparse_(blank(3, 2), 1.0).data == 0).all() and (init.sparse_(blank(3, 2), 0).data != 0).all()
    version = tensor._version
    with init.skipped():
        for fill in (init.eye_, init.orthogonal_, lambda t: init.sparse_(t, 0.5)):
            assert np.isnan(fill(blank(3, 3)).data).all()
    assert init.eye_(tensor)._version > version and np.array_equal(tensor.data, np.eye(50, 40))


@pytest.mark.parametrize(
    ("fill", "message"),
    [(lambda: init.eye_(blank(3)), r"tensor must have 2 dimensions, got shape \(3,\)"),
     (lambda: init.sparse_(blank(3, 2, 1), 0.1), r"tensor must have 2 dimensions, got shape \(3, 2, 1\)"),
     (lambda: init.sparse_(blank(3, 2), 1.1), "sparsity must be from 0 to 1, got 1.1"),
     (lambda: init.sparse_(blank(3, 2), math.nan), "sparsity must be from 0 to 1, got nan"),
     (lambda: init.sparse_(blank(3, 2), 0.1, -1), "std must be at least 0"),
     (lambda: init.orthogonal_(blank(3)), r"tensor must have at least 2 dimensions, got shape \(3,\)")],
)  # fmt: skip
def test_what_the_matrices_refuse(fill: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill()
