"""How many threads kernels may use: the CPUs of the process, by affinity mask and cgroup quotas, and what was set."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class _Threads(threading.local):
    """What a Python thread says about those that its kernels may use: their number, 0 until it is asked for."""

    count = 0


threads = _Threads()


def default_threads() -> int:
    """Return the number of threads to start with: the smaller of the affinity mask and the cgroup's CPU quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, cgroup_quota() or available))


def cgroup_quota(
    root: str | os.PathLike[str] = "/sys/fs/cgroup", groups: str | os.PathLike[str] = "/proc/self/cgroup"
) -> int | None:
    """Return the whole CPUs that the process's cgroups grant, at least 1, or None where there is no limit.

    A cgroup's limit binds those below it, too; inside a container, the path of the process's group may be that on the
    host and then does not exist, but the root shows the container's limit.

    Parameters
    ----------
    root : path
        Where the cgroup file systems (version 2, or 1 with its "cpu" controller) are mounted.
    groups : path
        The list of the process's groups, of lines "number:controllers:path".
    """
    root, found = Path(root), []
    for controllers, path in _groups(Path(groups)):
        base = root / "cpu" if "cpu" in controllers.split(",") else root
        folder = base / path.strip("/")
        for place in (folder, *folder.parents):
            found.append(_limit(place))
            if place == base:
                break
    limits = [limit for limit in found if limit is not None]
    return max(1, int(min(limits))) if limits else None


def _groups(file: Path) -> list[tuple[str, str]]:
    """Return (controllers, path) of each of the process's groups that can hold a CPU limit."""
    try:
        lines = [line.split(":", 2) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        lines = []
    found = [(line[1], line[2]) for line in lines if len(line) == 3]
    return [(c, path) for c, path in found if not c or "cpu" in c.split(",")] or [("", "/"), ("cpu", "/")]


def _limit(folder: Path) -> float | None:
    """Return the CPUs that a cgroup's own files grant."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{w}_us").read_text(encoding="ascii") for w in ("quota", "period"))
        except (OSError, ValueError):
            return None
    try:
        granted, length = int(quota), int(period)
    except ValueError:  # "max"
        return None
    return granted / length if granted > 0 and length > 0 else None
