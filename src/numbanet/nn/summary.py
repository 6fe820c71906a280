"""A table of what a model's layers do with an input of a given shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet import random
from numbanet.nn import tiling
from numbanet.nn.conv import Conv2d
from numbanet.nn.conv_transpose import Conv1d, ConvTranspose2d
from numbanet.nn.layout import shape_channels_first
from numbanet.nn.linear import Linear
from numbanet.nn.mode import evaluating
from numbanet.nn.module import Module
from numbanet.nn.norm import BatchNorm1d, BatchNorm2d
from numbanet.nn.pool import AvgPool2d, MaxPool2d
from numbanet.problem.base import sizes
from numbanet.tape import no_grad
from numbanet.tensor import Tensor


@dataclass(frozen=True)
class Layer:
    """One call of a layer.

    Attributes
    ----------
    name : str
        Dotted name in the model; empty for the model itself.
    kind : str
        Name of the class.
    input_shape, output_shape : tuple of int
        Of the first tensor in and out.
    parameters : int
        Numbers that the layer owns (0 where an earlier line counts them).
    multiply_adds : int
        Of convolutions (direct method), linear layers and batch norm; the bias and all else count nothing.
    memory : int
        Bytes of the output.
    remark : str
        What to know about windows that do not tile the input; mostly empty.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    memory: int
    remark: str


@dataclass(frozen=True)
class Summary:
    """What `summary` found; ``str(...)`` is the table.

    Attributes
    ----------
    layers : tuple of Layer
        In the order of their calls.
    input_shape, output_shape : tuple of int
    parameters, trainable_parameters : int
        Numbers in the whole model, each parameter once.
    parameter_memory : int
        Bytes of the parameters.
    """

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    trainable_parameters: int
    parameter_memory: int

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def memory(self) -> int:
        """Bytes of all layers' outputs."""
        return sum(layer.memory for layer in self.layers)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The remarks, each with the name of its layer."""
        return tuple(f"{layer.name or layer.kind}: {layer.remark}" for layer in self.layers if layer.remark)

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "multiply-adds", "memory")
        rows = [("input", _shape(self.input_shape), "", "", ""), *map(_cells, self.layers)]
        total = ("total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", _bytes(self.memory))
        widths = [max(map(len, column)) for column in zip(head, *rows, total)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        lines = [_line(head, widths), rule, *(_line(row, widths) for row in rows), rule, _line(total, widths)]
        lines.append(f"{self.trainable_parameters:,} parameters are trained; all take {_bytes(self.parameter_memory)}")
        return "\n".join([*lines, *(f"note: {remark}" for remark in self.remarks)])


def summary(model: Module, input_shape: tuple[int, ...]) -> Summary:
    """Run a model once on zeros, and return what each of its layers did.

    The model runs in evaluation mode and records nothing; its mode, parameters and buffers and the state of the default
    random generator are the same afterwards. Only modules show, not functions that a ``forward`` calls by itself.

    Parameters
    ----------
    model : Module
        Takes one tensor.
    input_shape : tuple of int
        Shape of a batch, such as (N, C, H, W), or (N, H, W, C) for layers with channels last; (C, H, W) or (H, W, C)
        stands for a batch of one.

    Returns
    -------
    Summary
        ``print`` it for the table.

    Raises
    ------
    TypeError, ValueError
        If `input_shape` is not a sequence of sizes, or the model refuses it.
    """
    shape = sizes("input_shape", input_shape)
    shape = (1, *shape) if len(shape) == 3 else shape
    parameters = list(model.parameters())
    dtype = next((p.dtype for p in parameters), np.dtype(np.float32))
    layers: list[Layer] = []
    try:
        image = np.zeros(shape, dtype)
    except ValueError:
        raise MemoryError(f"an input of shape {shape} has no place in memory") from None
    with _watched(model, layers), evaluating(model), _random_state_kept(), no_grad():
        result = model(Tensor(image).to(next((p.device for p in parameters), "cpu")))
    return Summary(
        tuple(layers),
        shape,
        _first(result).shape,
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(p.data.nbytes for p in parameters),
    )


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Give the default generator the state that it had before."""
    state = random.get_state()
    try:
        yield
    finally:
        random.set_state(state)


@contextmanager
def _watched(model: Module, layers: list[Layer]) -> Iterator[None]:
    """Append a line to `layers` for each call of a module without children, or with parameters of its own."""
    counted: set[int] = set()

    def watch(name: str) -> Any:
        return lambda module, args, result: layers.append(_layer(name, module, args, result, counted))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not list(module.children()) or list(module.parameters(recurse=False)):
                stack.enter_context(module.register_forward_hook(watch(name)))
        yield


def _layer(name: str, module: Module, args: Any, result: Any, counted: set[int]) -> Layer:
    own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
    counted.update(map(id, own))
    taken, given = _first(args).shape, _first(result).shape
    before, after = shape_channels_first(module, taken), shape_channels_first(module, given)
    return Layer(
        name,
        type(module).__name__,
        taken,
        given,
        sum(p.numel() for p in own),
        _multiply_adds(module, before, after),
        sum(t.data.nbytes for t in _tensors(result)),
        tiling.remark(module, before[-2:], after[-2:]) if isinstance(module, (Conv2d, MaxPool2d, AvgPool2d)) else "",
    )


def _multiply_adds(module: Module, image: tuple[int, ...], result: tuple[int, ...]) -> int:
    if isinstance(module, ConvTranspose2d):  # each pixel of the input is multiplied by the weights of its channels
        return math.prod(image[:-3]) * math.prod(image[-2:]) * module.weight.numel()
    if isinstance(module, (Conv1d, Conv2d, Linear)):
        return math.prod(result) * math.prod(module.weight.shape[1:])
    return math.prod(result) if isinstance(module, (BatchNorm1d, BatchNorm2d)) else 0


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if isinstance(value, Tensor) else []


def _first(value: Any) -> Tensor:
    return next(iter(_tensors(value)), Tensor(np.zeros(0)))


def _cells(layer: Layer) -> tuple[str, ...]:
    name = f"{layer.name} ({layer.kind})" if layer.name else layer.kind
    multiply_adds = f"{layer.multiply_adds:,}"
    return name, _shape(layer.output_shape), f"{layer.parameters:,}", multiply_adds, _bytes(layer.memory)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
    return "  ".join(aligned).rstrip()


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _bytes(count: int) -> str:
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / (1 << 10):.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
