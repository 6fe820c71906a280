"""RMSprop."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from numbanet.optim.optimizer import Optimizer, Parameters, State, Values, column, full, not_negative
from numbanet.problem.optim import StepNumbers, rmsprop_numbers


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton, "Lecture 6.5", 2012): p -= lr * g / (sqrt(v) + eps), v a running mean of g^2.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    alpha : float
        How much of v stays at a step.
    eps : float
        Added to the denominator.
    weight_decay : float
        L2 penalty.
    momentum : float
        Of the quotients.
    centered : bool
        Subtract the square of the running mean of g from v (Graves, 2013).
    maximize : bool
        Climb instead of descend.
    """

    _rule = "rmsprop"

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        for name in ("lr", "eps", "momentum", "weight_decay", "alpha"):
            not_negative(name, group[name])

    def _prepare(self, parameter: np.ndarray, state: State, group: dict[str, Any]) -> Hashable:
        if not state:
            state["step"] = 0
            state["square_avg"] = full(parameter, 0.0)
            if group["momentum"] > 0:
                state["momentum_buffer"] = full(parameter, 0.0)
            if group["centered"]:
                state["grad_avg"] = full(parameter, 0.0)
        state["step"] += 1
        return None

    def _columns(self, states: list[State], group: dict[str, Any]) -> dict[str, Values | None]:
        return {
            "square_avg": column(states, "square_avg"),
            "grad_avg": column(states, "grad_avg") if group["centered"] else None,
            "momentum_buffer": column(states, "momentum_buffer") if group["momentum"] > 0 else None,
        }

    def _numbers(self, group: dict[str, Any], kind: Any) -> StepNumbers:
        return rmsprop_numbers(
            lr=group["lr"], alpha=group["alpha"], eps=group["eps"], weight_decay=group["weight_decay"],
            momentum=group["momentum"], maximize=group["maximize"],
        )  # fmt: skip
