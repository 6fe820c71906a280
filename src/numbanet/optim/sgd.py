"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from numbanet.optim.optimizer import Optimizer, Parameters, State, Values, column, full, not_negative
from numbanet.problem.optim import StepNumbers, sgd_numbers


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's form of it.

    g = grad + weight_decay * p; b = momentum * b + (1 - dampening) * g (the first time b = g); the step is
    p -= lr * b, or lr * (g + momentum * b) with Nesterov (Sutskever et al., 2013, in PyTorch's form).

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    momentum, dampening : float
    weight_decay : float
        L2 penalty.
    nesterov : bool
        Needs a momentum and no dampening.
    maximize : bool
        Climb instead of descend.
    """

    _rule = "sgd"

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            not_negative(name, group[name])
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0, got "
                             f"momentum={group['momentum']}, dampening={group['dampening']}")  # fmt: skip

    def _prepare(self, parameter: np.ndarray, state: State, group: dict[str, Any]) -> Hashable:
        if group["momentum"] == 0:
            return False
        first = state.get("momentum_buffer") is None
        if first:
            state["momentum_buffer"] = full(parameter, 0.0)
        return first

    def _columns(self, states: list[State], group: dict[str, Any]) -> dict[str, Values | None]:
        return {"momentum_buffer": column(states, "momentum_buffer") if group["momentum"] != 0 else None}

    def _numbers(self, group: dict[str, Any], kind: Any) -> StepNumbers:
        momentum = group["momentum"]
        return sgd_numbers(
            lr=group["lr"], momentum=momentum, dampening=group["dampening"], weight_decay=group["weight_decay"],
            nesterov=group["nesterov"] and momentum != 0, maximize=group["maximize"], first=kind,
        )  # fmt: skip
