"""Whether a GPU can be used, and if not, why. Nothing here initialises CUDA: a process may still be forked afterwards.

The driver is asked for its version, which it tells before `cuInit`, and the management library (NVML) for the number of
GPUs.
"""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from typing import Any

from numbanet.cuda.launch import COMPILER, COMPILER_WHEELS, LIBRARIES

_PACKAGES = (COMPILER, "cuda.core", "cuda.bindings", "cuda.pathfinder")
INSTALL = "pip install \"numbanet[cuda13]\", or [cuda12] for a driver of that level (and GPUs up to Hopper)"


@lru_cache(maxsize=1)
def reason() -> str | None:
    """Return why no GPU can be used, or None if one can."""
    for package in _PACKAGES:
        if not _has(package):
            return f"the package {package} is not installed: {INSTALL}"
    driver = driver_version()
    if isinstance(driver, str):
        return driver
    missing = _missing_library()
    if missing is not None:
        return missing
    toolkit = toolkit_version()
    if toolkit is not None and toolkit[0] > driver[0]:
        level = ".".join(map(str, driver))
        return (
            f"the driver is of level CUDA {level}, older than the compiler of CUDA {toolkit[0]}.{toolkit[1]}: install "
            f"the wheels of the driver's level ({INSTALL}), or a newer driver"
        )
    count = device_count()
    if isinstance(count, str):
        return count
    return None if count else "the driver finds no GPU" + _hidden()


def _has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"


def driver_version() -> tuple[int, int] | str:
    """Return the newest CUDA version that the driver supports, or why that can't be known."""
    from cuda.bindings import driver

    try:
        status, version = driver.cuDriverGetVersion()
    except Exception as error:  # cuda.pathfinder's or cuda.bindings', depending on what is broken
        return f"no driver: libcuda can't be loaded ({_first_line(error)})"
    if status != 0 or not version:
        return f"the driver does not work: {status!r}"
    return version // 1000, version % 1000 // 10


def _missing_library() -> str | None:
    from cuda import pathfinder

    for name in LIBRARIES:
        try:
            pathfinder.load_nvidia_dynamic_lib(name)
        except Exception as error:  # it has several kinds of them
            return f"the toolkit's library {name} is missing: {INSTALL} ({_first_line(error)})"
    return None


def toolkit_version() -> tuple[int, int] | None:
    """Return the version of the compiler's wheels, or None if they are not wheels."""
    from importlib import metadata

    for name in COMPILER_WHEELS:
        try:
            major, minor, *_ = metadata.version(name).split(".")
        except metadata.PackageNotFoundError:
            continue
        return int(major), int(minor)
    return None


@lru_cache(maxsize=64)
def beyond(ordinal: int) -> str | None:
    """Return what is wrong with the number of a GPU, or None if there is one."""
    count = device_count()
    if isinstance(count, str):
        return count
    if ordinal < count:
        return None
    return f"there are GPUs 0 to {count - 1}" if count > 1 else "there is one GPU, number 0"


def device_count() -> int | str:
    """Return how many GPUs there are, or why that can't be known."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return 0
    try:
        from cuda.core import system

        return system.get_num_devices()
    except Exception as error:  # NVML is missing or broken: containers may have the driver without it
        return _count_by_driver(error)


def _count_by_driver(before: Exception) -> int | str:
    """Count by the driver itself, which must be initialised for it."""
    from cuda.bindings import driver

    (status,) = driver.cuInit(0)
    if status != 0:
        return f"the driver can't be initialised: {status!r} (and NVML: {_first_line(before)})"
    status, count = driver.cuDeviceGetCount()
    return count if status == 0 else f"the driver can't count GPUs: {status!r}"


def _first_line(error: Any) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
