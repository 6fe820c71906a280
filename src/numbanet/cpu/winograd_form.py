"""Winograd's minimal filtering algorithms F(m x m, r x r), as descriptions that kernels are compiled for.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), section 4: an output tile of
m x m is ``AT [ (G g GT) * (BT d B) ] A`` with the input tile d, whose span is m + r - 1, the filter g, and the
element-wise product summed over channels. The gradient of the filter is F(r x r, m x m) on the same input tiles, where
m x m gradients are the filter, and the product is summed over tiles.

All matrices follow from m, r and the points at which polynomials are evaluated, the last of which is infinity.

Device functions get a form as an argument, a constant of a type of its own: ``f.tile`` is a number in the machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import register_model, typeof_impl

from numbanet.cpu.isa import host_isa

Matrix = Sequence[Sequence[float]]
Passes = Sequence[Sequence[int]]


class Transform(NamedTuple):
    """A matrix that is applied from both sides.

    The rows of its first half are kept in registers. Where they are too many, it is made in passes over these rows,
    each of which reads the tile anew: that is cheaper than spilling.
    """

    matrix: Matrix
    passes: Passes


@dataclass(frozen=True, eq=False)
class Form:
    """One algorithm.

    Attributes
    ----------
    name : str
        In the field's words.
    suffix : str
        What tells the names of its kernels from those of others.
    tile, taps, span : int
        Pixels of an output tile, of a filter, and of an input tile, along each axis.
    points : int
        Points of a transformed tile.
    input, weight, output : Transform
        BT, G and AT.
    gradient, sums : Transform
        What takes the places of G and AT in the gradient of the filter. G holds the powers of the points there; what
        they are divided by is in AT, which is applied least often.
    """

    name: str
    suffix: str
    tile: int
    taps: int
    span: int
    points: int
    input: Transform
    weight: Transform
    output: Transform
    gradient: Transform
    sums: Transform

    @property
    def scratch(self) -> int:
        """Numbers in one vector of channels of one vector of filters, the largest vectors assumed."""
        return 256 * self.taps * self.taps


def renamed(function: Callable, f: Form) -> Callable:
    """Give a kernel that is made for a form a name of its own, which the disk cache knows it by."""
    function.__name__ = function.__qualname__ = f"{function.__name__}{f.suffix}"
    return function


def _input(points: Sequence[float]) -> Matrix:
    """Return BT: row i holds the coefficients of the polynomial that is zero at the other points."""
    rows = []
    for i in range(len(points) + 1):
        row = [1.0]
        for q in (q for j, q in enumerate(points) if j != i):
            row = [a - q * b for a, b in zip([0.0, *row], [*row, 0.0])]
        rows.append([*row, *[0.0] * (len(points) + 1 - len(row))])
    return rows


def _powers(points: Sequence[float], count: int, scales: Sequence[float]) -> Matrix:
    """Return what evaluates a polynomial of `count` coefficients at all points, divided by the scales."""
    infinity = [0.0] * (count - 1) + [1.0]
    return [*([p**k / scale for k in range(count)] for p, scale in zip(points, scales)), infinity]


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix)]


def _form(
    name: str, suffix: str, tile: int, taps: int, points: Sequence[float],
    input: Passes, weight: Passes, output: Passes, gradient: Passes, sums: Passes,
) -> Form:  # fmt: skip
    scales = [prod(p - q for j, q in enumerate(points) if j != i) for i, p in enumerate(points)]
    ones, span = [1.0] * len(points), tile + taps - 1
    return Form(
        name, suffix, tile, taps, span, span * span,
        Transform(_input(points), input),
        Transform(_powers(points, taps, scales), weight),
        Transform(_transposed(_powers(points, tile, ones)), output),
        Transform(_powers(points, tile, ones), gradient),
        Transform(_transposed(_powers(points, taps, scales)), sums),
    )  # fmt: skip


# Those of the paper, 1 and 2, need no multiplication here and there, but these have a third of the rounding error; they
# are exact in binary, and so are the products that follow.
A, B = 5 / 8, 3 / 2
_POINTS = (0.0, A, -A, B, -B)

_MANY_REGISTERS = host_isa().tile_vectors * host_isa().tile_rows[-1] > 16
_ENDS_AND_PAIRS: Passes = ((0, 5), (1, 2), (3, 4))


def _all(rows: int) -> Passes:
    """Return one pass."""
    return (tuple(range(rows)),)


def _passes(few: Passes, many: Passes) -> Passes:
    return many if _MANY_REGISTERS else few


F4X4 = _form(
    "F(4x4, 3x3)", "", 4, 3, _POINTS,
    input=_ENDS_AND_PAIRS,
    weight=_passes(((0, 1, 2), (3, 4, 5)), _all(6)),
    output=_passes(((0, 2), (1, 3)), _all(4)),
    gradient=_passes(_ENDS_AND_PAIRS, _all(6)),
    sums=_passes(((0, 2), (1,)), _all(3)),
)  # fmt: skip

# For images of few pixels, of which larger tiles would compute many in vain. Each half fits into registers, nearly.
F2X2 = _form(
    "F(2x2, 3x3)", "_f2", 2, 3, (0.0, 1.0, -1.0),
    input=_all(4), weight=_all(4), output=_all(2), gradient=_all(4), sums=_all(3),
)  # fmt: skip

# It has the input tiles of the first.
F2X2_OF_5X5 = _form(
    "F(2x2, 5x5)", "_5x5", 2, 5, _POINTS,
    input=_ENDS_AND_PAIRS,
    weight=_passes(_ENDS_AND_PAIRS, ((0, 1, 2), (3, 4, 5))),
    output=_all(2),
    gradient=_all(6),
    sums=_passes(((0, 2), (1, 3), (4,)), ((0, 2, 4), (1, 3))),
)  # fmt: skip


class FormType(types.Opaque):
    """The Numba type of one form."""

    def __init__(self, form: Form):
        self.form = form
        super().__init__(name=f"Form({form.name})")


register_model(FormType)(models.OpaqueModel)


@typeof_impl.register(Form)
def _typeof(form: Form, context: Any) -> FormType:
    return FormType(form)


@infer_getattr
class _Numbers(AttributeTemplate):
    """The type of a number of a form: that of the literal, so that it can be the size of a buffer."""

    key = FormType

    def generic_resolve(self, form: FormType, name: str) -> types.Type:
        return types.literal(getattr(form.form, name))


@lower_getattr_generic(FormType)
def _number(context: Any, builder: ir.IRBuilder, form: FormType, value: ir.Value, name: str) -> ir.Constant:
    return ir.Constant(ir.IntType(64), getattr(form.form, name))
