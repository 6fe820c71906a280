"""Losses as layers, as in torch.nn."""

from __future__ import annotations

from typing import Any

from numbanet import functional
from numbanet.nn.module import Module
from numbanet.problem.loss import reduction_word
from numbanet.tensor import Tensor


class CrossEntropyLoss(Module):
    """Cross entropy between class scores and targets; arguments as for `numbanet.functional.cross_entropy`."""

    weight: Any

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.reduction = reduction_word(reduction, size_average, reduce)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores of shape (C), (N, C) or (N, C, d1, ...)."""
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "reduction": self.reduction}
        return functional.cross_entropy(input, target, self.weight, label_smoothing=self.label_smoothing, **options)


class NLLLoss(Module):
    """Negative log-likelihood; arguments as for `numbanet.functional.nll_loss`."""

    weight: Any

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.reduction, self.ignore_index = reduction_word(reduction, size_average, reduce), ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of log-probabilities of shape (C), (N, C) or (N, C, d1, ...)."""
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "reduction": self.reduction}
        return functional.nll_loss(input, target, self.weight, **options)


class MSELoss(Module):
    """Squared differences; arguments as for `numbanet.functional.mse_loss`."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction_word(reduction, size_average, reduce)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.mse_loss(input, target, reduction=self.reduction)
