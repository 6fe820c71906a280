"""Models for inference: batch norm, additions and ReLUs become part of the convolutions before them."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from numbanet import memory, ops
from numbanet.deferred import Deferred, Work, settle
from numbanet.functional.conv import fused_conv2d
from numbanet.functional.norm import batch_norm, fused_batch_norm
from numbanet.moments import Moments
from numbanet.nn.conv import Conv2d
from numbanet.nn.layout import channel_axis, from_first, shape_from_first, to_first
from numbanet.nn.linear import Linear
from numbanet.nn.module import Module
from numbanet.nn.named import activated
from numbanet.nn.norm import BatchNorm1d, BatchNorm2d
from numbanet.nn.parameter import Parameter
from numbanet.prepared import PreparedWeight
from numbanet.tape import needs_grad
from numbanet.tensor import Tensor, array_of, values
from numbanet.watch import Watch, form, watching

M = TypeVar("M", bound=Module)

_STAGES = 3  # batch norm, addition, ReLU


def fuse(model: M) -> M:
    """Return a copy of a model for inference, in which layers that follow each other run as one kernel.

    Wherever the result of a convolution or a linear layer goes through a batch norm, an addition of a tensor of the
    same shape (a shortcut), a ReLU or a ReLU6, in this order, with any of them left out, one kernel computes all: the
    batch norm becomes part of the weight and the bias, the others happen as results are stored, and so does the layer's
    own ``activation="relu"``. Weights are packed or transformed once. This is found out while the model runs, so a
    ``forward`` may be any Python code.

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
    are safe in between, and so are those of layers; whoever changes an array that he got from ``tensor.data``, or
    assigns another to it, changes what the layer sees. Who keeps an array that he got from ``parameter.data``, and
    writes to it later, must call `Tensor.bump_version`.
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
    result.register_forward_hook(settled_hook)
    return result


def settled_hook(module: Module, args: Any, output: Any) -> None:
    """Compute the results of a fused model: its forward hook."""
    settle(output)


def _fused(module: Any, made: dict[int, Module]) -> Any:
    """Return the twin of a layer that can be fused; other modules as they are."""
    kind = _KINDS.get(type(module))
    if kind is None or module._forward_hooks or module._forward_pre_hooks:
        return module
    if id(module) not in made:
        made[id(module)] = kind.of(module)
    return made[id(module)]


_twins: WeakKeyDictionary[Module, _Twin] = WeakKeyDictionary()


def stand_in(module: Any) -> Any:
    """Return what runs in place of a module within `numbanet.capture`: its fused twin, with the same attributes."""
    kind = _KINDS.get(type(module))
    if kind is None or module._forward_hooks or module._forward_pre_hooks:
        return module
    twin = _twins.get(module)
    if twin is None:
        twin = _twins[module] = kind.of(module)
    return twin


class _Twin(Module):
    """What runs in place of a layer: the layer's attributes (the two have one ``__dict__``), and what fusing needs.

    Attributes
    ----------
    stages : int
        How many steps may join; the layer learns that.
    constants : WeakKeyDictionary
        For each batch norm: what was folded (see `_Product.operands`), the bias and the weight that it gave.
    """

    __slots__ = ("constants", "stages")

    @classmethod
    def of(cls, module: Module) -> Any:
        """Return the twin of a module."""
        twin = cls.__new__(cls)
        twin.__setstate__(module.__dict__)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self.stages: int = _STAGES
        self.constants: WeakKeyDictionary[Module, Any] = WeakKeyDictionary()


class _Call:
    """One call of a layer: what it takes besides its input is settled when it is made."""

    recorded = False
    activations: tuple[str, ...] = ("relu", "relu6")
    norm_dims: tuple[int, ...] = ()
    data_format = "channels_first"

    def __init__(self, owner: _Twin):
        self.owner = owner

    @property
    def stages(self) -> int:
        """How many steps may join: what the layer has learned."""
        return self.owner.stages

    @stages.setter
    def stages(self, value: int) -> None:
        self.owner.stages = value


