"""Two-dimensional pooling: shape arithmetic and argument checks of maximum, average and adaptive average pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from numbanet.problem.base import Problem, choice, flag, integer, pair, plain, sizes
from numbanet.problem.conv import resolve_padding

PASSES = ("forward", "backward_input")
_BYTE_OFFSETS = 256  # windows of at most so many elements have offsets of one byte


@dataclass(frozen=True)
class PoolProblem(Problem):
    """Pooling of x (N, C, H, W) to y (N, C, P, Q).

    Arrays come to the kernels in their memory order: x as (N, H, W, C), y as (N, P, Q, C), both C-contiguous.
    """

    n: int
    c: int
    h: int
    w: int
    p: int
    q: int


@dataclass(frozen=True)
class MaxPoolProblem(PoolProblem):
    """``y[n,c,p,q] = max over r,s of x[n, c, p*stride_h + r*dilation_h - pad_h, ...]``, r < R and s < S inside x.

    Attributes
    ----------
    padding : (int, int)
        Above and on the left; what is below and on the right shows in the size of the result alone.
    offsets : str
        The dtype of the maxima's offsets ``r * S + s`` that the forward pass writes beside y, and that the passes
        ``backward_input`` and ``indices`` read: ``"uint8"``, ``"int32"``, or ``""`` for none.
    """

    operation: ClassVar[str] = "max_pool2d"
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    offsets: str


@dataclass(frozen=True)
class AvgPoolProblem(PoolProblem):
    """``y[n,c,p,q] = sum of x over the window / divisor``.

    The divisor is `divisor_override` if given; else the number of elements of the window, which ends at the border of
    the padded input, or with ``count_include_pad=False`` of those inside the input.

    Attributes
    ----------
    padding, after : (int, int)
        Above and on the left; below and on the right.
    """

    operation: ClassVar[str] = "avg_pool2d"
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    after: tuple[int, int]
    count_include_pad: bool
    divisor_override: int | None


@dataclass(frozen=True)
class AdaptiveAvgPoolProblem(PoolProblem):
    """``y[n,c,p,q]`` = mean of x over the rows floor(p*H/P) to ceil((p+1)*H/P) - 1, and the columns likewise."""

    operation: ClassVar[str] = "adaptive_avg_pool2d"


def pooled_size(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil_mode: bool
) -> int:
    """Return the number of windows along one axis: PyTorch's rule.

    ``floor((size + before + after - dilation*(kernel - 1) - 1) / stride) + 1``, where `before` and `after` are the
    pads; with `ceil_mode` the quotient is rounded up, but a last window that would start beyond the input and its left
    padding does not count.
    """
    span = size + before + after - dilation * (kernel - 1) - 1
    count = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + before:
        count -= 1
    return count


Pair = tuple[int, int]


def pool_window(kernel_size: Any, stride: Any, dilation: Any) -> tuple[Pair, Pair, Pair]:
    """Return the height and width of windows, of the steps between them, and of those inside them.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.
    """
    kernel = pair("kernel_size", kernel_size, 1)
    steps = kernel if stride is None or stride in ((), []) else pair("stride", stride, 1)
    return kernel, steps, pair("dilation", dilation, 1)


def pool_pads(padding: Any, size: Pair, kernel: Pair, steps: Pair, gaps: Pair) -> tuple[int, int, int, int]:
    """Return the pads (top, bottom, left, right) of images of a size; see `numbanet.problem.conv.resolve_padding`.

    Raises
    ------
    TypeError, ValueError
        If `padding` makes no sense, or a number is larger than half of the window.
    """
    spans = gaps[0] * (kernel[0] - 1) + 1, gaps[1] * (kernel[1] - 1) + 1
    top, bottom, left, right = pads = resolve_padding(padding, size, spans, steps)
    if not isinstance(padding, str) and (2 * max(top, bottom) > kernel[0] or 2 * max(left, right) > kernel[1]):
        raise ValueError(f"padding must be at most half of kernel_size {kernel}, got {padding}")
    return pads


def counts_padding(count_include_pad: Any, padding: Any) -> bool:
    """Return whether the zeros of a padding count: unless it says so, those of numbers do and those of words don't."""
    return not isinstance(padding, str) if count_include_pad is None else flag("count_include_pad", count_include_pad)


