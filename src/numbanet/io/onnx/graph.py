"""The graph of an ONNX file as a module: `load_onnx`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet.io.onnx.file import Tensors, parse
from numbanet.io.onnx.node import Node
from numbanet.nn import Module
from numbanet.nn.parameter import Parameter, placed
from numbanet.tensor import Tensor

OPSETS = range(7, 27)
"""The versions of the operators whose meaning this reader knows."""

_DEPTH = 32  # of nested modules

Route = tuple[str, ...]
"""The names on the way from the model to a module or a tensor of it."""


@dataclass(frozen=True)
class Step:
    """What runs for a node: a function, or the module at a route; operands are values by name, or tensors by route."""

    run: Callable[..., Any] | Route
    operands: tuple[str | Route, ...]
    results: tuple[str, ...]
    spent: tuple[str, ...] = ()  # values that no later step reads


class OnnxModel(Module):
    """The network of an ONNX file; see `load_onnx`.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Their names, in the order of the arguments and of the results.
    opset : int
    """

    def __init__(self, inputs: tuple[str, ...], outputs: tuple[str, ...], opset: int):
        super().__init__()
        self.inputs, self.outputs, self.opset = inputs, outputs, opset
        self.steps: tuple[Step, ...] = ()
        self.results: tuple[str | Route, ...] = ()

    def forward(self, *args: Tensor) -> Any:
        """Return the output, or a tuple of the outputs."""
        if len(args) != len(self.inputs):
            raise TypeError(f"the model takes {len(self.inputs)} tensors ({', '.join(self.inputs)}), got {len(args)}")
        known: dict[str, Any] = dict(zip(self.inputs, args))
        for step in self.steps:
            run = self._at(step.run) if isinstance(step.run, tuple) else step.run
            found = run(*[known[name] if isinstance(name, str) else self._at(name) for name in step.operands])
            if len(step.results) == 1:
                known[step.results[0]] = found
            else:
                known.update(zip(step.results, found))
            for name in step.spent:
                del known[name]
        results = tuple(known[name] if isinstance(name, str) else self._at(name) for name in self.results)
        return results[0] if len(results) == 1 else results

    def _at(self, route: Route) -> Any:
        found: Any = self
        for name in route[:-1]:
            found = found._modules[name]
        return getattr(found, route[-1])

    def extra_repr(self) -> str:
        """Return the names of the inputs and outputs."""
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"


class Graph:
    """What operators need while a model is built.

    Attributes
    ----------
    constants : dict of str to ndarray
        The values that are known: initializers, and what Constant nodes hold.
    ranks : dict of str to int
        The number of dimensions of the other values.
    """

    def __init__(self, model: OnnxModel, tensors: Tensors, initializers: dict[str, NDArray]):
        self.model, self.tensors = model, tensors
        self.constants: dict[str, NDArray] = dict(initializers)
        self.ranks: dict[str, int] = {}
        self.steps: list[Step] = []
        self._trained = {name: name for name, array in initializers.items() if array.dtype.kind == "f" and array.ndim}
        self._made: dict[str, Tensor] = {}
        self._routes: dict[str, Route] = {}

    def alias(self, name: str, source: str) -> None:
        """Give a constant a second name."""
        self.constants[name] = self.constants[source]
        if source in self._trained:
            self._trained[name] = self._trained[source]

    def rank(self, node: Node, position: int) -> int:
        """Return the number of dimensions of an input."""
        name = node.input(position)
        return self.constants[name].ndim if name in self.constants else self.ranks[name]

    def constant(self, node: Node, position: int, kind: str) -> NDArray:
        """Return the values of an input that must be known when the model is built, of the dtype kind i, f or b."""
        name = node.input(position)
        if name not in self.constants:
            node.fail(f"its input {name!r} is computed: it must be an initializer or a Constant")
        if self.constants[name].dtype.kind != kind:
            node.fail(f"its input {name!r} holds {self.constants[name].dtype}")
        return self.constants[name]

    def integers(self, node: Node, position: int) -> tuple[int, ...]:
        """Return the integers of an input."""
        return tuple(self.constant(node, position, "i").reshape(-1).tolist())

    def number(self, node: Node, position: int) -> float:
        """Return the only number of an input."""
        values = self.constant(node, position, "f")
        if values.size != 1:
            node.fail(f"its input {node.inputs[position]!r} has shape {values.shape}, expected one number")
        return float(values.reshape(()))

    def is_constant(self, node: Node, position: int) -> bool:
        """Return whether an input is known when the model is built."""
        return node.input(position) in self.constants

    def operand(self, node: Node, position: int) -> str | Route:
        """Return an input of a step: a value by its name; a constant becomes a tensor of the model."""
        name = node.input(position)
        if name not in self.constants:
            return name
        if self.constants[name].dtype.kind != "f":
            node.fail(f"its input {name!r} holds {self.constants[name].dtype}: only floats can be computed with")
        return self.tensor_route(name)

    def tensor_route(self, name: str) -> Route:
        """Return the way to the tensor of a constant: a parameter if it is an initializer with dimensions."""
        source = self._trained.get(name, name)
        if source not in self._routes:
            tensor = self.tensor(name)
            holder, route = self._place(source)
            if isinstance(tensor, Parameter):
                holder.register_parameter(route[-1], tensor)
            else:
                holder.register_buffer(route[-1], tensor, persistent=False)
            self._routes[source] = route
        return self._routes[source]

    def tensor(self, name: str) -> Tensor:
        """Return the one tensor of a constant."""
        source = self._trained.get(name, name)
        if source not in self._made:
            array = self.constants[name]
            if array.ndim == 4:  # channels last in memory, as layers have their weights
                array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            array = placed(array, None)
            self._made[source] = Parameter(array) if name in self._trained else Tensor(array)
        return self._made[source]

    def layer(self, node: Node, module: Module, tensors: dict[str, str]) -> Route:
        """Put a layer into the model, with its tensors, and return the way to it.

        Initializers ``X.weight``, ``X.bias``, ... belong to a layer ``X``, so that they keep their names; other layers
        are called as their first initializer.
        """
        for attribute, name in tensors.items():
            if attribute in module._buffers:  # which a training changes, so that two layers must not share it
                module.register_buffer(attribute, Tensor(placed(self.constants[name].copy(), None)))
            else:
                tensor = self.tensor(name)
                module.register_parameter(attribute, tensor if isinstance(tensor, Parameter) else Parameter(tensor))
        sources = {attribute: self._trained.get(name, name) for attribute, name in tensors.items()}
        first = next(iter(sources.values()), node.outputs[0])
        stem = first.rpartition(".")[0]
        if not stem or any(source != f"{stem}.{attribute}" for attribute, source in sources.items()):
            stem = first
        holder, route = self._place(stem)
        holder.add_module(route[-1], module)
        for attribute, source in sources.items():
            self._routes.setdefault(source, (*route, attribute))
        return route

    def _place(self, name: str) -> tuple[Module, Route]:
        """Return the module that shall hold what is called `name`, and the way to it; missing modules are made."""
        parts = name.split(".") if name.count(".") < _DEPTH else [name.replace(".", "_")]
        holder: Module = self.model
        route: list[str] = []
        for part in parts[:-1]:
            part = part or "_"
            while type(holder._modules.get(part)) is not Module and hasattr(holder, part):
                part += "_"
            if part not in holder._modules:
                holder.add_module(part, Module())
            holder = holder._modules[part]  # type: ignore[assignment]
            route.append(part)
        last = parts[-1] or "_"
        while hasattr(holder, last):
            last += "_"
        return holder, (*route, last)

    def between(self, node: Node, run: Callable[..., Any] | Route, *operands: str | Route) -> str:
        """Add a step whose result only the next one of the node needs; return its name."""
        name = f"\0{node.label} {len(self.steps)}"
        self.steps.append(Step(run, operands, (name,)))
        return name

    def add(self, node: Node, run: Callable[..., Any] | Route, *operands: str | Route, rank: int | None = None) -> None:
        """Add a step whose results are the outputs of the node; `rank` is theirs, else that of the first input."""
        names = tuple(name or f"\0{node.label} {len(self.steps)}.{i}" for i, name in enumerate(node.outputs))
        for name in names:
            if name in self.ranks or name in self.constants:
                node.fail(f"its output {name!r} is there already")
            self.ranks[name] = self.rank(node, 0) if rank is None else rank
        self.steps.append(Step(run, operands, names))


def load_onnx(path: str | os.PathLike[str]) -> OnnxModel:
    """Return the network in an ONNX file as a module, in evaluation mode.

    The operators of convolutional networks are known, of the versions 7 to 26 (`OPSETS`). Floating-point initializers
    with dimensions become parameters of the same names: those called ``X.weight``, ``X.bias``, ... are the ones of a
    layer ``X``; a layer whose weight is called otherwise bears that name. So the module can be trained, fused and
    captured like any other, and its `state_dict` is that of the model that was exported, where the exporter kept names.

    Parameters
    ----------
    path : path
        External data are read from the model's folder, and from nowhere else. Needs ``pip install "numbanet[onnx]"``.

    Returns
    -------
    OnnxModel
        Takes the inputs of the graph, in order. Sizes that the file declares for them are not demanded.

    Raises
    ------
    ImportError
        Without the onnx package.
    OSError
        If a file can't be read.
    ValueError
        If the file is damaged, or holds something that is not supported; the message names the file, and the node.
    """
    path = Path(path)
    try:
        return _built(parse(path), Tensors(path.parent))
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None


def _built(proto: Any, tensors: Tensors) -> OnnxModel:
    from numbanet.io.onnx.operators import OPERATORS

    graph_proto, opset = proto.graph, _opset(proto)
    if graph_proto.sparse_initializer:
        raise ValueError("sparse initializers are not supported")
    initializers: dict[str, NDArray] = {}
    for tensor in graph_proto.initializer:
        if tensor.name in initializers or not tensor.name:
            raise ValueError(f"initializer {tensor.name!r}: has no name of its own")
        initializers[tensor.name] = tensors.array(tensor, f"initializer {tensor.name!r}")
    inputs = [value for value in graph_proto.input if value.name not in initializers]
    names = tuple(value.name for value in inputs)
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"the inputs {names} have no names of their own")
    model = OnnxModel(names, tuple(value.name for value in graph_proto.output), opset)
    graph = Graph(model, tensors, initializers)
    for value in inputs:
        kind = value.type.tensor_type
        if kind.elem_type not in (1, 11) or not kind.HasField("shape"):
            raise ValueError(f"input {value.name!r}: must be a tensor of float or double of known dimensions")
        graph.ranks[value.name] = len(kind.shape.dim)
    for number, node_proto in enumerate(graph_proto.node):
        node = Node(node_proto, opset, number)
        if node.kind not in OPERATORS:
            node.fail("this operator is not supported")
        for name in node.inputs:
            if name and name not in graph.constants and name not in graph.ranks:
                node.fail(f"its input {name!r} is not there: nodes must stand in the order in which they compute")
        if not node.outputs:
            node.fail("has no output")
        OPERATORS[node.kind](node, graph)
    missing = [name for name in model.outputs if name not in graph.ranks and name not in graph.constants]
    if missing or not model.outputs:
        raise ValueError(f"the outputs {missing} are not computed" if missing else "the graph has no output")
    model.results = tuple(name if name in graph.ranks else graph.tensor_route(name) for name in model.outputs)
    model.steps = _with_spent(graph.steps, model)
    return model.eval()


def _opset(proto: Any) -> int:
    found = {entry.domain: entry.version for entry in proto.opset_import}
    opset = found.get("", found.get("ai.onnx"))
    if opset is None or opset not in OPSETS:
        raise ValueError(f"opset {opset} is not supported, only {OPSETS.start} to {OPSETS.stop - 1}")
    return int(opset)


def _with_spent(steps: list[Step], model: OnnxModel) -> tuple[Step, ...]:
    """Tell each step which values are not needed after it, so that their memory can be used again."""
    needed, found = set(model.outputs), []
    for step in reversed(steps):
        mine = dict.fromkeys([*step.results, *(name for name in step.operands if isinstance(name, str))])
        spent = tuple(name for name in mine if name not in needed)
        needed.update(mine)
        found.append(Step(step.run, step.operands, step.results, spent))
    return tuple(reversed(found))
