"""A node of an ONNX graph, as the operators see it."""

from __future__ import annotations

from typing import Any, NoReturn

_MISSING: Any = object()
# AttributeProto.AttributeType: what its values are in Python, and the field that holds them.
_KINDS = {
    1: ("float", "f"), 2: ("int", "i"), 3: ("str", "s"), 4: ("tensor", "t"), 6: ("floats", "floats"),
    7: ("ints", "ints"),
}  # fmt: skip


class Node:
    """A node.

    Attributes
    ----------
    kind : str
        The operator.
    opset : int
        The version of the operators.
    inputs, outputs : list of str
        Names of values; "" where an optional one is left out.
    """

    def __init__(self, proto: Any, opset: int, number: int):
        self.kind, self.opset = proto.op_type, opset
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.label = f"node {proto.name or f'number {number}'!r} ({self.kind})"
        while self.inputs and not self.inputs[-1]:
            self.inputs.pop()
        self._attributes: dict[str, tuple[str, Any]] = {}
        if proto.domain not in ("", "ai.onnx"):
            self.fail(f"operators of the domain {proto.domain!r} are not supported")
        for attribute in proto.attribute:
            if attribute.type not in _KINDS or attribute.ref_attr_name or attribute.name in self._attributes:
                self.fail(f"the attribute {attribute.name!r} is of a kind that is not supported")
            kind, field = _KINDS[attribute.type]
            value = getattr(attribute, field)
            value = value.decode() if kind == "str" else tuple(value) if kind in ("floats", "ints") else value
            self._attributes[attribute.name] = kind, value

    def fail(self, reason: str) -> NoReturn:
        """Raise a ValueError that names the node."""
        raise ValueError(f"{self.label}: {reason}")

    def take(self, name: str, kind: str, default: Any = _MISSING) -> Any:
        """Return the value of an attribute, which counts as understood; `kind` is float, int, str, tensor, ints, ..."""
        found, value = self._attributes.pop(name, (kind, default))
        if found != kind:
            self.fail(f"the attribute {name!r} is of kind {found}, expected {kind}")
        if value is _MISSING:
            self.fail(f"the attribute {name!r} is missing")
        return value

    def only(self, name: str, kind: str, *allowed: Any) -> Any:
        """Return the value of an attribute that must be one of `allowed`; the first is its default."""
        value = self.take(name, kind, allowed[0])
        if value not in allowed:
            self.fail(f"{name}={value!r} is not supported, only {' or '.join(map(repr, allowed))}")
        return value

    def input(self, position: int) -> str:
        """Return the name of an input, which must be there."""
        if not self.has(position):
            self.fail(f"has no input number {position + 1}")
        return self.inputs[position]

    def has(self, position: int) -> bool:
        """Return whether an input is there."""
        return position < len(self.inputs) and self.inputs[position] != ""

    def finish(self, inputs: int, most: int | None = None) -> None:
        """Refuse attributes that nobody took, and another number of inputs."""
        if self._attributes:
            self.fail(f"the attribute {next(iter(self._attributes))!r} is not supported")
        if not inputs <= len(self.inputs) <= (most or inputs):
            self.fail(f"has {len(self.inputs)} inputs, expected {inputs if most is None else f'{inputs} to {most}'}")
