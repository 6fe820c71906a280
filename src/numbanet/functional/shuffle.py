"""Differentiable rearrangements of pixels and channels, as in torch.nn.functional, and tensors cut in parts."""

from __future__ import annotations

from collections.abc import Sequence

from numbanet.functional.shape import getitem
from numbanet.ops import shuffle as ops
from numbanet.problem.base import integer
from numbanet.problem.shape import dimension
from numbanet.tape import record
from numbanet.tensor import Tensor, values


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Return (..., C r^2, H, W) as (..., C, H r, W r); see `numbanet.ops.pixel_shuffle`."""
    y = ops.pixel_shuffle(values("input", input), upscale_factor)
    return record(y, (input,), lambda grad: (ops.pixel_unshuffle(grad, upscale_factor),))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Return (..., C, H r, W r) as (..., C r^2, H, W); see `numbanet.ops.pixel_unshuffle`."""
    y = ops.pixel_unshuffle(values("input", input), downscale_factor)
    return record(y, (input,), lambda grad: (ops.pixel_shuffle(grad, downscale_factor),))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Return the channels of (N, C, ...) in another order; see `numbanet.ops.channel_shuffle`."""
    x = values("input", input)
    y = ops.channel_shuffle(x, groups)
    return record(y, (input,), lambda grad: (ops.channel_shuffle(grad, max(1, x.shape[1] // groups)),))


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of consecutive parts of a tensor along a dimension.

    Parameters
    ----------
    tensor : Tensor
        At least one dimension.
    split_size_or_sections : int or sequence of int
        The size of all parts (of the last one, what is left), or the sizes of each, whose sum is that of the dimension.
    dim : int

    Raises
    ------
    TypeError, ValueError
        If the sizes do not fit, or there is no such dimension.
    """
    shape = values("input", tensor).shape
    if not shape:
        raise ValueError("split expects at least a 1-dimensional tensor, got one of shape ()")
    axis = dimension("dim", dim, len(shape))
    size = shape[axis]
    if isinstance(split_size_or_sections, (tuple, list)):
        sections = [integer("split_size_or_sections", part, 0) for part in split_size_or_sections]
        if sum(sections) != size:
            raise ValueError(f"split_size_or_sections must add up to {size}, the size of dimension {dim}: {sections}")
    else:
        step = integer("split_size_or_sections", split_size_or_sections, 0 if size == 0 else 1)
        sections = [min(step, size - start) for start in range(0, size, max(step, 1))] or [0]
    parts, start = [], 0
    for part in sections:
        parts.append(getitem(tensor, (slice(None),) * axis + (slice(start, start + part),)))
        start += part
    return tuple(parts)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of at most `chunks` parts of a tensor along a dimension, of one size but for the last.

    Raises
    ------
    TypeError, ValueError
        If `chunks` is not a positive integer, or there is no such dimension.
    """
    shape = values("input", input).shape
    if not shape:
        raise ValueError("chunk expects at least a 1-dimensional tensor, got one of shape ()")
    count, size = integer("chunks", chunks, 1), shape[dimension("dim", dim, len(shape))]
    return split(input, [0] * count if size == 0 else -(-size // count), dim)
