"""Cross entropy and negative log-likelihood, a team of threads a row: one fused pass forward, one backward.

A block writes the losses of its rows and, in float64, their sum and the sum of what a mean divides by; `finish` adds
these up in the order of the blocks. An index that is no class makes the loss NaN, and is reported (`Executor.fault`):
who reads the loss gets an IndexError. Cross entropy keeps of each row its largest score and the logarithm of the sum of
exponentials, which is all that the backward pass needs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import F64, I64, Int, Kernel, Long, Number, T, kernel
from numbanet.cuda.fault import report_label
from numbanet.cuda.launch import current, empty, launch
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.softmax import row_statistics, team_size
from numbanet.cuda.team import team
from numbanet.cuda.total import finish
from numbanet.cuda.vector import THREADS, blocks, i32, real, too_large

f64 = types.float64
_PARTS = 1024  # blocks at most


@lru_cache(maxsize=16)
def _forward_kernel(dtype: str, threads: int, probabilities: bool) -> Kernel:
    """Return the kernel; the target holds probabilities, or indices."""
    number = real(dtype)
    zero, nan = number(0), number(float("nan"))
    statistics, (team_sum, _) = row_statistics(dtype, threads), team(threads)
    cells, teams = max(1, threads // 32), THREADS // threads

    def cross_entropy(
        rows: Int, classes: Int, rounds: Int, ignore: Long, keep: Number, share: Number, x: T, target: I64, weight: T,
        losses: T, saved: T, partial: F64, fault: I64,
    ):  # fmt: skip
        scratch = cuda.shared.array(cells, number)
        results, weights = cuda.shared.array(teams, f64), cuda.shared.array(teams, f64)
        t = i32(i32(cuda.threadIdx.x) % threads)
        mine = i32(i32(cuda.threadIdx.x) // threads)
        loss_sum, weight_sum = f64(0), f64(0)
        for turn in range(rounds):
            row = i32((i32(cuda.blockIdx.x) * rounds + turn) * teams + mine)
            start = i32(row * classes)
            inside = row < rows
            if not probabilities:
                label = target[row] if inside else ignore
                inside = inside and label != ignore
            count = classes if inside else i32(0)
            top, total = statistics(x, start, count, scratch)
            logarithm = math.log(total)
            loss = zero
            if probabilities or share > zero:
                for i in range(t, count, threads):
                    part = share
                    if probabilities:
                        part = share + keep * target[i32(start + i)]
                    loss += weight[i] * part * (logarithm - (x[i32(start + i)] - top))
                loss = team_sum(loss, scratch)
            if row < rows and t == 0:
                if not inside:
                    loss, top, logarithm = zero, zero, zero
                elif probabilities:
                    weight_sum += f64(1)
                elif label >= 0 and label < classes:
                    w = weight[i32(label)]
                    loss += keep * w * (logarithm - (x[i32(start + label)] - top))
                    weight_sum += f64(w)
                else:
                    loss = nan
                    report_label(fault, label, classes)
                losses[row] = loss
                saved[i32(2 * row)], saved[i32(2 * row + 1)] = top, logarithm
                loss_sum += f64(loss)
        if t == 0:
            results[mine], weights[mine] = loss_sum, weight_sum
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            for other in range(1, teams):
                loss_sum += results[other]
                weight_sum += weights[other]
            partial[i32(2 * i32(cuda.blockIdx.x))] = loss_sum
            partial[i32(2 * i32(cuda.blockIdx.x) + 1)] = weight_sum

    if probabilities:
        cross_entropy.__annotations__["target"] = T
    words = f"{dtype},{threads},{'probabilities' if probabilities else 'indices'}"
    return kernel(threads=THREADS, config=words)(cross_entropy)


@lru_cache(maxsize=16)
def _backward_kernel(dtype: str, threads: int, probabilities: bool) -> Kernel:
    """Return the kernel dx = g (mass softmax(x) - w (keep t + share)), mass the sum of all w (keep t + share)."""
    number = real(dtype)
    zero, nan = number(0), number(float("nan"))
    team_sum, _ = team(threads)
    cells, teams = max(1, threads // 32), THREADS // threads

    def cross_entropy_backward(
        rows: Int, classes: Int, step: Int, ignore: Long, keep: Number, share: Number, grad: T, x: T, target: I64,
        weight: T, saved: T, divisor: F64, dx: T,
    ):  # fmt: skip
        scratch = cuda.shared.array(cells, number)
        t = i32(i32(cuda.threadIdx.x) % threads)
        row = i32(i32(cuda.blockIdx.x) * teams + i32(cuda.threadIdx.x) // threads)
        inside = row < rows
        count = classes if inside else i32(0)
        row = row if inside else i32(0)
        start = i32(row * classes)
        mass = zero
        if probabilities:
            for i in range(t, count, threads):
                mass += weight[i] * (keep * target[i32(start + i)] + share)
            mass = team_sum(mass, scratch)
        else:
            label = target[row]
            if share > zero:
                for i in range(t, count, threads):
                    mass += weight[i] * share
                mass = team_sum(mass, scratch)
            if label >= 0 and label < classes:
                mass += keep * weight[i32(label)]
            elif label != ignore:
                mass = nan
        g = number(f64(grad[i32(row * step)]) / divisor[0])
        top, logarithm = saved[i32(2 * row)], saved[i32(2 * row + 1)]
        for i in range(t, count, threads):
            at = i32(start + i)
            if probabilities:
                part = keep * target[at] + share
            else:
                part = share + keep if i == label else share
            slope = g * (mass * math.exp((x[at] - top) - logarithm) - weight[i] * part)
            if not probabilities:
                slope = zero if label == ignore else slope
            dx[at] = slope

    if probabilities:
        cross_entropy_backward.__annotations__["target"] = T
    words = f"{dtype},{threads},{'probabilities' if probabilities else 'indices'}"
    return kernel(threads=THREADS, config=words)(cross_entropy_backward)


@lru_cache(maxsize=4)
def _target_kernel(dtype: str) -> Kernel:
    """Return the kernel of the gradient of probabilities: -g (1 - s) w log softmax(x)."""
    number = real(dtype)

    @kernel(threads=THREADS, config=dtype)
    def cross_entropy_backward_target(
        size: Int, classes: Int, step: Int, keep: Number, grad: T, x: T, weight: T, saved: T, divisor: F64, dt: T
    ):
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            row = i32(i // classes)
            g = number(f64(grad[i32(row * step)]) / divisor[0]) * keep
            v = saved[i32(2 * row + 1)] - (x[i] - saved[i32(2 * row)])
            dt[i] = g * weight[i32(i - row * classes)] * v

    return cross_entropy_backward_target


@lru_cache(maxsize=4)
def _nll_kernel(dtype: str) -> Kernel:
    """Return the kernel of losses -w x[target], and the blocks' sums of losses and weights; a thread a row."""
    number = real(dtype)
    zero, nan = number(0), number(float("nan"))
    team_sum, _ = team(THREADS)
    cells = THREADS // 32

    @kernel(threads=THREADS, config=dtype)
    def nll(
        rows: Int, classes: Int, rounds: Int, ignore: Long, x: T, target: I64, weight: T, losses: T, partial: F64,
        fault: I64,
    ):  # fmt: skip
        scratch = cuda.shared.array(cells, f64)
        loss_sum, weight_sum = f64(0), f64(0)
        for turn in range(rounds):
            row = i32((i32(cuda.blockIdx.x) * rounds + turn) * THREADS + i32(cuda.threadIdx.x))
            if row < rows:
                label = target[row]
                loss = zero
                if label != ignore:
                    loss = nan
                    if label >= 0 and label < classes:
                        loss = -weight[i32(label)] * x[i32(row * classes + label)]
                        weight_sum += f64(weight[i32(label)])
                    else:
                        report_label(fault, label, classes)
                    loss_sum += f64(loss)
                losses[row] = loss
        loss_sum, weight_sum = team_sum(loss_sum, scratch), team_sum(weight_sum, scratch)
        if cuda.threadIdx.x == 0:
            partial[i32(2 * i32(cuda.blockIdx.x))] = loss_sum
            partial[i32(2 * i32(cuda.blockIdx.x) + 1)] = weight_sum

    return nll


