"""Adagrad."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from numbanet.optim.optimizer import Optimizer, Parameters, State, Values, column, full, not_negative
from numbanet.problem.optim import StepNumbers, adagrad_numbers


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer, 2011): p -= lr * g / (sqrt(s) + eps), s the sum of g^2 over all steps.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    lr_decay : float
        Step t uses lr / (1 + (t - 1) * lr_decay).
    weight_decay : float
        L2 penalty.
    initial_accumulator_value : float
        Where s starts.
    eps : float
        Added to the denominator.
    maximize : bool
        Climb instead of descend.
    """

    _rule = "adagrad"

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            not_negative(name, group[name])

    def _prepare(self, parameter: np.ndarray, state: State, group: dict[str, Any]) -> Hashable:
        if not state:
            state["step"] = 0
            state["sum"] = full(parameter, group["initial_accumulator_value"])
        state["step"] += 1
        return state["step"]

    def _columns(self, states: list[State], group: dict[str, Any]) -> dict[str, Values | None]:
        return {"sum": column(states, "sum")}

    def _numbers(self, group: dict[str, Any], kind: Any) -> StepNumbers:
        return adagrad_numbers(
            lr=group["lr"] / (1 + (kind - 1) * group["lr_decay"]), eps=group["eps"],
            weight_decay=group["weight_decay"], maximize=group["maximize"],
        )  # fmt: skip
