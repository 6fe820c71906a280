"""What the asv suites share. Importing a suite compiles nothing and starts no thread: the work begins in `setup`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import backends

# PyTorch keeps images in the same memory order as numbanet.
BACKENDS = ("numbanet", "torch:channels_last")

# With how many threads everything is timed; what a machine has too few CPUs for is skipped.
THREADS = (1, 2)

# One folder of compiled kernels a commit, below asv's environment: no commit times or loads another one's code.
if "ASV_ENV_DIR" in os.environ and "ASV_COMMIT" in os.environ:
    _kernels = Path(os.environ["ASV_ENV_DIR"]) / "kernels" / os.environ["ASV_COMMIT"]
    os.environ["NUMBANET_CACHE_DIR"] = str(_kernels)


class Suite:
    """How a suite is timed: one process a parameter set, many single calls, the kernels warm before the first one."""

    timeout = 300
    rounds = 1
    repeat = (3, 50, 2.0)
    warmup_time = 0.0


def require(backend: str) -> None:
    """Skip the benchmark where a backend is not installed."""
    if not backends.available(backend):
        raise NotImplementedError(f"{backend} is not installed")


def use_threads(threads: int) -> None:
    """Let the libraries use as many threads; skip the benchmark where there are fewer CPUs."""
    from numbanet.cpu.parallel import default_threads

    if threads > default_threads():
        raise NotImplementedError(f"this machine has fewer than {threads} CPUs")
    backends.set_num_threads(threads)


@lru_cache(maxsize=1)
def warm(build: Callable[..., Callable[[], Any]], *arguments: Any) -> Callable[[], Any]:
    """Return ``build(*arguments)`` after one call of it; asv repeats `setup` before every sample, this builds once."""
    call = build(*arguments)
    call()
    return call
