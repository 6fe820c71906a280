"""Fill tensors with first values: the functions of torch.nn.init.

Each takes ``generator``, a numpy.random.Generator; without one that of `drawn_from` draws, or else the package's own
(`numbanet.random.manual_seed`). Numbers are drawn in row-major order of the shape, so they do not depend on the order
of the tensor's memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from statistics import NormalDist
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.problem.base import choice, integer
from numbanet.problem.pointwise import number
from numbanet.random import numpy_generator
from numbanet.tensor import Tensor

_GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "sigmoid": 1.0,
    "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
}  # fmt: skip

_CHUNK = 1 << 20  # numbers drawn at once, in float64: a large layer shall not take a large copy of itself
_REJECT = 0.1  # probability of the interval from which numbers outside it are cheaper to draw again
_here: ContextVar[np.random.Generator | None] = ContextVar("numbanet_init_generator", default=None)
_skipped: ContextVar[bool] = ContextVar("numbanet_init_skipped", default=False)


@contextmanager
def drawn_from(generator: np.random.Generator | None) -> Iterator[None]:
    """Within a ``with`` block, draw from `generator` wherever no other one is given; None changes nothing.

    Raises
    ------
    TypeError
        If it is not a numpy.random.Generator.
    """
    token = _here.set(_here.get() if generator is None else _chosen(generator))
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def skipped() -> Iterator[None]:
    """Within a ``with`` block, leave tensors as they are: new layers hold garbage until a checkpoint is loaded.

    ::

        with nn.init.skipped():
            model = models.vgg16()
        io.load_model(model, "vgg16.safetensors")
    """
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which a nonlinearity's weights are widened, as torch recommends it.

    Parameters
    ----------
    nonlinearity : str
        ``"linear"``, ``"conv1d"`` to ``"conv3d"`` and ``"sigmoid"``: 1; ``"tanh"``: 5/3; ``"relu"``: sqrt(2);
        ``"leaky_relu"``: sqrt(2 / (1 + slope^2)); ``"selu"``: 3/4.
    param : float, optional
        Slope of the leaky ReLU, 0.01 if None.

    Raises
    ------
    ValueError
        If `nonlinearity` is none of these, or the slope is not a number.
    """
    if nonlinearity != "leaky_relu":
        return _GAINS[choice("nonlinearity", nonlinearity, (*_GAINS, "leaky_relu"))]
    slope = 0.01 if param is None else param
    if isinstance(slope, bool) or not isinstance(slope, (int, float)):
        raise ValueError(f"param must be the slope of the leaky ReLU, got {param!r}")
    return math.sqrt(2 / (1 + slope * slope))


