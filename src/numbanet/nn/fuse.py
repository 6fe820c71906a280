"""Models for inference: batch norm, additions and ReLUs become part of the convolutions before them."""

from __future__ import annotations

import copy
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from numbanet import ops
from numbanet.deferred import Deferred, Work, settle
from numbanet.functional.norm import fused_batch_norm
from numbanet.nn.conv import Conv2d
from numbanet.nn.linear import Linear
from numbanet.nn.module import Module
from numbanet.nn.norm import BatchNorm1d, BatchNorm2d
from numbanet.prepared import PreparedWeight
from numbanet.tape import needs_grad
from numbanet.tensor import Tensor, array_of, values

M = TypeVar("M", bound=Module)

_STAGES = 3  # batch norm, addition, ReLU


def fuse(model: M) -> M:
    """Return a copy of a model for inference, in which layers that follow each other run as one kernel.

    Wherever the result of a convolution or a linear layer goes through a batch norm, an addition of a tensor of the
    same shape (a shortcut), a ReLU or a ReLU6, in this order, with any of them left out, one kernel computes all: the
    batch norm becomes part of the weight and the bias, the others happen as results are stored. Weights are packed or
    transformed once. This is found out while the model runs, so a ``forward`` may be any Python code.

    Parameters
    ----------
    model : Module
        It stays as it is. Layers with hooks are not fused, and neither are those of subclasses of
        `Conv2d`, `Linear`, `BatchNorm1d` and `BatchNorm2d`.

    Returns
    -------
    Module
        A copy of the same class in evaluation mode, with the same `state_dict`, whose parameters require no gradient.
        Results differ from the model's by rounding.

    Raises
    ------
    TypeError
        If `model` is not a Module.

    Notes
    -----
    Within ``forward``, what a fused layer returns is computed when it is first read. Changes in place through tensors
    are safe in between; whoever changes an array that he got from ``tensor.data`` changes what the layer sees. Who
    keeps an array that he got from ``parameter.data``, and writes to it later, must call `Tensor.bump_version`.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    made: dict[int, Module] = {}
    for module in list(twin.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _fused(child, made)
    result = _fused(twin, made)
    result.register_forward_hook(lambda module, args, output: settle(output))
    return result


def _fused(module: Any, made: dict[int, Module]) -> Any:
    """Return the twin of a layer that can be fused, sharing its state; other modules as they are."""
    kind = _KINDS.get(type(module))
    if kind is None or module._forward_hooks or module._forward_pre_hooks:
        return module
    if getattr(module, "padding_mode", "zeros") != "zeros" or getattr(module, "activation", None) is not None:
        return module
    if getattr(module, "data_format", "channels_first") != "channels_first":
        return module
    if id(module) not in made:
        twin = made[id(module)] = kind.__new__(kind)
        twin.__dict__.update(module.__dict__)
        twin.__dict__.update(stages=_STAGES, _constants={})
    return made[id(module)]


_twins: WeakKeyDictionary[Module, Module] = WeakKeyDictionary()


def stand_in(module: Any) -> Any:
    """Return what runs in place of a module within `numbanet.capture`: its fused twin, with the same parameters."""
    twin = _twins.get(module)
    if twin is None:
        twin = _fused(module, {})
        if twin is not module:
            _twins[module] = twin
    if twin is not module:
        if module._forward_hooks or module._forward_pre_hooks:
            return module
        twin.__dict__["training"] = module.training
    return twin


class _Deferring(Module):
    """A layer with a weight and a bias that puts off its result."""

    stages: int
    recorded = False
    activations: tuple[str, ...] = ("relu", "relu6")
    _constants: dict[int, tuple[Any, Any, np.ndarray, PreparedWeight]]

    def _later(self, input: Tensor, shape: tuple[int, ...]) -> Tensor:
        later = Deferred(self, Work(input), shape)
        if self.stages == 0:
            settle(later)
        return later

    def _folded(self, norm: Any) -> tuple[np.ndarray, PreparedWeight]:
        """Return the bias and the weight with a batch norm in them; they are kept as long as nobody changes a part."""
        parts = (self.weight, self.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        state = tuple([None if part is None else part.stamp() for part in parts])
        known = self._constants.get(id(norm))
        if known is None or known[0] != state:
            bias, weight = fold(self.weight, self.bias, norm)
            # The parts too: as long as they live, nothing else has their identities.
            known = self._constants[id(norm)] = state, (norm, parts), bias, PreparedWeight(weight)
        return known[2], known[3]

    def _operands(self, norm: Any) -> tuple[np.ndarray | None, np.ndarray | PreparedWeight]:
        if norm is not None:
            return self._folded(norm)
        weight, bias = self.weight, self.bias
        return None if bias is None else array_of(bias), weight.prepared() or array_of(weight)


class FusedConv2d(_Deferring, Conv2d):
    """A convolution that computes the batch norm, the addition and the ReLU after it; see `fuse`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution, to be computed when it is read."""
        x = values("input", input)
        if needs_grad(input, self.weight, self.bias):
            return super().forward(input)
        options = (self.stride, self.padding, self.dilation, self.groups)
        return self._later(input, ops.conv2d_shape(x, array_of(self.weight), *options))

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute."""
        bias, weight = self._operands(work.norm)
        residual = None if work.residual is None else array_of(work.residual)
        y = ops.conv2d(
            array_of(work.x), weight, bias, self.stride, self.padding, self.dilation, self.groups,
            residual=residual, activation=work.activation,
        )  # fmt: skip
        return Tensor(y)


