"""Layers that change the size of images, as in torch.nn."""

from __future__ import annotations

from typing import Any

from numbanet import functional
from numbanet.nn.layout import Images, images
from numbanet.problem.pointwise import number
from numbanet.tensor import Tensor


class Upsample(Images):
    """Images in another size; arguments as for `numbanet.functional.interpolate`.

    With ``data_format="channels_last"`` images are (N, H, W, C).
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        *,
        data_format: str = "channels_first",
    ):
        super().__init__(data_format)
        self.size, self.mode = size, mode
        if isinstance(scale_factor, (tuple, list)):
            scale_factor = tuple(number("scale_factor", factor) for factor in scale_factor)
        self.scale_factor = float(scale_factor) if isinstance(scale_factor, int) else scale_factor
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    @images(4)
    def forward(self, input: Tensor) -> Tensor:
        """Return the images in the layer's size."""
        options = (self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)
        return functional.interpolate(input, *options)

    def extra_repr(self) -> str:
        """Return the factor or size, and the mode."""
        what = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return self._described(f"{what}, mode={self.mode!r}")


class UpsamplingNearest2d(Upsample):
    """`Upsample` with ``mode="nearest"``."""

    def __init__(self, size: Any = None, scale_factor: Any = None, *, data_format: str = "channels_first"):
        super().__init__(size, scale_factor, data_format=data_format)


class UpsamplingBilinear2d(Upsample):
    """`Upsample` with ``mode="bilinear"`` and corners aligned."""

    def __init__(self, size: Any = None, scale_factor: Any = None, *, data_format: str = "channels_first"):
        super().__init__(size, scale_factor, "bilinear", align_corners=True, data_format=data_format)
