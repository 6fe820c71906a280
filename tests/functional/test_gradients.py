"""Every differentiable function and method against finite differences: none is left out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

import numbanet as nnet
from tests.fuzz import methods, table, tensors
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Line, mapped
from tests.gradcheck import gradcheck

# What has no gradient: answers that are true, false, an index or no tensor at all, and rounding.
NONE = {
    f"{owner}.{name}"
    for owner, names in {
        "functional": "eq ne lt le gt ge all any argmax argmin bitwise_and bitwise_or bitwise_xor bitwise_not",
        "Tensor": "eq ne lt le gt ge all any argmax argmin long item tolist numpy size numel dim detach retain_grad "
        "backward requires_grad_ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __invert__ __and__ __or__ __xor__ __rand__ "
        "__ror__ __rxor__ __int__ __float__ __bool__ __len__ __contains__ __repr__ __format__ __array__ "
        "__dlpack__ __dlpack_device__ __index__",
    }.items()
    for name in names.split()
}
LINES = [line for line in (*tensors.lines(), *methods.lines()) if line.name.startswith(("functional.", "Tensor."))]


POSITIVE = {"log", "sqrt", "pow", "__pow__", "__rpow__"}


class Small(Draw):
    """Few random numbers in float64, which lie on no corner of a function."""

    def __init__(self, seed: str, positive: bool = False):
        super().__init__(random.Random(seed))
        self.dtype, self.kind, self._positive = np.dtype(np.float64), "normal", positive

    def floats(self, shape: Sequence[int], low: float | None = None, high: float = 1.0) -> np.ndarray:
        """Return values of which each has memory of its own."""
        if low is None and self._positive:
            low, high = 0.5, 3.0
        return np.array(super().floats(shape, low, high))

    def size(self, least: int = 1) -> int:
        """Return a size of a dimension."""
        return max(least, self.pick(1, 2, 3))

    def shape(self, low: int = 0, high: int = 4, empty: float = 0.0) -> tuple[int, ...]:
        """Return a shape of few elements, never of none."""
        return tuple(self.size() for _ in range(self.integer(low, min(max(low, 2), high))))


def floats(argument: object) -> list[np.ndarray]:
    """Return the arrays of floats in an argument."""
    found: list[np.ndarray] = []
    mapped(lambda x: found.append(x) if x.dtype.kind == "f" else None, argument)
    return found


def check(line: Line, seed: int) -> int:
    """Check the gradients of one case; return how many arrays have one."""
    args, kwargs = line.draw(Small(f"{line.name} {seed}", line.name.partition(".")[2] in POSITIVE))
    variables = [x for i, argument in enumerate(args) if i not in line.constants for x in floats(argument)]
    if not variables or sum(x.size for x in variables) > 600:
        return 0

    def function(*operands: nnet.Tensor) -> nnet.Tensor:
        order = iter(operands)

        def fill(x: np.ndarray, constant: bool) -> nnet.Tensor:
            return nnet.tensor(x) if constant or x.dtype.kind != "f" else next(order)

        given = [mapped(lambda x, c=i in line.constants: fill(x, c), argument) for i, argument in enumerate(args)]
        result = line.function(*given, **mapped(lambda x: nnet.tensor(x), kwargs))
        if isinstance(result, (tuple, list)):
            parts = [part.reshape(-1) for part in result if part.requires_grad or part.dtype.kind == "f"]
            return nnet.functional.cat(parts)
        return result

    with np.errstate(all="ignore"):
        result = function(*(nnet.tensor(x, requires_grad=True) for x in variables))
    if not result.requires_grad or result.dtype != np.float64 or not np.isfinite(result.data).all():
        return 0  # a conversion that rounds; the deviation of a single number
    gradcheck(function, *variables, tolerance=2e-6)
    return len(variables)


@pytest.mark.filterwarnings("ignore:reduction='mean' divides:UserWarning", "ignore:dropout2d:UserWarning")
@pytest.mark.parametrize(
    "line", [line for line in LINES if line.name not in {*NONE, "Tensor.float"}], ids=lambda line: line.name
)
def test_gradients(line):
    checked = sum(check(line, seed) for seed in range(8))
    assert checked, f"no case of {line.name} was small enough"


def test_a_rounding_conversion_passes_the_gradient_through(rng):
    x = nnet.tensor(rng.standard_normal((3, 4)), requires_grad=True)
    grad = rng.standard_normal((3, 4)).astype(np.float32)
    x.float().backward(grad)
    assert x.grad.dtype == np.float64
    np.testing.assert_array_equal(x.grad.data, grad)


def test_every_differentiable_function_is_checked():
    names = {name for name in table.public() if name.startswith(("functional.", "Tensor."))}
    missing = names - {line.name for line in LINES} - table.LEFT_OUT.keys()
    assert not missing, "these have no line in tests/fuzz"
    assert NONE <= names, "these do not exist"
    for name in sorted(NONE):
        line = next(line for line in LINES if line.name == name)
        args, kwargs = line.draw(Small(name))
        result = line.function(*mapped(lambda x: nnet.Tensor(x, x.dtype.kind == "f"), args), **kwargs)
        kept = isinstance(result, nnet.Tensor) and result.requires_grad and name != "Tensor.requires_grad_"
        assert not kept, f"{name} has a gradient, and must be checked"
