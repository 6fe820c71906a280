"""What `numbanet.tune` measured, read from disk: seconds of each kernel, by problem, in one file for each CPU model.

The file is only a hint about speed. Where it is damaged, or was measured with other kernels, it is ignored with a
warning; ``NUMBANET_TUNED=0`` ignores it silently.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from numbanet import settings, trusted
from numbanet.locks import new_lock
from numbanet.problem import Problem

Seconds = dict[str, float]
"""Seconds of a call, by the name of the kernel."""


class _Known:
    """The measurements of this process: None before the file was read."""

    lock = new_lock()
    table: dict[str, Seconds] | None = None


def key(problem: Problem, device: str, precision: str) -> str:
    """Return the name of a choice in the file."""
    return f"{device} {precision} {problem!r}"


def seconds(problem: Problem, device: str, precision: str) -> Seconds:
    """Return what is known about a problem; nothing for most."""
    table = known()
    return table.get(key(problem, device, precision), {}) if table else {}


def known() -> dict[str, Seconds]:
    """Return all that this process knows; the file is read when it is first asked for."""
    table = _Known.table
    if table is None:
        with _Known.lock:
            if _Known.table is None:
                _Known.table = read()
            table = _Known.table
    return table


def fastest(problem: Problem, device: str, precision: str) -> str | None:
    """Return the name of the kernel that was fastest for a problem, or None if it was never measured."""
    found = seconds(problem, device, precision)
    return min(found, key=found.__getitem__) if found else None


def know(table: dict[str, Seconds] | None) -> None:
    """Set what this process knows; None: read the file when it is needed next."""
    with _Known.lock:
        _Known.table = table


@lru_cache(maxsize=1)
def cpu() -> str:
    """Return the CPU's model and what Numba compiles for."""
    from numbanet.cpu.isa import target
    from numbanet.info import cpu_name

    triple, name, features = target()
    return f"{cpu_name()}, {triple}, {name}, {hashlib.sha256(repr(sorted(features)).encode()).hexdigest()[:8]}"


def path() -> Path:
    """Return the file for this CPU model, which need not exist."""
    return settings.cache_root() / f"tuned-{hashlib.sha256(cpu().encode()).hexdigest()[:12]}.json"


def read() -> dict[str, Seconds]:
    """Return the content of the file, by `key`; nothing, with a warning, where it can't be used."""
    if not settings.cache_enabled() or os.environ.get("NUMBANET_TUNED", "1") == "0":
        return {}
    if not any(settings.cache_root().glob("tuned-*.json")):  # so that most processes need not find out what CPU it is
        return {}
    import json  # which `import numbanet` need not wait for

    from numbanet.cpu.cache import source_hash

    file = path()
    try:
        content = json.loads(trusted.read(file).decode())
        kernels, table = content["kernels"], _checked(content["seconds"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        _ignored(file, f"is damaged ({error or type(error).__name__})")
        return {}
    if kernels != source_hash():
        _ignored(file, "was measured with other kernels")
        return {}
    return table


def _checked(table: Any) -> dict[str, Seconds]:
    return {name: {kernel: _duration(value) for kernel, value in found.items()} for name, found in table.items()}


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} where seconds are expected")
    return float(value)


def _ignored(file: Path, why: str) -> None:
    warnings.warn(f"{file} {why} and is ignored: run numbanet.tune again, or delete it", RuntimeWarning, stacklevel=2)
