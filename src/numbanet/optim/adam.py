"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from numbanet.optim.optimizer import Optimizer, Parameters, State, Values, below_one, column, full, not_negative
from numbanet.problem.optim import StepNumbers, adam_numbers


class Adam(Optimizer):
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", 2015).

    m and v are running means of g and g^2, corrected for their start at zero; the step is
    p -= lr * m / (sqrt(v) + eps).

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        How much of m and v stays at a step.
    eps : float
        Added to the denominator.
    weight_decay : float
        L2 penalty, added to the gradient.
    amsgrad : bool
        Divide by the largest v so far (Reddi, Kale and Kumar, 2018).
    maximize : bool
        Climb instead of descend.
    decoupled_weight_decay : bool
        Shrink the parameter by lr * weight_decay instead of changing the gradient: AdamW.
    """

    _rule = "adam"

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ):
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            not_negative(name, group[name])
        if not isinstance(group["betas"], (tuple, list)) or len(group["betas"]) != 2:
            raise ValueError(f"betas must be two numbers, got {group['betas']!r}")
        for position in (0, 1):
            below_one(f"betas[{position}]", group["betas"][position])

    def _prepare(self, parameter: np.ndarray, state: State, group: dict[str, Any]) -> Hashable:
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = full(parameter, 0.0), full(parameter, 0.0)
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = full(parameter, 0.0)
        state["step"] += 1
        return state["step"]

    def _columns(self, states: list[State], group: dict[str, Any]) -> dict[str, Values | None]:
        return {
            "exp_avg": column(states, "exp_avg"), "exp_avg_sq": column(states, "exp_avg_sq"),
            "max_exp_avg_sq": column(states, "max_exp_avg_sq") if group["amsgrad"] else None,
        }  # fmt: skip

    def _numbers(self, group: dict[str, Any], kind: Any) -> StepNumbers:
        return adam_numbers(
            step=kind, lr=group["lr"], betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"],
            decoupled_weight_decay=group["decoupled_weight_decay"], maximize=group["maximize"],
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): each step starts with p *= 1 - lr * weight_decay.

    The parameters are those of `Adam`; `weight_decay` is 0.01 unless given.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
        )
