"""Module: the base of every layer and model, with the meaning of torch.nn.Module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from numbanet import ops, settings
from numbanet.changes import Table
from numbanet.nn.hooks import Hooks, RemovableHandle
from numbanet.nn.located import locate
from numbanet.nn.parameter import Parameter, float_dtype
from numbanet.nn.state import LoadResult, load_state
from numbanet.nn.uninitialized import UninitializedParameter
from numbanet.tensor import Tensor

Self = TypeVar("Self", bound="Module")

_TABLES = ("_parameters", "_buffers", "_modules")

STAND_IN: ContextVar[Callable[[Any], Any] | None] = ContextVar("numbanet_stand_in", default=None)
"""Within `numbanet.capture`: gives the module that runs in place of one that is called."""


class Member:
    """A class attribute that gives the parameter, buffer or child module of its name.

    `Module.__getattr__` finds these without it, but Python asks that only after a search that ends in an error, whose
    text it writes: layers whose calls shall be short name what they read in every one of them.

    Parameters
    ----------
    table : {"_parameters", "_buffers", "_modules"}
        Where it usually is; elsewhere `Module.__getattr__` finds it.
    """

    def __init__(self, table: str) -> None:
        self._table = table

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None:
            return self
        try:
            return module.__dict__[self._table][self._name]
        except KeyError:
            raise AttributeError(self._name) from None


class Module:
    """A layer or a model: a function with parameters, buffers and child modules.

    Subclasses call ``super().__init__()``, assign `Parameter` objects and modules to attributes, which registers them,
    and define ``forward``. Buffers (state that is not trained, such as running statistics) are registered with
    `register_buffer`. An error that a layer raises ends with the layer's name in the model.

    Attributes
    ----------
    training : bool
        Whether the module is in training mode; see `train`.
    """

    training: bool

    def __init__(self) -> None:
        # Straight into __dict__: __setattr__ needs the three tables first.
        self.__dict__.update(
            training=True, _parameters=Table(), _buffers=Table(), _non_persistent=set(), _modules=Table(),
            _forward_pre_hooks=Hooks(), _forward_hooks=Hooks(),
        )  # fmt: skip

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; subclasses define it."""
        raise NotImplementedError(f'{type(self).__name__} has no "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stand_in = STAND_IN.get()
        called = self if stand_in is None else stand_in(self)
        try:
            if not called._forward_pre_hooks and not called._forward_hooks:
                return called.forward(*args, **kwargs)
            return called._call_with_hooks(args, kwargs)
        except Exception as error:
            locate(error, self)
            raise

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            changed = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if changed is not None and with_kwargs:
                args, kwargs = changed
            elif changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook, with_kwargs in list(self._forward_hooks.values()):
            changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward; what it returns, if not None, replaces the arguments.

        With `with_kwargs` it is called as ``hook(module, args, kwargs)`` and may return both; `prepend` puts it before
        the hooks that are there.
        """
        return self._forward_pre_hooks.add(hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, result)`` after each forward; what it returns, if not None, replaces the result.

        With `with_kwargs` it is called as ``hook(module, args, kwargs, result)``; `prepend` puts it before the hooks
        that are there.
        """
        return self._forward_hooks.add(hook, prepend, with_kwargs)

    # ------------------------------------------------------------------------------------------------ registration

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None reserves the name.

        Raises
        ------
        TypeError, KeyError
            If the name is not a string, is empty, holds a dot or is taken, or `param` is not a Parameter.
        ValueError
            If `param` was computed by a recorded operation.
        """
        self._check_name("parameter", name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"parameter {name!r} must be a Parameter or None, got {type(param).__name__}")
        if param is not None and not param.is_leaf:
            raise ValueError(f"parameter {name!r} must be a leaf: compute what depends on other tensors in forward")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a buffer under a name; None reserves the name. Persistent buffers are part of `state_dict`.

        Raises
        ------
        TypeError, KeyError
            If the name is not a string, is empty, holds a dot or is taken, or `tensor` is not a Tensor.
        """
        self._check_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"buffer {name!r} must be a Tensor or None, got {type(tensor).__name__}")
        self._buffers[name] = tensor
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name; None reserves the name.

        Raises
        ------
        TypeError, KeyError
            If the name is not a string, is empty, holds a dot or is taken, or `module` is not a Module.
        """
        self._check_name("module", name, "_modules")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r} must be a Module or None, got {_no_module(module)}")
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, kind: str, name: Any, table: str) -> None:
        if table not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"the name of a {kind} must be a string, got {name!r}")
        if "." in name or not name:
            raise KeyError(f"the name of a {kind} must not be empty or hold a dot, got {name!r}")
        if hasattr(self, name) and name not in self.__dict__[table]:
            raise KeyError(f"attribute {name!r} already exists")

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in _TABLES:
            if table in own and name in own[table]:
                return own[table][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        for table, kind in (("_parameters", Parameter), ("_modules", Module)):
            if isinstance(value, kind):
                if table not in own:
                    raise AttributeError(f"cannot assign a {kind.__name__} before Module.__init__() call")
                for other in (own, *(own[key] for key in _TABLES if key != table)):
                    other.pop(name, None)
                self._register(table, name, value)
                return
            if name in own.get(table, ()):
                self._register(table, name, value)
                return
        if name in own.get("_buffers", ()):
            self.register_buffer(name, value, name not in self._non_persistent)
        else:
            object.__setattr__(self, name, value)

    def _register(self, table: str, name: str, value: Any) -> None:
        (self.register_parameter if table == "_parameters" else self.add_module)(name, value)

    def __delattr__(self, name: str) -> None:
        for key in _TABLES:
            if name in self.__dict__[key]:
                del self.__dict__[key][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    # ------------------------------------------------------------------------------------------------ traversal

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over the direct child modules and their names, each module once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Iterate over the direct child modules."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Iterate over this module and all below it, with dotted names; parents before children."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, _join(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all below it."""
        return (module for _, module in self.named_modules())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        found = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in found:
            for name, value in module.__dict__[table].items():
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield _join(path, name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the parameters with dotted names; a shared parameter comes once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, as an optimizer takes them."""
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the buffers with dotted names."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the buffers."""
        return (value for _, value in self.named_buffers(recurse=recurse))

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module, children first, and return this module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ------------------------------------------------------------------------------------------------ modes

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode (dropout drops, batch norm uses the batch's statistics) or evaluation mode.

        Raises
        ------
        ValueError
            If `mode` is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"mode must be a bool, got {mode!r}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set whether gradients flow to the parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of the parameters, or fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.data.fill(0)
                parameter.grad.bump_version()

    def to(
        self: Self, *args: Any, device: str | int | None = None, dtype: Any = None, non_blocking: bool = False
    ) -> Self:
        """Move the parameters and buffers, in place, or convert those of floating point, or both.

        Parameters
        ----------
        *args : str, int, dtype or Tensor
            A device such as ``"cuda"`` or ``"cuda:1"``, the number of a GPU, float32 or float64, or a tensor that has
            both.
        device : str or int, optional
        dtype : dtype, optional
        non_blocking : bool
            Changes nothing, see `Tensor.to`.

        Raises
        ------
        TypeError
            If an argument is neither a device nor float32 or float64, or if there are two devices or dtypes; nothing
            has moved then.
        RuntimeError
            If the device can't be used.
        """
        device, dtype, copied = settings.destination(args, device, dtype)
        if copied:
            raise TypeError("to() of a module takes no copy: its parameters are moved in place")
        dtype = None if dtype is None else float_dtype(dtype)
        if device is not None:
            place = settings.resolve_device(device)
            for tensor in [*self.parameters(), *self.buffers()]:
                if isinstance(tensor, UninitializedParameter):
                    tensor.move(place)
                elif tensor.device != place:
                    tensor.data = ops.to_device(tensor.data, place)
                    tensor.bump_version()
                    if tensor.grad is not None:
                        tensor.grad.data = ops.to_device(tensor.grad.data, place)
        if dtype is not None:
            self._convert(dtype)
        return self

    def _convert(self, dtype: np.dtype) -> None:
        name = dtype.name
        for tensor in [*self.parameters(), *self.buffers()]:
            if isinstance(tensor, UninitializedParameter):
                tensor.convert(name)
            elif tensor.dtype.kind == "f" and tensor.dtype.name != name:
                tensor.data = tensor.data.astype(name)
                tensor.bump_version()
                if tensor.grad is not None:
                    tensor.grad.data = tensor.grad.data.astype(name)

    def float(self: Self) -> Self:
        """Convert the floating-point parameters and buffers to float32, in place."""
        return self.to(np.float32)

    def cpu(self: Self) -> Self:
        """Move the parameters and buffers to the CPU, in place."""
        return self.to("cpu")

    def cuda(self: Self, device: int | str | None = None) -> Self:
        """Move the parameters and buffers, in place, to a GPU: the first, or that of a number.

        Raises
        ------
        RuntimeError
            If the GPU can't be used.
        """
        return self.to(settings.gpu_word(device))

    def double(self: Self) -> Self:
        """Convert the floating-point parameters and buffers to float64, in place."""
        return self.to(np.float64)

    # ------------------------------------------------------------------------------------------------ state

    def _state(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the parameters and persistent buffers by dotted name, in torch's order."""
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=False):
            own = [*module._parameters.items()]
            own += [(k, v) for k, v in module._buffers.items() if k not in module._non_persistent]
            found.update((_join(path, name), value) for name, value in own if value is not None)
        return found

    def state_dict(self, *, prefix: str = "") -> dict[str, Any]:
        """Return the parameters and persistent buffers.

        Returns
        -------
        dict of str to numpy.ndarray
            Dotted names and shapes as in PyTorch. The arrays are read-only views: they follow later changes of the
            module, so copy what shall stay. A parameter that has no shape yet (see `LazyLinear`) stands for itself.
        """
        return {
            name: tensor if isinstance(tensor, UninitializedParameter) else tensor.detach().cpu().numpy()
            for name, tensor in self._state(prefix).items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into the parameters and persistent buffers, in place.

        Parameters
        ----------
        state_dict : mapping of str to array or Tensor
            As `state_dict` returns it, or read from a file. Values are converted to the dtype of the module's.
        strict : bool
            Whether missing and unexpected names are errors.

        Returns
        -------
        LoadResult
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        RuntimeError
            If shapes do not match or, with `strict`, names are missing or unexpected. The message lists them all, or
            some and what to load instead, where that is known; nothing was copied.
        TypeError
            If `state_dict` is not a mapping.
        """
        result = load_state(type(self).__name__, self._state(), state_dict, strict)
        for module in self.modules():
            module._state_loaded()
        return result

    def _state_loaded(self) -> None:
        """Do what there is to do after a state was loaded: here nothing."""

    # ------------------------------------------------------------------------------------------------ text

    def extra_repr(self) -> str:
        """Return what `repr` shows between the parentheses; subclasses define it."""
        return ""

    def _child_lines(self) -> list[str]:
        return [f"({name}): {_indented(repr(module))}" for name, module in self._modules.items()]

    def __repr__(self) -> str:
        extra, children = self.extra_repr(), self._child_lines()
        name = type(self).__name__
        if not children and "\n" not in extra:
            return f"{name}({extra})"
        lines = [*(extra.split("\n") if extra else []), *children]
        return "\n  ".join([f"{name}(", *lines]) + "\n)"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _no_module(value: Any) -> str:
    """Return what a value is that stands where a module should, and what is one instead, if that is clear."""
    if isinstance(value, type) and issubclass(value, Module):
        return f"the class {value.__name__}: {value.__name__}() makes one"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__}: give its modules one by one"
    return type(value).__name__