class _Product(_Call):
    """A call of a convolution or a linear layer."""

    def __init__(self, owner: Any, norm_dims: tuple[int, ...], operation: Callable[..., np.ndarray], *options: Any):
        super().__init__(owner)
        self.norm_dims, self.operation, self.options = norm_dims, operation, options
        self.weight, self.bias = owner.weight, owner.bias

    def later(self, input: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the result, which waits if something may join."""
        later = Deferred(self, Work(input), shape)
        if self.stages == 0:
            settle(later)
        else:
            later.watch(self.weight, self.bias)
        return later

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute."""
        bias, weight = self.operands(work.norm)
        x = array_of(to_first(self, work.x))
        residual = None if work.residual is None else array_of(to_first(self, work.residual))
        y = self.operation(x, weight, bias, *self.options, residual=residual, activation=work.activation)
        return from_first(self, Tensor(y))

    def operands(self, norm: _Norm | None) -> tuple[np.ndarray | None, np.ndarray | PreparedWeight]:
        """Return the bias and the weight, with a batch norm in them; they are kept as long as nobody changes a part."""
        weight, bias = self.weight, self.bias
        if norm is None:
            return None if bias is None else array_of(bias), weight.prepared() or array_of(weight)
        for part in (weight, bias, *norm.parts):
            if part is not None:
                form(part)
        # Buffers may change unnoticed. All of them are small; a weight tells, if it is a parameter.
        state = (
            weight.stamp() if isinstance(weight, Parameter) else _content(weight), norm.eps,
            *[None if part is None else _content(part) for part in (bias, *norm.parts)],
        )  # fmt: skip
        known = self.owner.constants.get(norm.owner)
        if known is None or known[0] is not weight or known[1] != state:
            shift, folded = fold(weight, bias, norm)
            known = self.owner.constants[norm.owner] = weight, state, shift, PreparedWeight(folded)
        return known[2], known[3]


class FusedConv2d(_Twin, Conv2d):
    """A convolution that computes the batch norm, the addition and the ReLU after it; see `fuse`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution, to be computed when it is read."""
        x = values("input", input)
        if self.padding_mode != "zeros":
            return super().forward(input)
        if needs_grad(input, self.weight, self.bias):
            plain = self.data_format == "channels_first" and self.activation is None and x.ndim == 4
            return _Recorded(self).later(input) if plain else super().forward(input)
        last = self.data_format == "channels_last"
        if last and (x.ndim not in (3, 4) or x.shape[-1] != self.in_channels):
            return super().forward(input)  # which refuses it in the user's words
        options = (self.stride, self.padding, self.dilation, self.groups)
        call = _Product(self, (4,), ops.conv2d, *options)
        call.data_format = self.data_format
        shape = ops.conv2d_shape(array_of(to_first(self, input)) if last else x, array_of(call.weight), *options)
        y = call.later(input, shape_from_first(self, shape) if last else shape)
        return y if self.activation is None else activated(self.activation, y, channel_axis(self))


class _Recorded(_Call):
    """A call of a convolution with gradients: a batch norm that computes it gets its statistics with it.

    Attributes
    ----------
    moments : Moments or None
        What takes them, if they are asked for before the result is computed.
    """

    recorded = True
    stages = 0  # type: ignore[assignment]
    activations: tuple[str, ...] = ()

    def __init__(self, owner: Any):
        super().__init__(owner)
        self.weight, self.bias = owner.weight, owner.bias
        self.options = owner.stride, owner.padding, owner.dilation, owner.groups
        self.moments: Moments | None = None

    def later(self, input: Tensor) -> Tensor:
        """Return the result, which waits for a batch norm."""
        shape = ops.conv2d_shape(array_of(input), array_of(self.weight), *self.options)
        result = Deferred(self, Work(input), shape, True)
        result.watch(self.weight, self.bias)
        return result

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute."""
        return fused_conv2d(work.x, self.weight, self.bias, *self.options, self.moments)


class FusedLinear(_Twin, Linear):
    """A linear layer that computes the batch norm, the addition and the ReLU after it; see `fuse`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the products, to be computed when they are read."""
        x = values("input", input)
        if needs_grad(input, self.weight, self.bias):
            return super().forward(input)
        features, count = self.weight.shape
        if x.ndim == 0 or x.shape[-1] != count:
            return super().forward(input)
        # Out-features come last, and a batch norm looks for channels in dimension 1.
        y = _Product(self, (2,), ops.linear).later(input, (*x.shape[:-1], features))
        return activated(self.activation, y, -1)


class _Norm(NamedTuple):
    """A batch norm in evaluation mode, at the moment of a call."""

    owner: Module
    eps: float
    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """The tensors that it reads."""
        return self[2:]

    @property
    def data_format(self) -> str:
        """Where the channels are."""
        return self.owner.data_format

    def __call__(self, input: Tensor) -> Tensor:
        y = batch_norm(to_first(self, input), *self.parts, eps=self.eps)  # type: ignore[arg-type, misc]
        return from_first(self, y)


class _Joining(_Twin):
    """A batch norm that joins the layer before it, or puts off its result so that others can join it."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        channels = 1 if self.data_format == "channels_first" else -1
        if not isinstance(input, Tensor) or input.ndim not in self._dims or input.shape[channels] != self.num_features:
            return super().forward(input)
        weight, bias, mean, var = self.weight, self.bias, self.running_mean, self.running_var
        if type(input) is Deferred and not self.training and mean is not None and input.dtype == mean.dtype:
            norm = _Norm(self, self.eps, mean, var, weight, bias)
            later = None if needs_grad(weight, bias) else input.normalised(norm)
            if later is not None:
                return later
        if channels == -1:
            return super().forward(input)
        moments = _moments(input) if self.training or mean is None else None
        settle(input)  # before the batch is counted: it may fail
        call = _NormCall(self, *self._statistics(input))
        call.moments = moments
        if call.batch and call.mean is not None:
            call.mean._memory.settle()  # earlier calls change the running averages first, or read them as they are
        result = Deferred(call, Work(input), input.shape, needs_grad(input, weight, bias))
        result.watch(weight, bias, mean, var)
        return result


class FusedBatchNorm1d(_Joining, BatchNorm1d):
    """A batch norm in a fused model; see `fuse`."""


class FusedBatchNorm2d(_Joining, BatchNorm2d):
    """A batch norm in a fused model; see `fuse`."""


def _moments(input: Tensor) -> Moments | None:
    """Return what takes the statistics of a convolution when it is computed; None if it has been, or is none."""
    if type(input) is not Deferred or not input.pending or type(input._layer) is not _Recorded:
        return None
    input._layer.moments = found = Moments()
    return found


class _NormCall(_Call):
    """A call of a batch norm that joined nothing."""

    recorded = True
    activations: tuple[str, ...] = ("relu",)

    def __init__(self, owner: Any, mean: Tensor | None, var: Tensor | None, batch: bool, share: float):
        super().__init__(owner)
        self.mean, self.var, self.batch, self.share = mean, var, batch, share
        self.weight, self.bias, self.eps = owner.weight, owner.bias, owner.eps
        self.moments: Moments | None = None

    def execute(self, work: Work, again: bool) -> Tensor:
        """Compute; the running averages follow the batch once."""
        mean, var = (None, None) if again and self.batch else (self.mean, self.var)
        return fused_batch_norm(
            work.x, mean, var, self.weight, self.bias, self.batch, self.share, self.eps, work.activation, work.residual,
            self.moments,
        )  # fmt: skip


_KINDS: dict[type[Module], type[_Twin]] = {
    Conv2d: FusedConv2d, Linear: FusedLinear, BatchNorm1d: FusedBatchNorm1d, BatchNorm2d: FusedBatchNorm2d,
}  # fmt: skip


def _content(tensor: Tensor) -> Any:
    """Return what differs after each change; on a GPU, whose values Python does not look at, if it was noticed."""
    array = array_of(tensor)
    if type(array) is np.ndarray:
        return array.tobytes()
    return weakref.ref(array), tensor._memory.changes  # a reference to what is gone equals none to what is there


def fold(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias and the weight of a layer with a batch norm after it, as one layer.

    With s = scale / sqrt(var + eps), the weights of out-channel k are multiplied by s[k], and its bias b[k] becomes
    (b[k] - mean[k]) * s[k] + shift[k]. Computed in float64.
    """
    w = _on_host(weight)
    mean, variance = (_on_host(t).astype(np.float64) for t in (norm.running_mean, norm.running_var))
    scale = 1.0 / np.sqrt(variance + norm.eps)
    if norm.weight is not None:
        scale *= _on_host(norm.weight)
    shift = (0.0 if bias is None else _on_host(bias)) - mean
    shift = shift * scale + (0.0 if norm.bias is None else _on_host(norm.bias))
    # In the memory order of the weight: out-channels come first there too.
    folded = (w * scale.reshape(-1, *[1] * (w.ndim - 1))).astype(w.dtype)
    shift = np.ascontiguousarray(shift, w.dtype)
    return ops.to_device(shift, weight.device), ops.to_device(folded, weight.device)


def _on_host(tensor: Tensor) -> np.ndarray:
    with watching(Watch()):  # that another form is kept was said
        return memory.on_host(array_of(tensor))