def _checked(tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a Tensor, got {type(tensor).__name__}")
    return tensor


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return the number of inputs of one output of a weight, and of outputs of one input.

    Parameters
    ----------
    tensor : Tensor
        Shape (out, in) or (out, in, height, width).

    Raises
    ------
    ValueError
        If it has fewer than two dimensions.
    """
    if _checked(tensor).ndim < 2:
        raise ValueError(f"tensor must have at least 2 dimensions, got shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fill(tensor: Tensor, draw: Callable[[tuple[int, ...]], Any]) -> Tensor:
    """Fill with ``draw(shape)``, some rows at a time; generators give the same numbers however they are asked."""
    data = _checked(tensor).data
    if _skipped.get():
        return tensor
    rows = max(1, _CHUNK // max(1, math.prod(data.shape[1:])))
    if data.ndim == 0 or len(data) <= rows:
        memory.assign(data, draw(data.shape))
    else:
        for first in range(0, len(data), rows):
            part = data[first : first + rows]
            memory.assign(part, draw(part.shape))
    tensor.bump_version()
    return tensor


def _whole(tensor: Tensor, make: Callable[[], np.ndarray]) -> Tensor:
    """Fill with an array that is made at once."""
    if not _skipped.get() and _checked(tensor).numel():
        memory.assign(tensor.data, make())
        tensor.bump_version()
    return tensor


def _matrix(tensor: Any) -> Tensor:
    if _checked(tensor).ndim != 2:
        raise ValueError(f"tensor must have 2 dimensions, got shape {tensor.shape}")
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with numbers of the uniform distribution over [a, b), and return the tensor."""
    chosen = _chosen(generator)
    a, b = number("a", a), number("b", b)
    if not 0 <= b - a < math.inf:
        raise ValueError(f"a must not be above b, and their distance finite, got a={a}, b={b}")
    return _fill(_floating(tensor), lambda shape: chosen.uniform(a, b, shape))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: np.random.Generator | None = None
) -> Tensor:
    """Fill with numbers of the normal distribution, and return the tensor."""
    chosen = _chosen(generator)
    mean, std = number("mean", mean), number("std", std, 0)
    return _fill(_floating(tensor), lambda shape: chosen.normal(mean, std, shape))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Fill with numbers of the normal distribution cut off at `a` and `b`, and return the tensor.

    Raises
    ------
    ValueError
        If `a` is above `b`, `std` is not positive, or `std` or `mean` is not finite.
    """
    for name, value in (("mean", mean), ("std", std), ("a", a), ("b", b)):
        number(name, value)
    if not a <= b or not 0 < std < math.inf or not math.isfinite(mean):
        raise ValueError(
            f"a must not be above b, std must be positive and finite, and mean finite, got a={a}, b={b}, std={std}, "
            f"mean={mean}"
        )
    normal, chosen = NormalDist(mean, std), _chosen(generator)
    low, high = normal.cdf(a), normal.cdf(b)

    def again(shape: tuple[int, ...]) -> np.ndarray:
        values = chosen.normal(mean, std, shape)
        while (outside := (values < a) | (values > b)).any():
            values[outside] = chosen.normal(mean, std, int(outside.sum()))
        return values

    def inverse(shape: tuple[int, ...]) -> np.ndarray:
        # The inverse of the distribution function maps a uniform number between its values at a and b.
        inside = np.clip(chosen.uniform(low, high, shape), np.nextafter(0, 1), np.nextafter(1, 0))
        values = np.asarray(np.frompyfunc(normal.inv_cdf, 1, 1)(inside), np.float64)
        return np.clip(values, a, b)

    return _fill(_floating(tensor), again if high - low > _REJECT else inverse)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number, and return the tensor."""
    val = number("val", val)
    return _fill(tensor, lambda shape: val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones, and return the tensor."""
    return _fill(tensor, lambda shape: 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros, and return the tensor."""
    return _fill(tensor, lambda shape: 0)


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill the weight of a convolution so that it passes on as many channels as there are, and return the tensor.

    Within each group, filter k has a one in the middle of channel k; all other weights are zero.

    Parameters
    ----------
    tensor : Tensor
        Shape (out, in, length), (out, in, height, width) or (out, in, depth, height, width).
    groups : int

    Raises
    ------
    ValueError
        If the tensor has another number of dimensions, or its filters can't be divided into the groups.
    """
    if _checked(tensor).ndim not in (3, 4, 5):
        raise ValueError(f"tensor must have 3, 4 or 5 dimensions, got shape {tensor.shape}")
    if tensor.shape[0] % integer("groups", groups, 1):
        raise ValueError(f"groups must divide the {tensor.shape[0]} filters of tensor, got {groups}")
    filters = np.arange(tensor.shape[0])
    channel = filters % max(1, tensor.shape[0] // groups)
    kept = channel < tensor.shape[1]
    middle: tuple[Any, ...] = tuple(n // 2 for n in tensor.shape[2:])

    def make() -> np.ndarray:
        values = np.zeros(tensor.shape, tensor.dtype)
        values[(filters[kept], channel[kept], *middle)] = 1
        return values

    return _whole(tensor, make)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with ones on its diagonal and zeros elsewhere, and return the tensor.

    Raises
    ------
    ValueError
        If it does not have two dimensions.
    """
    return _whole(_matrix(tensor), lambda: np.eye(*tensor.shape, dtype=tensor.dtype))


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with a matrix whose rows, or columns if there are more rows, are orthogonal and of length `gain`.

    All such matrices are equally likely (Saxe et al., arXiv:1312.6120; Mezzadri, arXiv:math-ph/0609050).

    Parameters
    ----------
    tensor : Tensor
        At least two dimensions; all but the first count as one.
    gain : float
    generator : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        If the tensor has fewer than two dimensions.
    """
    chosen, gain = _chosen(generator), number("gain", int(gain) if isinstance(gain, bool) else gain)
    if _floating(tensor).ndim < 2:
        raise ValueError(f"tensor must have at least 2 dimensions, got shape {tensor.shape}")

    def make() -> np.ndarray:
        normal = chosen.standard_normal((tensor.shape[0], math.prod(tensor.shape[1:])))
        wide = normal.shape[0] < normal.shape[1]
        q, r = np.linalg.qr(normal.T if wide else normal)
        q *= gain * np.copysign(1.0, np.diag(r))  # the signs that the factorisation chose are no choice of chance
        return (q.T if wide else q).reshape(tensor.shape)

    return _whole(tensor, make)


def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: np.random.Generator | None = None
) -> Tensor:
    """Fill a matrix with normal numbers, and with zeros at random places of each column (Martens, ICML 2010).

    Parameters
    ----------
    tensor : Tensor
        Two dimensions.
    sparsity : float
        Part of each column that is zero, from 0 to 1; the number of zeros is rounded up.
    std : float
        Deviation of the others.
    generator : numpy.random.Generator, optional
        Draws the normal numbers first, and then a permutation of the rows for each column.

    Raises
    ------
    ValueError
        If the tensor does not have two dimensions, or `sparsity` is not from 0 to 1.
    """
    chosen, std = _chosen(generator), number("std", std, 0)
    if not 0 <= number("sparsity", sparsity) <= 1:
        raise ValueError(f"sparsity must be from 0 to 1, got {sparsity}")
    rows = _floating(_matrix(tensor)).shape[0]

    def make() -> np.ndarray:
        values = chosen.normal(0.0, std, tensor.shape)
        for column in values.T:
            column[chosen.permutation(rows)[: math.ceil(sparsity * rows)]] = 0
        return values

    return _whole(tensor, make)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with uniform numbers in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with normal numbers of deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Fill with uniform numbers in +-gain * sqrt(3 / fan) (He et al., 2015, "Delving deep into rectifiers").

    Parameters
    ----------
    tensor : Tensor
        A weight of at least two dimensions.
    a : float
        Slope of the leaky ReLU behind the layer.
    mode : {"fan_in", "fan_out"}
        Keep the variance of the activations, or that of the gradients.
    nonlinearity : str
        See `calculate_gain`.
    generator : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        If a word is unknown, or the tensor has fewer than two dimensions.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Fill with normal numbers of deviation gain / sqrt(fan); parameters and errors as for `kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def default_(weight: Tensor, bias: Tensor | None, generator: np.random.Generator | None = None) -> None:
    """Fill weight and bias as torch's Conv2d and Linear do: uniform in +-1 / sqrt(fan_in), the weight first."""
    kaiming_uniform_(weight, math.sqrt(5), generator=generator)
    if bias is not None:
        bound = 1 / math.sqrt(max(fans(weight)[0], 1))
        uniform_(bias, -bound, bound, generator)


def _floating(tensor: Any) -> Tensor:
    """Return a tensor that random numbers can fill: integers would hold their whole part alone, and PyTorch refuses."""
    if _checked(tensor).dtype.kind != "f":
        raise TypeError(f"tensor must have a floating-point dtype, got {tensor.dtype}")
    return tensor


def _chosen(generator: np.random.Generator | None) -> np.random.Generator:
    if isinstance(generator, np.random.Generator):
        return generator
    if generator is not None:
        raise TypeError(f"generator must be a numpy.random.Generator, got {type(generator).__name__}")
    return _here.get() or numpy_generator()


def _xavier_std(tensor: Tensor, gain: float) -> float:
    gain = number("gain", float(gain) if isinstance(gain, bool) else gain)  # PyTorch takes True for 1
    if not 0 <= gain < math.inf:
        raise ValueError(f"gain must be finite and not negative, got {gain}")
    return gain * math.sqrt(2.0 / max(sum(fans(tensor)), 1))


def _kaiming_std(tensor: Tensor, a: float | None, mode: str, nonlinearity: str) -> float:
    fan = fans(tensor)[("fan_in", "fan_out").index(choice("mode", mode, ("fan_in", "fan_out")))]
    slope = number("a", a) if nonlinearity == "leaky_relu" and a is not None else None  # nobody else reads it
    return calculate_gain(nonlinearity, slope) / math.sqrt(max(fan, 1))
