"""Convolution from its definition: one product of matrices for each position of the filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.problem.conv import ConvProblem, Epilogue


def _taps(problem: ConvProblem, padded: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (r, s, view): the view (N, P, Q, groups, C/groups) holds the pixels that weight[:, r, s] multiplies."""
    (sh, sw), (dh, dw) = problem.stride, problem.dilation
    grouped = padded.reshape(*padded.shape[:3], problem.groups, problem.cg)
    for r in range(problem.r):
        for s in range(problem.s):
            rows = slice(r * dh, r * dh + (problem.p - 1) * sh + 1, sh)
            columns = slice(s * dw, s * dw + (problem.q - 1) * sw + 1, sw)
            yield r, s, grouped[:, rows, columns]


def _padded(problem: ConvProblem, x: np.ndarray) -> np.ndarray:
    top, bottom, left, right = problem.pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _grouped(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(problem.groups, problem.kg, problem.r, problem.s, problem.cg)


def finished(epilogue: Epilogue, y: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None) -> np.ndarray:
    """Return y after its epilogue; a channel's bias lies along the last dimension."""
    if epilogue.bias:
        y = y + bias
    if epilogue.residual:
        y = y + residual
    if epilogue.activation is None:
        return y
    return np.clip(y, 0, 6 if epilogue.activation == "relu6" else None)  # keeps NaN


def forward(
    problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None
) -> np.ndarray:
    """Return y (N, P, Q, K) from x (N, H, W, C), weight (K, R, S, C/groups), and bias (K) and residual or None."""
    grouped = _grouped(problem, weight)
    y = np.zeros((problem.n, problem.p, problem.q, problem.groups, problem.kg), x.dtype)
    for r, s, pixels in _taps(problem, _padded(problem, x)):
        y += np.einsum("npqgc,gkc->npqgk", pixels, grouped[:, :, r, s])
    return finished(problem.epilogue, y.reshape(problem.n, problem.p, problem.q, problem.k), bias, residual)


def backward_input(
    problem: ConvProblem, grad: np.ndarray, weight: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """Return the gradient (N, H, W, C) of x from that of y; with `residual`, a gradient of x, their sum."""
    grouped = _grouped(problem, weight)
    padded = _padded(problem, np.zeros((problem.n, problem.h, problem.w, problem.c), grad.dtype))
    grad = grad.reshape(problem.n, problem.p, problem.q, problem.groups, problem.kg)
    for r, s, pixels in _taps(problem, padded):
        pixels += np.einsum("npqgk,gkc->npqgc", grad, grouped[:, :, r, s])
    top, _, left, _ = problem.pads
    return finished(problem.epilogue, padded[:, top : top + problem.h, left : left + problem.w], None, residual)


def backward_weight(problem: ConvProblem, x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return the gradient (K, R, S, C/groups) of the weight from x and the gradient of y."""
    dw = np.zeros((problem.groups, problem.kg, problem.r, problem.s, problem.cg), x.dtype)
    grad = grad.reshape(problem.n, problem.p, problem.q, problem.groups, problem.kg)
    for r, s, pixels in _taps(problem, _padded(problem, x)):
        dw[:, :, r, s] = np.einsum("npqgk,npqgc->gkc", grad, pixels)
    return dw.reshape(problem.k, problem.r, problem.s, problem.cg)


def _candidate(function: Any) -> list[Candidate]:
    def run(problem: ConvProblem, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        outputs[0][...] = function(problem, *inputs)

    return [Candidate("reference", run, cost=lambda problem: float("inf"))]


CANDIDATES: CandidateLists = {
    ("conv2d", "forward"): _candidate(forward),
    ("conv2d", "backward_input"): _candidate(backward_input),
    ("conv2d", "backward_weight"): _candidate(backward_weight),
}
