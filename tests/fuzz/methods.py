"""The table of the methods of Tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numbanet import Tensor
from tests.fuzz import tensors
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Drawing, Line
from tests.fuzz.draws import elements, shapes, windows

# What refusals of methods may name: arguments of the function behind them, and the tensor itself.
WORDS = ("tensor", "shape", "shapes", "exponent", "other", "split_size_or_sections", "argument", "int", "dtype")

# Methods that call the function of their name, with its arguments.
SAME = (
    "abs add all amax amin any argmax argmin chunk clamp clone contiguous div eq exp expand flatten ge gt le log lt "
    "matmul maximum mean minimum mul ne neg permute pow prod relu reshape sigmoid softmax log_softmax split sqrt "
    "squeeze std sub sum tanh transpose unflatten unsqueeze var max min"
).split()
# Operators by the function that they stand for.
OPERATORS = {
    "__add__": "add", "__sub__": "sub", "__mul__": "mul", "__truediv__": "div", "__pow__": "pow", "__abs__": "abs",
    "__neg__": "neg", "__matmul__": "matmul", "__invert__": "bitwise_not", "__and__": "bitwise_and",
    "__or__": "bitwise_or", "__xor__": "bitwise_xor", "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le",
    "__gt__": "gt", "__ge__": "ge", "__getitem__": "getitem", "view": "reshape",
}  # fmt: skip
REVERSED = {
    "__radd__": "add", "__rsub__": "sub", "__rmul__": "mul", "__rtruediv__": "div", "__rpow__": "pow",
    "__rmatmul__": "matmul", "__rand__": "bitwise_and", "__ror__": "bitwise_or", "__rxor__": "bitwise_xor",
}  # fmt: skip
IN_PLACE = {"add_": "add", "sub_": "sub", "mul_": "mul", "div_": "div", "__iadd__": "add", "__isub__": "sub",
            "__imul__": "mul", "__itruediv__": "div"}  # fmt: skip


def _method(name: str, turned: bool = False) -> Callable[..., Any]:
    def call(input: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a Tensor, got {type(input).__name__}")
        result = getattr(input, name)(*args, **kwargs)
        if result is NotImplemented:
            raise TypeError("input and other can't be compared")
        return result

    call.about = getattr(Tensor, name)  # type: ignore[attr-defined]
    if turned:

        def backwards(other: Any, input: Any) -> Any:
            return call(input, other)

        backwards.about = getattr(Tensor, name)  # type: ignore[attr-defined]
        return backwards
    return call


def _copied(name: str) -> Callable[..., Any]:
    """Return the method on a tensor of its own memory: an input may be read-only, or share elements."""

    def call(input: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a Tensor, got {type(input).__name__}")
        own = input.clone()
        getattr(own, name)(*args, **kwargs)
        return own

    call.about = getattr(Tensor, name)  # type: ignore[attr-defined]
    return call


def _tensor_first(draw: Drawing) -> Drawing:
    """Return a draw whose first argument is an array, for a method to be called on it."""

    def drawn(d: Draw) -> Call:
        args, kwargs = draw(d)
        if isinstance(args[0], np.ndarray):
            return args, kwargs
        return ((np.asarray(args[0], d.dtype), *args[1:]), kwargs)

    return drawn


def _same_shape(d: Draw) -> Call:
    """Operands of which the first has the shape of the result: it is changed in place."""
    shape = d.shape()
    return (d.floats(shape), d.pick(2.0, d.floats(elements.broadcast(d, shape)))), {}


def _value(d: Draw) -> Call:
    return (d.floats(d.shape()), d.pick(1.5, 0, -2, True)), {}


def _assignment(d: Draw) -> Call:
    (x, index), _ = tensors.indices(d)
    value = d.pick(1.0, 2, np.asarray(d.floats(elements.broadcast(d, np.shape(x[index])))))
    return (np.asarray(x, d.dtype), index, value), {}


def assigned(x: Any, index: Any, value: Any) -> Any:
    """x with new elements."""
    x = np.array(x)
    view, rest = tensors.selected(x, index)
    view[rest] = value
    return x


def copied(x: Any, src: Any) -> Any:
    """The elements of src in the shape and dtype of x."""
    return np.broadcast_to(src, x.shape).astype(x.dtype)


def filled(x: Any, value: Any) -> Any:
    """The value in the shape and dtype of x; a negative one wraps around in unsigned integers."""
    return np.broadcast_to(np.asarray(value), x.shape).astype(x.dtype)


def _copy(d: Draw) -> Call:
    shape = d.shape()
    return (d.floats(shape), elements.some(d, elements.broadcast(d, shape))), {}


def _matrix(d: Draw) -> Call:
    return (d.floats(d.shape(0, 2)),), {}


def _single(d: Draw) -> Call:
    return (np.asarray(np.nan_to_num(d.floats(d.pick((), (1,), (1, 1))), posinf=3, neginf=3)),), {}


def _integer(d: Draw) -> Call:
    return (d.integers(d.pick((), (1,), (1, 1)), 0, 9, d.pick("uint8", "int8", "int64")),), {}


def _chosen(d: Draw) -> Call:
    (condition, *_), _ = elements.where(d)
    shape = np.shape(condition)
    return (d.floats(shape), condition, d.floats(elements.broadcast(d, shape))), {}


def _methods() -> Iterator[Line]:
    functions = {line.name.partition(".")[2]: line for line in tensors.lines()}

    def like(name: str, function: str, call: Callable[..., Any], draw: Drawing, answer: Any, **options: Any) -> Line:
        known = functions[function]
        return Line(
            f"Tensor.{name}", call, draw, answer, tensors=True, tolerance=known.tolerance, each=known.each,
            exact=known.exact, absolute=known.absolute, also=known.also, words=(*known.words, *WORDS), **options,
        )  # fmt: skip

    for name, function in {**dict(zip(SAME, SAME)), **OPERATORS}.items():
        draw = elements.two_tensors if name in ("__add__", "__sub__") else functions[function].draw
        yield like(name, function, _method(name), _tensor_first(draw), functions[function].answer)
    for name, function in REVERSED.items():
        draw = windows.matmul if function == "matmul" else tensors.bits if "bit" in function else elements.two_reversed
        yield like(name, function, _method(name, True), draw, functions[function].answer)
    for name, function in IN_PLACE.items():
        yield like(name, function, _copied(name), _same_shape, functions[function].answer)
    yield _other("fill_", _copied("fill_"), _value, filled)
    yield _other("zero_", _copied("zero_"), elements.one, np.zeros_like)
    yield _other("copy_", _copied("copy_"), _copy, copied)
    yield _other("__setitem__", _copied("__setitem__"), _assignment, assigned, also=(IndexError,))
    yield _other("t", _method("t"), _matrix, np.transpose)
    yield _other("T", lambda input: _made(input).T, _matrix, np.transpose)
    yield _other("double", _method("double"), elements.one)
    yield _other("float", _method("float"), elements.one)
    yield _other("long", _method("long"), lambda d: ((d.floats(d.shape(), -9, 9),), {}))
    devices = ("dtype", "device")
    yield _other("to", _method("to"), shapes.to_dtype, shapes.converted, words=devices, also=(RuntimeError,))
    yield _other("cpu", _method("cpu"), elements.any_one, np.array)
    yield _other("detach", _method("detach"), elements.any_one, np.array)
    yield _other("numpy", lambda input: _method("numpy")(_made(input).detach()), elements.any_one, np.array)
    yield _other("__array__", lambda input: np.asarray(_made(input).detach()), elements.any_one, np.array)
    yield _other("tolist", _method("tolist"), lambda d: ((d.floats(d.shape(0, 2), 0, 1),), {}))
    yield _other("item", _method("item"), _single, lambda x: x.item())
    yield _other("__float__", _method("__float__"), _single, lambda x: float(x.item()), words=("string",))
    yield _other(
        "__int__", _method("__int__"), _single, lambda x: int(x.item()), also=(OverflowError,), words=("infinity",)
    )
    yield _other("__bool__", _method("__bool__"), _single, lambda x: bool(x.item()))
    yield _other("__len__", lambda input: len(_made(input)), lambda d: ((d.floats(d.shape(1)),), {}), len)
    yield _other("__iter__", lambda input: list(_made(input)), lambda d: ((d.floats(d.shape(1)),), {}), list)
    yield _other(
        "__contains__", lambda input, element: element in _made(input), _value, lambda x, e: bool((x == e).any())
    )
    yield _other("__index__", _method("__index__"), _integer, lambda x: int(x.item()))
    yield _other("where", _method("where"), _chosen, lambda x, condition, other: np.where(condition, x, other),
        tolerance=1e-4)  # fmt: skip
    yield _other("__repr__", lambda input: len(repr(_made(input))) > 5, elements.any_one, lambda x: True)
    yield _other(
        "__format__", lambda input: f"{_made(input)}" == str(input) or input.ndim == 0, elements.any_one, lambda x: True
    )
    yield _other("__dlpack__", _handed_out, elements.any_one, np.array, also=(BufferError,))
    yield _other("__dlpack_device__", lambda input: _made(input).__dlpack_device__() == (1, 0), elements.any_one,
                 lambda x: True)  # fmt: skip
    yield _other("size", _method("size"), elements.along, lambda x, dim=None: x.shape if dim is None else x.shape[dim],
                 also=(IndexError,))  # fmt: skip
    yield _other("numel", _method("numel"), elements.any_one, np.size)
    yield _other("dim", _method("dim"), elements.any_one, np.ndim)
    yield _other("requires_grad_", _method("requires_grad_"), elements.one, np.array, also=(RuntimeError,))
    recorded: dict[str, Any] = {"also": (RuntimeError,)}
    yield _other("retain_grad", lambda x: (_made(x) * 1).retain_grad(), elements.one, lambda x: None, **recorded)
    yield _other("backward", _backward, elements.one, lambda x: np.full(np.shape(x), 2.0), **recorded)


def _other(name: str, call: Callable[..., Any], draw: Drawing, answer: Any = None, **options: Any) -> Line:
    words = (*options.pop("words", ()), *WORDS)
    return Line(f"Tensor.{name}", call, draw, answer, tensors=True, words=words, **options)


def _handed_out(input: Any) -> np.ndarray:
    shared = _made(input).detach()
    if any(step % shared.dtype.itemsize for step in shared.data.strides):  # DLPack counts strides in elements
        shared = shared.clone()
    return np.from_dlpack(shared).copy()


def _made(input: Any) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a Tensor, got {type(input).__name__}")
    return input


def _backward(input: Any) -> Any:
    leaf = _made(input).detach().clone().requires_grad_()
    result = leaf * 2
    result.backward(np.ones(leaf.shape))
    return leaf.grad


def lines() -> list[Line]:
    """Return the lines of Tensor."""
    return list(_methods())