class FusedLinear(_Deferring, Linear):
    """A linear layer that computes the batch norm, the addition and the ReLU after it; see `fuse`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the products, to be computed when they are read."""
        x = values("input", input)
        if needs_grad(input, self.weight, self.bias) or x.ndim == 0 or x.shape[-1] != self.in_features:
            return super().forward(input)
        return self._later(input, (*x.shape[:-1], self.out_features))

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute."""
        bias, weight = self._operands(work.norm)
        residual = None if work.residual is None else array_of(work.residual)
        return Tensor(ops.linear(array_of(work.x), weight, bias, residual=residual, activation=work.activation))


class _Joining(Module):
    """A batch norm that joins the layer before it, or puts off its result so that others can join it."""

    stages: int

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        if not isinstance(input, Tensor) or input.ndim not in self._dims or input.shape[1] != self.num_features:
            return super().forward(input)
        if type(input) is Deferred and not self.training and self.running_mean is not None:
            # Of a linear layer, only (N, C) has the channels where the batch norm looks for them.
            if input.ndim in (2, 4) and input.dtype == self.running_mean.dtype:
                later = input.normalised(self)
                if later is not None:
                    return later
        settle(input)
        return Deferred(
            _BatchNormCall(self, *self._statistics(input)), Work(input), input.shape,
            needs_grad(input, self.weight, self.bias),
        )  # fmt: skip


class FusedBatchNorm1d(_Joining, BatchNorm1d):
    """A batch norm in a fused model; see `fuse`."""


class FusedBatchNorm2d(_Joining, BatchNorm2d):
    """A batch norm in a fused model; see `fuse`."""


class _BatchNormCall:
    """One call of a batch norm: what it takes besides its input is settled when it is made."""

    recorded = True
    activations: tuple[str, ...] = ("relu",)

    def __init__(self, norm: Any, mean: Tensor | None, var: Tensor | None, batch: bool, share: float):
        self.norm, self.statistics, self.batch, self.share = norm, (mean, var), batch, share

    @property
    def stages(self) -> int:
        """How many steps may join: what the layer has learned."""
        return self.norm.stages

    @stages.setter
    def stages(self, value: int) -> None:
        self.norm.stages = value

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute; the running averages follow the batch once."""
        mean, var = (None, None) if again and self.batch else self.statistics
        norm = self.norm
        return fused_batch_norm(
            work.x, mean, var, norm.weight, norm.bias, self.batch, self.share, norm.eps, work.activation, work.residual
        )


_KINDS: dict[type[Module], type[Module]] = {
    Conv2d: FusedConv2d, Linear: FusedLinear, BatchNorm1d: FusedBatchNorm1d, BatchNorm2d: FusedBatchNorm2d,
}  # fmt: skip


def fold(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias and the weight of a layer with a batch norm after it, as one layer.

    With s = scale / sqrt(var + eps), the weights of out-channel k are multiplied by s[k], and its bias b[k] becomes
    (b[k] - mean[k]) * s[k] + shift[k]. Computed in float64.
    """
    w = array_of(weight)
    mean, variance = (array_of(t).astype(np.float64) for t in (norm.running_mean, norm.running_var))
    scale = 1.0 / np.sqrt(variance + norm.eps)
    if norm.weight is not None:
        scale *= array_of(norm.weight)
    shift = (0.0 if bias is None else array_of(bias)) - mean
    shift = shift * scale + (0.0 if norm.bias is None else array_of(norm.bias))
    # In the memory order of the weight: out-channels come first there too.
    folded = (w * scale.reshape(-1, *[1] * (w.ndim - 1))).astype(w.dtype)
    return np.ascontiguousarray(shift, w.dtype), folded
