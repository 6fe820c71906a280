"""Convolution by Winograd's algorithms: fewer products, at a larger rounding error.

The image is cut into tiles. For each of the points of a transformed tile, a matrix of tiles x channels is multiplied by
one of channels x columns (out-channels). A task does this for a block of tiles and a panel of columns, and transforms
the products back while they lie in the second-level cache. One operand is transformed ahead, by a launch of its own:
the weight, where there are many tiles, the input, where there are few. The other is transformed by the tasks, a piece
at a time, so that it never goes through memory several times its size. A prepared weight is transformed once and for
all.

backward_input is the same algorithm with the filter turned round and the padding complemented; with a stride, once for
the pixels of each phase (`numbanet.cpu.winograd_form`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numbanet import memory, settings
from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.conv_direct import of_gradient, zeros
from numbanet.cpu.conv_moments import following
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import numpy_lanes
from numbanet.cpu.slots import new_slots
from numbanet.cpu.winograd_form import F2X2, F2X2_OF_5X5, F4X4, F4X4_STRIDE_2, Form
from numbanet.cpu.winograd_kernels import kernels_of
from numbanet.cpu.winograd_plan import plan_of, shape_of, stored, tiles_of
from numbanet.problem.conv import ConvProblem


def unsupported(f: Form, p: ConvProblem) -> str | None:
    """Return None, or why one of Winograd's algorithms can't compute a problem, or may not."""
    if settings.get_precision() == "strict":
        return "the precision is 'strict'"
    if p.dtype != "float32":
        return "float64 is for checks: its rounding shall be that of the definition"
    if (p.r, p.s) != (f.taps, f.taps) or p.stride != (f.stride, f.stride) or p.dilation != (1, 1):
        return f"not a {f.taps} x {f.taps} filter with stride {f.stride} and dilation 1"
    if p.groups > 1:
        return "more than one group"
    if 0 in (p.n, p.c, p.k):
        return "an empty operand"
    return None


class Costs(NamedTuple):
    """What takes time beside the products, measured, in operations at peak."""

    input: float  # for a channel of a tile,
    output: float  # for a column of it,
    weight: float  # and for a filter of one channel
    products: float = 1.1  # times the operations at peak that they take


class Winograd:
    """One algorithm, forward and backward_input.

    Parameters
    ----------
    form : Form
    costs : Costs
    """

    def __init__(self, form: Form, costs: Costs):
        self._form, self._costs, self._kernels = form, costs, kernels_of(form)

    def forward(self, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        """Compute y."""
        self._run(p, *inputs, *outputs)

    def backward_input(self, p: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        """Compute the gradient of x."""
        self._run(p, *of_gradient(inputs), outputs[0])

    def prepare(self, p: ConvProblem, weight: np.ndarray) -> np.ndarray:
        """Return what `_run` takes: the panels of the transformed weight, or the weight where tasks transform it."""
        plan = plan_of(self._form, p)
        if not plan.weights_ahead:
            return weight
        out = memory.empty((plan.weight_size,), p.dtype)
        launch(self._kernels.transform_weights, plan.weight_tasks, (weight, out), plan.integers, p.dtype)
        return out

    def _transformed_input(self, p: ConvProblem, source: np.ndarray, nothing: np.ndarray) -> np.ndarray:
        plan = plan_of(self._form, p)
        out = memory.empty((plan.input_size,), p.dtype)
        launch(self._kernels.transform_inputs, plan.input_tasks, (source, nothing, out), plan.integers, p.dtype)
        return out

    def _run(
        self,
        p: ConvProblem,
        source: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        residual: np.ndarray | None,
        *outputs: Any,
    ) -> None:
        plan, out = plan_of(self._form, p), outputs[0]
        nothing = zeros(max(source.shape[3], out.shape[3]), p.dtype)
        given = self._transformed_input(p, source, nothing) if plan.inputs_ahead else source
        slots = new_slots(plan.tasks)
        line = 64 // np.dtype(p.dtype).itemsize  # the first buffer begins at a cache line
        work = memory.empty((slots.size * plan.work_size + line,), p.dtype)
        buffers = (
            given, weight, nothing, nothing if bias is None else bias, nothing if residual is None else residual,
            slots, work, out,
        )  # fmt: skip
        then = following(outputs, *stored(self._form, p)) if len(outputs) > 1 else None
        launch(self._kernels.winograd, plan.tasks, buffers, (*plan.integers, slots.size), p.dtype, then)

    def _cost(self, p: ConvProblem) -> float:
        f, costs = self._form, self._costs
        *_, tiles = tiles_of(f, p)
        (_, _, c), (_, _, k), _ = shape_of(f, p)
        size = numpy_lanes(p.dtype)
        channels, columns = -(-c // size) * size, -(-k // size) * size
        outputs = 1 if p.which == "forward" else f.phase_count
        others = tiles * (costs.input * channels + costs.output * outputs * columns) + 2e5
        products = costs.products * 2.0 * f.products * max(4, tiles) * c * columns
        weight = costs.weight * channels * columns
        # A transformed weight comes from memory, which takes as long as transforming it, but meanwhile there are
        # products.
        return others + (max(products, weight) if p.prepared else products + weight)

    def _prepared_form(self, p: ConvProblem) -> tuple[str, bool, int]:
        plan = plan_of(self._form, p)
        return p.which, plan.weights_ahead, plan.weight_tasks

    def candidate(self, which: str) -> Candidate:
        """Return the candidate of a pass: forward or backward_input."""
        return Candidate(
            f"cpu.winograd{self._form.suffix}", getattr(self, which), lambda p: unsupported(self._form, p), self._cost,
            tolerance=lambda p: 1e-5, prepare=self.prepare, form=self._prepared_form,
        )  # fmt: skip


ALGORITHMS = (
    Winograd(F4X4, Costs(input=1000.0, output=900.0, weight=450.0)),
    Winograd(F2X2, Costs(input=200.0, output=220.0, weight=340.0)),
    Winograd(F2X2_OF_5X5, Costs(input=900.0, output=950.0, weight=850.0)),
    Winograd(F4X4_STRIDE_2, Costs(input=1700.0, output=700.0, weight=1500.0, products=1.25)),
)

CANDIDATES: CandidateLists = {
    ("conv2d", which): [algorithm.candidate(which) for algorithm in ALGORITHMS]
    for which in ("forward", "backward_input")
}
