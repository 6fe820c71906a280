"""Layers that rearrange pixels and channels, as in torch.nn."""

from __future__ import annotations

from numbanet import functional
from numbanet.nn.layout import Images, images
from numbanet.nn.module import Module
from numbanet.tensor import Tensor


class PixelShuffle(Images):
    """(..., C r^2, H, W) as (..., C, H r, W r).

    With ``data_format="channels_last"``: (..., H, W, C r^2) as (..., H r, W r, C), in the same order of channels (that
    of PyTorch, which is not that of `tf.nn.depth_to_space`).
    """

    def __init__(self, upscale_factor: int, *, data_format: str = "channels_first"):
        super().__init__(data_format)
        self.upscale_factor = upscale_factor

    @images()
    def forward(self, input: Tensor) -> Tensor:
        """Return the rearranged tensor."""
        return functional.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """Return the factor."""
        return self._described(f"upscale_factor={self.upscale_factor}")


class PixelUnshuffle(Images):
    """(..., C, H r, W r) as (..., C r^2, H, W), or with channels last (..., H r, W r, C) as (..., H, W, C r^2)."""

    def __init__(self, downscale_factor: int, *, data_format: str = "channels_first"):
        super().__init__(data_format)
        self.downscale_factor = downscale_factor

    @images()
    def forward(self, input: Tensor) -> Tensor:
        """Return the rearranged tensor."""
        return functional.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        """Return the factor."""
        return self._described(f"downscale_factor={self.downscale_factor}")


class ChannelShuffle(Module):
    """The channels of (N, C, ...) in another order: the first of each group, the second, and so on."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        """Return the rearranged tensor."""
        return functional.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        """Return the number of groups."""
        return f"groups={self.groups}"
