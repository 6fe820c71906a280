"""Losses of pairs of numbers, and the hinge loss, as layers, as in torch.nn."""

from __future__ import annotations

from typing import Any

from numbanet import functional
from numbanet.nn.module import Module
from numbanet.problem.loss import reduction_word
from numbanet.tensor import Tensor


class L1Loss(Module):
    """Absolute differences; arguments as for `numbanet.functional.l1_loss`."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction_word(reduction, size_average, reduce)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(Module):
    """Squares up to beta, then absolute differences; arguments as for `numbanet.functional.smooth_l1_loss`."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ):
        super().__init__()
        self.reduction, self.beta = reduction_word(reduction, size_average, reduce), beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(Module):
    """Squares up to delta, then a line; arguments as for `numbanet.functional.huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__()
        self.reduction, self.delta = reduction_word(reduction), delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.huber_loss(input, target, self.reduction, self.delta)


class BCELoss(Module):
    """Binary cross entropy of probabilities; arguments as for `numbanet.functional.binary_cross_entropy`."""

    weight: Any

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.reduction = reduction_word(reduction, size_average, reduce)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(Module):
    """Binary cross entropy of scores; arguments as for `numbanet.functional.binary_cross_entropy_with_logits`."""

    weight: Any
    pos_weight: Any

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.reduction = reduction_word(reduction, size_average, reduce)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        options: dict[str, Any] = {"reduction": self.reduction, "pos_weight": self.pos_weight}
        return functional.binary_cross_entropy_with_logits(input, target, self.weight, **options)


class KLDivLoss(Module):
    """The divergence of Kullback and Leibler; arguments as for `numbanet.functional.kl_div`."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ):
        super().__init__()
        rows = reduction == "batchmean" and size_average is None and reduce is None
        self.reduction = "batchmean" if rows else reduction_word(reduction, size_average, reduce)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class MultiMarginLoss(Module):
    """The multi-class hinge loss; arguments as for `numbanet.functional.multi_margin_loss`."""

    weight: Any

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ):
        super().__init__()
        if isinstance(p, bool) or p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {p!r}")
        self.register_buffer("weight", weight)
        self.p, self.margin, self.reduction = p, margin, reduction_word(reduction, size_average, reduce)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores of shape (C) or (N, C)."""
        options: dict[str, Any] = {"reduction": self.reduction}
        return functional.multi_margin_loss(input, target, self.p, self.margin, self.weight, **options)
