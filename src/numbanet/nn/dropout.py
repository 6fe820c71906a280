"""Dropout layers, as in torch.nn."""

from __future__ import annotations

from numbanet import functional
from numbanet.functional.inplace import replace
from numbanet.nn.layout import Images, images
from numbanet.nn.module import Module
from numbanet.problem.dropout import probability
from numbanet.tensor import Tensor, values


class Dropout(Module):
    """In training, set elements to zero with probability `p` and divide the others by 1 - p."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        self.p, self.inplace = probability(p), inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with elements dropped; the input itself in evaluation mode."""
        return functional.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout2d(Images):
    """In training, set whole channels of (N, C, H, W) to zero with probability `p` and divide the others by 1 - p.

    With ``data_format="channels_last"`` images are (N, H, W, C).
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, data_format: str = "channels_first"):
        super().__init__(data_format)
        self.p, self.inplace = probability(p), inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with channels dropped; the input itself in evaluation mode."""
        if self.inplace and self.training and self.p > 0:
            values("input", input)
            return replace(input, self._dropped)
        return self._dropped(input)

    @images(4)
    def _dropped(self, input: Tensor) -> Tensor:
        return functional.dropout2d(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return self._described(f"p={self.p}, inplace={self.inplace}")
