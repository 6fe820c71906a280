"""Layers that change the shape only, as in torch.nn."""

from __future__ import annotations

from collections.abc import Sequence

from numbanet import functional
from numbanet.nn.module import Module
from numbanet.problem.base import integer
from numbanet.tensor import Tensor


class Flatten(Module):
    """Make a run of dimensions one: by default, all but the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Return the flattened tensor."""
        return functional.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


def _sizes(value: Sequence[int]) -> Sequence[int]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"unflattened_size must be a sequence of sizes, got {value!r}")
    sizes = [integer("unflattened_size", size, -1) for size in value]
    return sizes if isinstance(value, list) else value


class Unflatten(Module):
    """Split dimension `dim` into several, of the sizes `unflattened_size` (one may be -1)."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, _sizes(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """Return the tensor with the dimension split."""
        return functional.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