def _image(x_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(x_shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W) or (C, H, W), got {x_shape}")
    n, c, h, w = x_shape
    return n, c, h, w


def _window(
    x_shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any
) -> tuple[dict[str, Any], Pair]:
    """Check what maximum and average pooling share; return the fields of their problems, and the pads at the ends."""
    n, c, h, w = _image(x_shape)
    if c < 1 or h < 1 or w < 1:
        raise ValueError(f"input must have at least one channel and one pixel (the batch may be empty), got {x_shape}")
    kernel, steps, gaps = pool_window(kernel_size, stride, dilation)
    top, bottom, left, right = pool_pads(padding, (h, w), kernel, steps, gaps)
    p = pooled_size(h, kernel[0], steps[0], top, bottom, gaps[0], ceil_mode)
    q = pooled_size(w, kernel[1], steps[1], left, right, gaps[1], ceil_mode)
    if p < 1 or q < 1:
        raise ValueError(
            f"kernel_size {kernel} with dilation {gaps} spans more than the input of {h} x {w} with padding {padding}"
        )
    if isinstance(padding, str) and gaps != (1, 1):
        axes = zip((h, w), (p, q), (top, left), kernel, steps, gaps)
        if not all(_all_see(*axis) for axis in axes):
            raise ValueError(
                f"padding {padding!r} must leave each window a pixel of the image of {h} x {w}: some of kernel_size "
                f"{kernel} with dilation {gaps} have none"
            )
    fields = {"n": n, "c": c, "h": h, "w": w, "p": p, "q": q, "kernel": kernel, "stride": steps, "padding": (top, left)}
    return fields, (bottom, right)


def _all_see(size: int, count: int, before: int, kernel: int, step: int, gap: int) -> bool:
    """Return whether each window along an axis has a pixel of the image among its taps."""
    starts = range(-before, count * step - before, step)
    return all(any(0 <= start + gap * tap < size for tap in range(kernel)) for start in starts)


def max_pool2d_problem(
    which: str,
    x_shape: Sequence[int],
    dtype: str,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    offsets: bool = True,
) -> MaxPoolProblem:
    """Check the arguments of a maximum pooling and return its problem.

    Parameters
    ----------
    which : {"forward", "backward_input", "indices"}
    x_shape : (N, C, H, W)
    dtype : {"float32", "float64"}
    kernel_size, stride, dilation : int or (int, int)
        `stride` None is `kernel_size`.
    padding : see `numbanet.problem.conv.resolve_padding`
    ceil_mode : bool
        See `pooled_size`.
    offsets : bool
        Whether the forward pass writes the offsets of the maxima.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _max_pool2d_problem(
        which, sizes("input", x_shape), dtype, plain("kernel_size", kernel_size), plain("stride", stride),
        plain("padding", padding), plain("dilation", dilation), flag("ceil_mode", ceil_mode), offsets,
    )  # fmt: skip


@lru_cache(maxsize=4096, typed=True)
def _max_pool2d_problem(
    which: str, x_shape: tuple[int, ...], dtype: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: Any, offsets: bool,
) -> MaxPoolProblem:  # fmt: skip
    choice("which", which, (*PASSES, "indices"))
    fields, _ = _window(x_shape, kernel_size, stride, padding, dilation, ceil_mode)
    taps = fields["kernel"][0] * fields["kernel"][1]
    kind = ("uint8" if taps <= _BYTE_OFFSETS else "int32") if offsets else ""
    return MaxPoolProblem(which, dtype, **fields, dilation=pair("dilation", dilation), offsets=kind)


def avg_pool2d_problem(
    which: str,
    x_shape: Sequence[int],
    dtype: str,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool | None = None,
    divisor_override: int | None = None,
) -> AvgPoolProblem:
    """Check the arguments of an average pooling and return its problem.

    Parameters
    ----------
    which : {"forward", "backward_input"}
    x_shape : (N, C, H, W)
    dtype : {"float32", "float64"}
    kernel_size, stride : int or (int, int)
        `stride` None is `kernel_size`.
    padding : see `numbanet.problem.conv.resolve_padding`
    ceil_mode : bool
        See `pooled_size`.
    count_include_pad : bool, optional
        See `counts_padding`.
    divisor_override : int, optional
        Divide by it instead of the number of elements; not zero.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _avg_pool2d_problem(
        which, sizes("input", x_shape), dtype, plain("kernel_size", kernel_size), plain("stride", stride),
        plain("padding", padding), flag("ceil_mode", ceil_mode), counts_padding(count_include_pad, padding),
        plain("divisor_override", divisor_override),
    )  # fmt: skip


@lru_cache(maxsize=4096, typed=True)
def _avg_pool2d_problem(
    which: str, x_shape: tuple[int, ...], dtype: str, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any,
    count_include_pad: Any, divisor_override: Any,
) -> AvgPoolProblem:  # fmt: skip
    choice("which", which, PASSES)
    fields, after = _window(x_shape, kernel_size, stride, padding, 1, ceil_mode)
    divisor = None if divisor_override is None else integer("divisor_override", divisor_override)
    if divisor == 0:
        raise ValueError("divisor_override must not be zero")
    return AvgPoolProblem(
        which, dtype, **fields, after=after, count_include_pad=count_include_pad, divisor_override=divisor
    )


def adaptive_avg_pool2d_problem(
    which: str, x_shape: Sequence[int], dtype: str, output_size: Any
) -> AdaptiveAvgPoolProblem:
    """Check the arguments of an adaptive average pooling and return its problem.

    Parameters
    ----------
    which : {"forward", "backward_input"}
    x_shape : (N, C, H, W)
    dtype : {"float32", "float64"}
    output_size : int or (int or None, int or None)
        (P, Q); None stands for the size of the input.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _adaptive_avg_pool2d_problem(which, sizes("input", x_shape), dtype, plain("output_size", output_size))


@lru_cache(maxsize=4096, typed=True)
def _adaptive_avg_pool2d_problem(
    which: str, x_shape: tuple[int, ...], dtype: str, output_size: Any
) -> AdaptiveAvgPoolProblem:
    choice("which", which, PASSES)
    n, c, h, w = _image(x_shape)
    if h < 1 or w < 1:
        raise ValueError(f"input must have at least one pixel, got {x_shape}")
    if output_size is None or isinstance(output_size, tuple) and len(output_size) != 2:
        error = TypeError if output_size is None else ValueError
        raise error(f"output_size must be an integer or a pair of integers or None, got {output_size!r}")
    sizes = output_size if isinstance(output_size, tuple) else (output_size, output_size)
    p, q = (size if wanted is None else integer("output_size", wanted, 0) for wanted, size in zip(sizes, (h, w)))
    return AdaptiveAvgPoolProblem(which, dtype, n, c, h, w, p, q)
