"""Training with operands of 16 bits: a scale that keeps small gradients from vanishing, as in torch.amp.

``with numbanet.precision("fp16"):`` does what ``torch.amp.autocast`` does there: products take operands of float16.
Gradients that are too small for them become zero. So the loss is multiplied by a large number first, and the gradients
are divided by it before the optimizer's step; where they overflow, the step is left out, and the number is halved.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet import ops
from numbanet.problem.base import integer
from numbanet.problem.pointwise import number
from numbanet.settings import parse_device
from numbanet.tensor import Tensor
from numbanet.watch import doubt

__all__ = ["GradScaler"]

_READY, _UNSCALED, _STEPPED = range(3)
_NEVER_SCALED = "before scale() was called: a step needs a loss that was scaled"


@dataclass
class _Turn:
    """What happened to an optimizer since the last `update`."""

    optimizer: Any  # which lives as long as its identity is a key
    stage: int = _READY
    checked: bool = False
    overflowed: bool = False


class GradScaler:
    """Scales losses, takes the scale out of gradients, and finds the scale that fits.

    Parameters
    ----------
    device : str
        ``"cuda"``, as in PyTorch, means that nothing is scaled where no GPU can be used, and warns; ``"auto"`` and
        ``"cpu"`` scale everywhere. Gradients may lie on any device.
    init_scale : float
    growth_factor : float
        What the scale is multiplied by after `growth_interval` steps without overflow.
    backoff_factor : float
        What it is multiplied by after one with overflow.
    growth_interval : int
    enabled : bool
        With False, `scale` returns what it is given and `step` is the optimizer's.

    Raises
    ------
    TypeError, ValueError
        If a number is none, `growth_factor` is not above 1 or `backoff_factor` not below it.

    Examples
    --------
    ::

        scaler = amp.GradScaler("auto")
        for images, labels in loader:
            optimizer.zero_grad()
            with numbanet.precision("fp16"):
                scaler.scale(loss(model(images), labels)).backward()
            scaler.unscale_(optimizer)  # only where gradients are looked at, or clipped
            scaler.step(optimizer)
            scaler.update()
    """

    def __init__(
        self,
        device: str = "auto",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        self._enabled = bool(enabled)
        if parse_device("device", device)[0] == "cuda" and self._enabled:
            from numbanet.cuda import unavailable_reason

            reason = unavailable_reason()
            if reason is not None:
                warnings.warn(f"GradScaler scales nothing: device is {device!r}, but {reason}", stacklevel=2)
                self._enabled = False
        self._scale = float(np.float32(number("init_scale", init_scale)))
        self._growth_factor = number("growth_factor", growth_factor)
        self._backoff_factor = number("backoff_factor", backoff_factor)
        self._growth_interval = integer("growth_interval", growth_interval)
        if self._enabled and not self._growth_factor > 1:
            raise ValueError(f"growth_factor must be above 1, got {growth_factor}")
        if self._enabled and not self._backoff_factor < 1:
            raise ValueError(f"backoff_factor must be below 1, got {backoff_factor}")
        self._growth_tracker = 0  # steps without overflow since the scale grew
        self._has_scaled = False
        self._turns: dict[int, _Turn] = {}

    def scale(self, outputs: Any) -> Any:
        """Multiply a Tensor, or the Tensors in lists, tuples and other iterables of them, by the scale.

        Raises
        ------
        ValueError
            If `outputs` is something else.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._has_scaled = True
            doubt("a loss was scaled by a number that changes")
            return outputs * self._scale
        if not isinstance(outputs, Iterable) or isinstance(outputs, (str, bytes, np.ndarray)):
            raise ValueError(f"outputs must be a Tensor or an iterable of Tensors, got {type(outputs).__name__}")
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled  # type: ignore[call-arg]

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, in place, and look for those that overflowed.

        `step` does so itself, unless it was done before: to clip gradients, say.

        Raises
        ------
        RuntimeError
            If it was done since the last `update`, or nothing was scaled yet.
        """
        if not self._enabled:
            return
        turn = self._turn(optimizer, "unscale_()")
        if turn.stage == _UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update()")
        if turn.stage == _STEPPED:
            raise RuntimeError("unscale_() is being called after step()")
        given = {id(p): p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        arrays = [grad.data for grad in given.values()]
        turn.checked = bool(arrays)
        turn.overflowed = not np.isfinite(ops.vector_norms(arrays, math.inf)).all()
        with np.errstate(divide="ignore"):
            inverse = float(np.float32(np.float64(1) / self._scale))
        if 0 < abs(inverse) < np.finfo(np.float32).tiny:  # kernels take a denormal for zero: in two steps
            ops.scale_(arrays, 2.0**-64)
            inverse *= 2.0**64
        ops.scale_(arrays, inverse)
        for grad in given.values():
            grad.bump_version()
        turn.stage = _UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call ``optimizer.step(*args, **kwargs)``, unless a gradient overflowed; take the scale out of them before.

        Returns
        -------
        object
            What the optimizer's step returned, or None where it was left out.

        Raises
        ------
        RuntimeError
            If it was called since the last `update`, nothing was scaled yet, no parameter has a gradient, or there is a
            closure.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("step() takes no closure where gradients are scaled")
        turn = self._turn(optimizer, "step()")
        if turn.stage == _STEPPED:
            raise RuntimeError("step() has already been called since the last update()")
        if turn.stage == _READY:
            self.unscale_(optimizer)
        if not turn.checked:
            raise RuntimeError("step() found no gradient of this optimizer to look at")
        found = None if turn.overflowed else optimizer.step(*args, **kwargs)
        turn.stage = _STEPPED
        return found

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Find the scale of the next iteration, or take a given one; call it once all optimizers have stepped.

        Raises
        ------
        RuntimeError
            If no gradient was looked at since the last `update`, or nothing was scaled yet.
        TypeError, ValueError
            If `new_scale` is neither a number nor a Tensor of one element without a gradient.
        """
        if not self._enabled:
            return
        if not self._has_scaled:
            raise RuntimeError(f"update() was called {_NEVER_SCALED}")
        if new_scale is not None:
            self._scale = _single("new_scale", new_scale)
        else:
            checked = [turn for turn in self._turns.values() if turn.checked]
            if not checked:
                raise RuntimeError("update() was called before gradients were looked at: step() comes first")
            self._adapt(any(turn.overflowed for turn in checked))
        self._turns.clear()

    def _adapt(self, overflowed: bool) -> None:
        if overflowed:
            self._scale, self._growth_tracker = float(np.float32(self._scale * self._backoff_factor)), 0
            return
        self._growth_tracker += 1
        if self._growth_tracker == self._growth_interval:
            self._growth_tracker = 0
            with np.errstate(over="ignore"):
                grown = float(np.float32(self._scale * self._growth_factor))
            if math.isfinite(grown):
                self._scale = grown

    def _turn(self, optimizer: Any, what: str) -> _Turn:
        if not self._has_scaled:
            raise RuntimeError(f"{what} was called {_NEVER_SCALED}")
        return self._turns.setdefault(id(optimizer), _Turn(optimizer))

    def get_scale(self) -> float:
        """Return the scale: 1 where nothing is scaled."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """Return what the scale is multiplied by after `get_growth_interval` steps without overflow."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by when it grows."""
        self._growth_factor = number("new_factor", new_factor)

    def get_backoff_factor(self) -> float:
        """Return what the scale is multiplied by after a step with overflow."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by after a step with overflow."""
        self._backoff_factor = number("new_factor", new_factor)

    def get_growth_interval(self) -> int:
        """Return after how many steps without overflow the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many steps without overflow the scale grows."""
        self._growth_interval = integer("new_interval", new_interval)

    def is_enabled(self) -> bool:
        """Return whether anything is scaled."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return scale, factors and counts by PyTorch's names; nothing where nothing is scaled. Call it after `update`.

        Returns
        -------
        dict
            ``"scale"``, ``"growth_factor"``, ``"backoff_factor"``, ``"growth_interval"``, ``"_growth_tracker"``.
        """
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, or PyTorch's.

        Raises
        ------
        RuntimeError
            If it is empty, as where nothing was scaled.
        KeyError, TypeError, ValueError
            If an entry is missing, or no number. Nothing is changed then.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("state_dict is empty: that of a GradScaler that scaled nothing")
        factors = [number(name, state_dict[name]) for name in ("scale", "growth_factor", "backoff_factor")]
        counts = [integer(name, state_dict[name]) for name in ("growth_interval", "_growth_tracker")]
        self._scale, self._growth_factor, self._backoff_factor = float(np.float32(factors[0])), *factors[1:]
        self._growth_interval, self._growth_tracker = counts

    def __getstate__(self) -> dict[str, Any]:
        if self._turns:
            raise RuntimeError("a GradScaler can be pickled between update() and the next step only")
        return {**self.__dict__, "_has_scaled": False}


def _single(name: str, value: Any) -> float:
    """Return a number, or that in a Tensor of one element, rounded to float32."""
    if not isinstance(value, Tensor):
        return float(np.float32(number(name, value)))
    if value.numel() != 1 or value.requires_grad:
        raise ValueError(f"{name} must be a number or a Tensor of one element without gradient, got {value!r}")
    return float(np.float32(value.item()))
