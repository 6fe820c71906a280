"""The multi-class hinge loss, a team of threads a row; an index that is no class makes the row NaN, and is reported."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import I64, Int, Kernel, Number, T, kernel
from numbanet.cuda.fault import report_label
from numbanet.cuda.launch import current, launch
from numbanet.cuda.ptx import cuda
from numbanet.cuda.softmax import team_size
from numbanet.cuda.team import team
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large


@lru_cache(maxsize=16)
def _kernel(dtype: str, threads: int, squared: bool, backward: bool) -> Kernel:
    """Return the kernel of losses, or of gradients; `step` is 0 where one gradient serves all rows."""
    number = real(dtype)
    zero, two, nan = number(0), number(2), number(float("nan"))
    team_sum, _ = team(threads)
    cells, teams = max(1, threads // 32), THREADS // threads
    words = f"{dtype},{threads},{2 if squared else 1}{',backward' if backward else ''}"

    @kernel(threads=THREADS, config=words)
    def margin_rows(
        rows: Int, classes: Int, step: Int, margin: Number, scale: Number, grad: T, x: T, target: I64, weight: T,
        out: T, fault: I64,
    ):  # fmt: skip
        scratch = cuda.shared.array(cells, number)
        t = i32(i32(cuda.threadIdx.x) % threads)
        row = i32(i32(cuda.blockIdx.x) * teams + i32(cuda.threadIdx.x) // threads)
        inside = row < rows
        count = classes if inside else i32(0)
        row = row if inside else i32(0)
        known = target[row] >= 0 and target[row] < classes
        label, start = i32(target[row]) if known else i32(0), i32(row * classes)
        least = margin - x[i32(start + label)]
        factor = weight[label] / number(classes) if known else nan
        if backward:
            factor *= grad[i32(row * step)] * scale
        total = zero
        for i in range(t, count, threads):
            excess = least + x[i32(start + i)]
            excess = zero if excess < zero or i == label else excess
            if backward:
                if squared:
                    slope = two * excess * factor
                else:
                    slope = factor if excess > zero or not known else zero
                total += slope
                if i != label:
                    out[i32(start + i)] = slope
            else:
                total += excess * excess if squared else excess
        total = team_sum(total, scratch)
        if inside and t == 0:
            if backward:
                out[i32(start + label)] = -total
            else:
                out[row] = factor * total
                if not known:
                    report_label(fault, target[row], classes)

    return margin_rows


def _run(problem: Any, arrays: Arrays, numbers: Any, step: int, scale: float, backward: bool) -> None:
    threads = team_size(problem.classes)
    chosen = _kernel(problem.dtype, threads, problem.power == 2, backward)
    sizes = (problem.rows, problem.classes, step, float(numbers[0]), scale)
    arguments = *sizes, *arrays, current().fault()
    launch(chosen, (blocks(problem.rows, THREADS // threads),), arguments, problem.dtype)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, target, weight, numbers = inputs
    _run(problem, (None, x, target, weight, *outputs), numbers, 0, 1.0, False)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    *arrays, numbers = inputs
    _run(problem, (*arrays, *outputs), numbers, int(problem.each), float(numbers[1]), True)


def _supports(problem: Any) -> str | None:
    return too_large(problem.rows * problem.classes)


CANDIDATES: CandidateLists = {
    ("multi_margin_loss", "forward"): [Candidate("cuda.rows", _forward, _supports)],
    ("multi_margin_loss", "backward_input"): [Candidate("cuda.rows", _backward, _supports)],
}
