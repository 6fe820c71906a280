"""Adadelta."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from numbanet.optim.optimizer import Optimizer, Parameters, State, Values, column, full, not_negative
from numbanet.problem.optim import StepNumbers, adadelta_numbers
from numbanet.problem.pointwise import number


class Adadelta(Optimizer):
    """Adadelta (Zeiler, "Adadelta: an adaptive learning rate method", 2012): needs no learning rate of its own.

    v and u are running means of the squares of gradients and of steps; the step is
    p -= lr * sqrt(u + eps) / sqrt(v + eps) * g.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Factor of the step.
    rho : float
        How much of v and u stays at a step.
    eps : float
        Added under both roots.
    weight_decay : float
        L2 penalty.
    maximize : bool
        Climb instead of descend.
    """

    _rule = "adadelta"

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            not_negative(name, group[name])
        if not 0 <= number("rho", group["rho"]) <= 1:
            raise ValueError(f"rho must be in [0, 1], got {group['rho']}")

    def _prepare(self, parameter: np.ndarray, state: State, group: dict[str, Any]) -> Hashable:
        if not state:
            state["step"] = 0
            state["square_avg"], state["acc_delta"] = full(parameter, 0.0), full(parameter, 0.0)
        state["step"] += 1
        return None

    def _columns(self, states: list[State], group: dict[str, Any]) -> dict[str, Values | None]:
        return {"square_avg": column(states, "square_avg"), "acc_delta": column(states, "acc_delta")}

    def _numbers(self, group: dict[str, Any], kind: Any) -> StepNumbers:
        return adadelta_numbers(
            lr=group["lr"], rho=group["rho"], eps=group["eps"], weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )  # fmt: skip
