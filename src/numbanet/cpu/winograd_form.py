"""Winograd's minimal filtering algorithms F(m x m, r x r), as descriptions that kernels are compiled for.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), section 4: an output tile of
m x m is ``AT [ (G g GT) * (BT d B) ] A`` with the input tile d, whose span is m + r - 1, the filter g, and the
element-wise product summed over channels. The gradient of the filter is F(r x r, m x m) on the same input tiles, where
m x m gradients are the filter, and the product is summed over tiles.

All matrices follow from m, r and the points at which polynomials are evaluated, the last of which is infinity.

A convolution with a stride is a sum of convolutions without: those of its `Phase`s, whose products are summed like
those of channels before they are transformed back. Its gradient of the input is one such convolution for each phase,
of the same gradients, and gives the pixels of that phase.

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

from numbanet.cpu.compile import device
from numbanet.cpu.isa import host_isa

Matrix = Sequence[Sequence[float]]
Passes = Sequence[Sequence[int]]


class Transform(NamedTuple):
    """Two matrices: ``down @ tile @ across.T``.

    The rows of ``down @ tile`` are kept in registers. Where they are too many, they are made in passes, each of which
    reads the tile anew: that is cheaper than spilling.
    """

    down: Matrix
    across: Matrix
    passes: Passes


class Phase(NamedTuple):
    """Every so many pixels of an input tile, from (row, column) on, and the taps that meet them.

    With a stride of 1 there is one phase: the tile. A phase with fewer taps than the first leaves out the last point.
    """

    row: int
    column: int
    input: Transform
    weight: Transform
    output: Transform
    sums: Transform


@dataclass(frozen=True, eq=False)
class Form:
    """One algorithm.

    Attributes
    ----------
    name : str
        In the field's words.
    suffix : str
        What tells the names of its kernels from those of others.
    tile, taps, stride, extent : int
        Pixels of an output tile, of a filter, between two places of a filter, and of an input tile, along each axis.
    span, points : int
        Points along an axis, and of a transformed tile.
    phases : tuple of Phase
        Each with BT, G, AT, and what takes the place of AT in the gradient of the filter. AT of the first is that of
        all of them.
    gradient : Transform
        What takes the place of G in the gradient of the filter: the powers of the points. What they are divided by is
        in the sums, which are transformed least often.
    """

    name: str
    suffix: str
    tile: int
    taps: int
    stride: int
    extent: int
    span: int
    points: int
    phases: tuple[Phase, ...]
    gradient: Transform

    @property
    def phase_count(self) -> int:
        """The square of the stride."""
        return len(self.phases)

    @property
    def products(self) -> int:
        """Products of a tile, one channel and one filter."""
        return sum(len(phase.input.down) * len(phase.input.across) for phase in self.phases)

    @property
    def longer(self) -> int:
        """Phases along an axis that have the most taps."""
        return (self.taps - 1) % self.stride + 1

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
    input: Passes, weight: Passes, output: Passes, gradient: Passes, sums: Passes, stride: int = 1,
) -> Form:  # fmt: skip
    scales = [prod(p - q for j, q in enumerate(points) if j != i) for i, p in enumerate(points)]
    ones, span = [1.0] * len(points), len(points) + 1
    evaluation, most = _powers(points, tile, ones), -(-taps // stride)

    def axis(first: int) -> tuple[Matrix, Matrix, Matrix]:
        """Return BT, G and AT of the taps first, first + stride, ..."""
        if len(range(first, taps, stride)) == most:
            return _input(points), _powers(points, most, scales), _transposed(evaluation)
        bt = [row[:-1] for row in _input(points)[:-1]]
        return bt, _powers(points, most - 1, scales)[:-1], _transposed(evaluation[:-1])

    def phase(row: int, column: int) -> Phase:
        def both(down: Matrix, across: Matrix, passes: Passes) -> Transform:
            return Transform(down, across, _within(passes, down))

        (bt, g, at), (bt_across, g_across, at_across) = axis(row), axis(column)
        return Phase(
            row, column, both(bt, bt_across, input), both(g, g_across, weight), both(at, at_across, output),
            both(_transposed(g), _transposed(g_across), sums),
        )  # fmt: skip

    phases = [(row, column) for row in range(stride) for column in range(stride)]
    return Form(
        name, suffix, tile, taps, stride, stride * (tile - 1) + taps, span, span * span,
        tuple(phase(row, column) for row, column in phases),
        Transform(evaluation, evaluation, gradient),
    )  # fmt: skip


def _within(passes: Passes, matrix: Matrix) -> Passes:
    """Return the passes without rows that a matrix does not have."""
    kept = [tuple(row for row in rows if row < len(matrix)) for rows in passes]
    return [rows for rows in kept if rows]


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


# The four finite points of tiles of four whose filters, a phase's, have two taps.
F4X4_STRIDE_2 = _form(
    "F(4x4, 3x3) / 2", "_s2", 4, 3, (0.5, -0.5, 1.0, -1.0),
    input=_passes(((0, 1), (2, 3), (4,)), _all(5)), weight=_all(5), output=_passes(((0, 2), (1, 3)), _all(4)),
    gradient=_passes(((0, 1), (2, 3), (4,)), _all(5)), sums=_all(2), stride=2,
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


@device
def lacks(f, phase, point):
    """Return whether a phase, which has fewer taps in a direction, leaves out the last points of that direction."""
    row, column = phase // f.stride, phase % f.stride
    last_row, last_column = point // f.span == f.span - 1, point % f.span == f.span - 1
    return (last_row and row >= f.longer) or (last_column and column >= f.longer)
