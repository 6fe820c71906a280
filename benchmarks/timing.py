"""Time several functions in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_SAMPLE = 0.01  # seconds that one sample lasts at least
_BATCH = 1e-4  # seconds that a batch of calls lasts at least: the clock costs nothing beside it
_PAUSE = 0.005  # seconds between two looks at whether the process rests
_PATIENCE = 0.1  # seconds after which it is not waited for any longer


def once(call: Callable[[], Any], loops: int = 1) -> float:
    """Return the mean seconds of `loops` calls in a row."""
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


def rest() -> None:
    """Wait until no thread of the process runs: OpenMP's keep their cores for 5 to 15 ms in case more work comes."""
    end = time.perf_counter() + _PATIENCE
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(_PAUSE)
        if time.process_time() - before < 0.1 * _PAUSE:
            return


def sample(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes: the best batch of several, after a rest and one call that is not counted.

    The best, not the mean: what else runs on the machine can only add time. Batches are as short as the clock allows,
    so on a busy machine some of them run undisturbed.
    """
    rest()
    loops = math.ceil(_BATCH / max(once(call), 1e-7))
    best, start = math.inf, time.perf_counter()
    while time.perf_counter() < start + _SAMPLE:
        best = min(best, once(call, loops))
    return best


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    seconds: float,
    rounds: int = 5,
    steady: Callable[[Mapping[str, list[float]]], bool] = lambda samples: True,
) -> dict[str, list[float]]:
    """Time functions in rounds: each round takes one sample of each, in a new order.

    Parameters
    ----------
    calls : mapping of str to callable
        The functions; each was called before, so that nothing is compiled now.
    seconds : float
        Time box. At least `rounds` rounds are made, whatever they take.
    rounds : int
    steady : callable
        While ``steady(samples)`` is false, rounds go on for up to four times the time box.

    Returns
    -------
    dict of str to list of float
        Seconds a call, one number a round.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    start = time.perf_counter()
    while True:
        shuffle(order)
        for name in order:
            samples[name].append(sample(calls[name]))
        elapsed, made = time.perf_counter() - start, len(samples[order[0]])
        if made >= rounds and elapsed >= seconds and (steady(samples) or elapsed >= 4 * seconds):
            return samples


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive numbers; NaN of none.

    Raises
    ------
    ValueError
        If a number is not positive.
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
