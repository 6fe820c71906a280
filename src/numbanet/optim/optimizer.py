"""The base of every optimizer: parameter groups, state, and the loop over parameters."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar

import numpy as np

from numbanet import memory, ops
from numbanet.changes import changed
from numbanet.ops.optim import optimizer_step
from numbanet.optim.again import StepAgain, Update
from numbanet.problem.base import as_array
from numbanet.problem.optim import StepNumbers
from numbanet.problem.pointwise import below_one as below_one
from numbanet.problem.pointwise import number
from numbanet.tape import enable_grad
from numbanet.tensor import Tensor
from numbanet.watch import again, doubt, held, live, update, watched

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
State = dict[str, Any]
Values = list[np.ndarray]


def not_negative(name: str, value: float) -> None:
    """Raise ValueError unless the option is a number that is not negative."""
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")


class Optimizer(ABC):
    """Updates parameters from their gradients.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, or dictionaries: one a parameter group, with the key ``"params"`` and options
        that differ from the defaults.
    defaults : dict
        The options of groups that don't set them.

    Attributes
    ----------
    param_groups : list of dict
        The options of each group, with its tensors under ``"params"``. They may be changed between steps.
    state : dict
        For each parameter that was updated, its step count and state arrays.

    Raises
    ------
    TypeError
        If `params` is a Tensor or holds something else than Tensors.
    ValueError
        If there is no parameter, one is not a leaf or stands in two groups, or an option is out of its range.
    """

    _rule: ClassVar[str]  # a key of numbanet.problem.optim.RULES

    def __init__(self, params: Parameters, defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of Tensors or dictionaries, got a Tensor")
        if callable(getattr(params, "parameters", None)):
            raise TypeError(
                f"params must be an iterable of Tensors or dictionaries, got a {type(params).__name__}: "
                "hand over its parameters, model.parameters()"
            )
        if callable(params) and not hasattr(params, "__iter__"):
            raise TypeError("params must be an iterable of Tensors or dictionaries, got a function: call it")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, State] = {}
        self.step_count = 0
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError("params must hold at least one parameter, got none")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, such as layers that shall be trained from now on.

        Parameters
        ----------
        param_group : dict
            ``"params"`` (a Tensor, Tensors or (name, Tensor) pairs) and the options that differ from the defaults.

        Raises
        ------
        TypeError, ValueError
            As for `Optimizer`.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, got {type(param_group).__name__}")
        group = {**self.defaults, **param_group}
        names, tensors = _split_names(group.get("params"))
        group["params"] = tensors
        if names:
            group["param_names"] = names
        if any(("param_names" in group) != ("param_names" in other) for other in self.param_groups):
            raise ValueError("params: either all groups have names or none has")
        if len({id(p) for p in tensors}) != len(tensors):
            warnings.warn("a parameter stands twice in a group and is updated twice a step", stacklevel=3)
        known = {id(p) for other in self.param_groups for p in other["params"]}
        if any(id(p) in known for p in tensors):
            raise ValueError("params: a parameter stands in more than one group")
        self._check(group)
        self.param_groups.append(group)

    @abstractmethod
    def _check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for an option that is out of its range."""

    @abstractmethod
    def _prepare(self, parameter: np.ndarray, state: State, group: dict[str, Any]) -> Hashable:
        """Bring a parameter's state to this step (it is empty at the first); return what tells steps apart.

        Parameters for which it returns the same are updated together.
        """

    @abstractmethod
    def _columns(self, states: list[State], group: dict[str, Any]) -> dict[str, Values | None]:
        """Return the state arrays of many parameters by name, in the order of the rule; None for one that is unused."""

    @abstractmethod
    def _numbers(self, group: dict[str, Any], kind: Any) -> StepNumbers:
        """Return the numbers of a step for parameters of a group for which `_prepare` returned `kind`."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss anew and calls ``backward``; it runs first, and what it returns is returned.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter, or the parameter's values are read-only.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        updates = [update for group in self.param_groups for update in self._step_group(group)]
        self.step_count += 1
        if watched():
            if self.has_own_step():
                doubt("an optimizer has a step of its own")
            again(StepAgain(self, updates))
        return loss

    def has_own_step(self) -> bool:
        """Return whether `step` is another than that of all optimizers: a replay does not know what it does."""
        return type(self).step is not Optimizer.step or "step" in vars(self)

    def _step_group(self, group: dict[str, Any]) -> list[Update]:
        members: dict[tuple[Hashable, int], tuple[list[Tensor], Values, Values, list[State]]] = {}
        seen: dict[int, int] = {}
        fresh: dict[Tensor, State] = {}
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            former, turn = fresh.get(p), 0
            if former is None:
                former = self.state.get(p)
            else:  # one that stands in the group twice is updated twice, one after the other
                turn = seen[id(p)] = seen.get(id(p), 0) + 1
            # A copy, which becomes the state once the update is made: a step that fails counts for nothing.
            state = fresh[p] = dict(former or {})
            values = p.data
            key = self._prepare(values, state, group), turn
            found = members.get(key)
            if found is None:
                found = members[key] = [], [], [], []
            tensors, parameters, grads, states = found
            tensors.append(p)
            parameters.append(values)
            grads.append(grad.data)
            states.append(state)
        made = []
        for (kind, _), (tensors, parameters, grads, states) in members.items():
            columns, (numbers, options) = self._columns(states, group), self._numbers(group, kind)
            coefficients = live(numbers, np.float64)
            pinned = [*map(memory.pinned, grads)] if watched() else []  # on memory that a recording may use again
            made.append(Update(group, tensors, parameters, columns, coefficients, options, self._rule, pinned))
            if not held(made[-1]):
                optimizer_step(self._rule, parameters, grads, columns, coefficients, options)
            self.state.update(zip(tensors, states))
            for p in tensors if watched() else ():
                update(p)
            for p in tensors:
                p._memory.changes += 1
            changed()
        return made

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero in place.

        Parameters
        ----------
        set_to_none : bool
            Set ``grad`` to None: a parameter without a gradient is then left alone by `step`, while one with a zero
            gradient still decays and moves on.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        if set_to_none:
            for p in parameters:
                p.grad = None
            return
        given = [p for p in parameters if p.grad is not None]
        if given:
            ops.fill_([p.grad.data for p in given], 0.0)
            for p in given:
                p.grad.bump_version()

    def state_dict(self) -> dict[str, Any]:
        """Return options and state as dictionaries of numbers and arrays.

        Returns
        -------
        dict
            ``{"state": {index: {"step": 3, "exp_avg": array, ...}}, "param_groups": [{"lr": 0.1, ..., "params":
            [index, ...]}]}``, as in PyTorch, where index counts the parameters over all groups. It holds dictionaries,
            lists, tuples, strings, numbers, None and NumPy arrays only. The arrays are those that the next step
            updates: copy what shall be kept.
        """
        index = {id(p): number for number, p in enumerate(self._parameters())}
        groups = [{**g, "params": [index[id(p)] for p in g["params"]]} for g in self.param_groups]
        state = {index[id(p)]: dict(values) for p, values in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over options and state that `state_dict` returned; the arrays are copied.

        Raises
        ------
        ValueError
            If the groups are others, or an array has another shape than its parameter. Nothing is changed then.
        """
        saved = copy.deepcopy(state_dict["param_groups"])
        found, expected = ([len(g["params"]) for g in groups] for groups in (saved, self.param_groups))
        if found != expected:
            raise ValueError(f"state_dict has parameter groups of sizes {found}, the optimizer of sizes {expected}")
        keys = dict.fromkeys(key for group in saved for key in group["params"])
        by_key = dict(zip(keys, self._parameters()))
        unknown = [key for key in state_dict["state"] if key not in by_key]
        if unknown:
            raise ValueError(f"state_dict has a state for the parameters {unknown}, which no group holds")
        state = {by_key[key]: _fitted(key, by_key[key], values) for key, values in state_dict["state"].items()}
        groups = [{**old, **new, "params": old["params"]} for old, new in zip(self.param_groups, saved)]
        for old, new in zip(self.param_groups, groups):
            for key, value in old.items():
                if isinstance(value, (int, float)) and not isinstance(new[key], (int, float)):
                    raise ValueError(f"state_dict has {key}={new[key]!r} where a number is expected")
        self.param_groups, self.state = groups, state

    def _parameters(self) -> list[Tensor]:
        return list({id(p): p for group in self.param_groups for p in group["params"]}.values())

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for position, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {position}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


