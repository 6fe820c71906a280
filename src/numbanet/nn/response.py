"""The local response normalisation layer."""

from __future__ import annotations

from numbanet import functional
from numbanet.nn.layout import Images, images
from numbanet.tensor import Tensor


class LocalResponseNorm(Images):
    """Divide by a power of the mean square of neighbouring channels, as torch.nn.LocalResponseNorm.

    Arguments as for `numbanet.functional.local_response_norm`; with ``data_format="channels_last"`` images are
    (N, H, W, C).
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        data_format: str = "channels_first",
    ):
        super().__init__(data_format)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    @images(4)
    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return self._described(f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}")
