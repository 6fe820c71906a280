"""The sum that takes columns of windows back to images."""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.pad import add_run, fill_run
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers


@kernel
def fold(task: Index, ints: I64, x: T, y: T):
    """One task a plane."""
    h, w, taps_h, taps_w, p, q, down, across, gap_h, gap_w = integers(ints, 10)
    base, i = task * h * w, task * taps_h * taps_w * p * q
    fill_run(y, base, h * w, 0.0)
    for r in range(taps_h):
        for s in range(taps_w):
            for row in range(p):
                o = base + (row * down + r * gap_h) * w + s * gap_w
                if across == 1:
                    add_run(x, i, y, o, q)
                else:
                    for column in range(q):
                        y[o + column * across] += x[i + column]
                i += q


def _fold(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    sizes = (problem.h, problem.w, problem.r, problem.s, problem.p, problem.q, *problem.stride, *problem.dilation)
    launch(fold, problem.planes, (*inputs, *outputs), sizes, problem.dtype)


CANDIDATES: CandidateLists = {("fold", "forward"): [Candidate("cpu.planes", _fold)]}
