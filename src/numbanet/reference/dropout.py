"""Definition of dropout and of the random generator behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.problem.dropout import BLOCK, COUNTERS

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter: np.ndarray, key: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Return the random words of counters (Salmon et al., SC 2011, section 3.3).

    Parameters
    ----------
    counter : numpy.ndarray
        uint64, shape (4, n): 32-bit words.
    key : numpy.ndarray
        uint64, shape (2,): 32-bit words.
    rounds : int
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        p, q = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (q >> _HALF) ^ c1 ^ k0, q & _WORD, (p >> _HALF) ^ c3 ^ k1, p & _WORD
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _WORD, (k1 + np.uint64(0xBB67AE85)) & _WORD
    return np.stack([c0, c1, c2, c3])


def random_words(size: int, key: np.ndarray) -> np.ndarray:
    """Return the random word of each of `size` elements under a draw (seed, number), uint64."""
    blocks = -(-size // BLOCK)
    index = np.arange(blocks * COUNTERS, dtype=np.uint64)
    seed, number = key
    high = [np.full_like(index, word) for word in (number & _WORD, number >> _HALF)]
    counter = np.stack([index & _WORD, index >> _HALF, *high])
    words = philox4x32(counter, np.array([seed & _WORD, seed >> _HALF]))
    return words.reshape(4, blocks, COUNTERS).transpose(1, 0, 2).reshape(-1)[:size]


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, key = inputs
    dropped = random_words(problem.size, key) < problem.threshold
    outputs[0][...] = x * np.where(dropped, 0, problem.scale)
    for flags in outputs[1:]:
        flags[...] = dropped


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    grad, flags = inputs
    outputs[0][...] = grad * np.where(flags, 0, problem.scale)


CANDIDATES: CandidateLists = {
    ("dropout", which): [Candidate("reference", run, cost=lambda p: float("inf"))]
    for which, run in (("forward", _forward), ("backward_input", _backward))
}