def _split_names(params: Any) -> tuple[list[str], list[Tensor]]:
    if params is None or isinstance(params, (set, frozenset)):
        raise TypeError(f"params must be an ordered collection of Tensors, got {type(params).__name__}")
    entries = [params] if isinstance(params, Tensor) else list(params)
    pairs = [entry if isinstance(entry, tuple) else (None, entry) for entry in entries]
    names, tensors = [name for name, _ in pairs if name is not None], [p for _, p in pairs]
    if names and len(names) != len(tensors):
        raise ValueError("params: either all parameters have names or none has")
    for p in tensors:
        if not isinstance(p, Tensor):
            raise TypeError(f"params must hold Tensors, got {type(p).__name__}")
        if not p.is_leaf:
            raise ValueError("params must hold leaves, got the result of an operation")
    return names, tensors


def _fitted(key: Any, parameter: Tensor, values: dict[str, Any]) -> State:
    """Return a copy of a parameter's state in its dtype and memory order; one-element "step" arrays become numbers."""
    state: State = {}
    for name, value in values.items():
        if name == "step":
            state[name] = int(value)
        elif value is None or isinstance(value, (bool, int, float, str)):
            state[name] = value
        else:
            array = as_array(value)
            if array.shape != parameter.shape:
                raise ValueError(f"state_dict: {name} of parameter {key} must have shape {parameter.shape}, "
                                 f"got {array.shape}")  # fmt: skip
            state[name] = memory.empty_like(parameter.data)
            memory.assign(state[name], array)
    return state


def full(model: np.ndarray, value: float) -> np.ndarray:
    """Return an array like `model`, in its memory order, with one value everywhere."""
    array = memory.empty_like(model)
    array.fill(value)
    return array


def column(states: list[State], name: str) -> Values:
    """Return one of the state arrays of each parameter."""
    return [state[name] for state in states]