@lru_cache(maxsize=4)
def _nll_backward_kernel(dtype: str) -> Kernel:
    number = real(dtype)
    zero = number(0)

    @kernel(threads=THREADS, config=dtype)
    def nll_backward(
        size: Int, classes: Int, step: Int, ignore: Long, grad: T, target: I64, weight: T, divisor: F64, dx: T
    ):
        i = i32(i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x))
        if i < size:
            row = i32(i // classes)
            label = target[row]
            value = zero
            if label == i - row * classes and label != ignore:
                value = number(f64(-weight[i32(label)] * grad[i32(row * step)]) / divisor[0])
            dx[i] = value

    return nll_backward


def _shares(problem: Any) -> tuple[float, float]:
    """Return the factor of the target, and what smoothing gives to every class."""
    return 1.0 - problem.label_smoothing, problem.label_smoothing / max(problem.classes, 1)


def _parts(rows: int, teams: int) -> tuple[int, int]:
    """Return the number of blocks, and how often each takes a row for each of its teams."""
    rounds = max(1, -(-rows // (teams * _PARTS)))
    return blocks(rows, teams * rounds), rounds


def _finish(problem: Any, parts: int, partial: Any, total: Any, divisor: Any) -> None:
    mean = int(problem.reduction == "mean")
    launch(finish, (1,), (parts, 2, mean, 1, 1.0, partial, total, divisor), problem.dtype)


def _cross_entropy(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    losses, saved, total, divisor = outputs
    threads = team_size(problem.classes)
    parts, rounds = _parts(problem.rows, THREADS // threads)
    partial = empty((max(1, 2 * parts),), "float64")
    sizes = (problem.rows, problem.classes, rounds, problem.ignore_index, *_shares(problem))
    chosen = _forward_kernel(problem.dtype, threads, problem.probabilities)
    launch(chosen, (parts,), (*sizes, *inputs, losses, saved, partial, current().fault()), problem.dtype)
    _finish(problem, parts, partial, total, divisor)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    if not problem.classes:
        return
    threads = team_size(problem.classes)
    step = int(problem.reduction == "none")
    sizes = (problem.rows, problem.classes, step, problem.ignore_index, *_shares(problem))
    chosen = _backward_kernel(problem.dtype, threads, problem.probabilities)
    launch(chosen, (blocks(problem.rows, THREADS // threads),), (*sizes, *inputs, *outputs), problem.dtype)


def _backward_target(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.rows * problem.classes
    sizes = (size, problem.classes, int(problem.reduction == "none"), _shares(problem)[0])
    launch(_target_kernel(problem.dtype), (blocks(size),), (*sizes, *inputs, *outputs), problem.dtype)


def _nll(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    losses, total, divisor = outputs
    parts, rounds = _parts(problem.rows, THREADS)
    partial = empty((max(1, 2 * parts),), "float64")
    sizes = (problem.rows, problem.classes, rounds, problem.ignore_index)
    arguments = *sizes, *inputs, losses, partial, current().fault()
    launch(_nll_kernel(problem.dtype), (parts,), arguments, problem.dtype)
    _finish(problem, parts, partial, total, divisor)


def _nll_backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    size = problem.rows * problem.classes
    sizes = (size, problem.classes, int(problem.reduction == "none"), problem.ignore_index)
    launch(_nll_backward_kernel(problem.dtype), (blocks(size),), (*sizes, *inputs, *outputs), problem.dtype)


def _supports(problem: Any) -> str | None:
    return too_large(problem.rows * problem.classes, 2 * problem.rows)


CANDIDATES: CandidateLists = {
    ("cross_entropy", "forward"): [Candidate("cuda.rows", _cross_entropy, _supports)],
    ("cross_entropy", "backward_input"): [Candidate("cuda.rows", _backward, _supports)],
    ("cross_entropy", "backward_target"): [Candidate("cuda.flat", _backward_target, _supports)],
    ("nll_loss", "forward"): [Candidate("cuda.flat", _nll, _supports)],
    ("nll_loss", "backward_input"): [Candidate("cuda.flat", _nll_backward, _supports)],
}
