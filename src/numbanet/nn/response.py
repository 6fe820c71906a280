"""The local response normalisation layer."""

from __future__ import annotations

from numbanet import functional
from numbanet.nn.module import Module
from numbanet.tensor import Tensor


class LocalResponseNorm(Module):
    """Divide by a power of the mean square of neighbouring channels, as torch.nn.LocalResponseNorm.

    Arguments as for `numbanet.functional.local_response_norm`.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
