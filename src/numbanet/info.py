"""What numbanet runs on: versions, CPU, threads, caches, GPU. Works on machines where some of it is broken."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

# The features that kernels ask for, of the hundred that LLVM knows.
_SHOWN_FEATURES = (
    "sse2 avx avx2 fma f16c avx512f avx512dq avx512vl avx512bw avx512bf16 avx512vnni amx-tile amx-bf16 amx-int8 "
    "neon fullfp16 bf16 dotprod i8mm sve"
).split()


@dataclass(frozen=True)
class Info:
    """The answer of `info`; printed, it is a table. What could not be found out says why in its place.

    Attributes
    ----------
    numbanet, python, numba, llvmlite, numpy : str
        Versions.
    system : str
        Operating system and machine.
    cpu : str
        The CPU, and LLVM's name of it.
    instructions : str
        The instruction set that kernels are compiled for, and its features.
    caches : str
        How many bytes the levels of caches hold that sizes of blocks follow from.
    threads : str
        How many threads kernels use, and why.
    kernel_cache : str
        Folder of the compiled kernels and its state.
    device, precision : str
        The settings.
    gpu : str
        Whether a GPU works, or why none does, and how many there are.
    """

    numbanet: str
    python: str
    numba: str
    llvmlite: str
    numpy: str
    system: str
    cpu: str
    instructions: str
    caches: str
    threads: str
    kernel_cache: str
    device: str
    precision: str
    gpu: str

    def __str__(self) -> str:
        rows = [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    __repr__ = __str__


def info() -> Info:
    """Return what numbanet runs on; ``print(numbanet.info())`` shows it.

    Nothing raises: where the machine is broken, the text of the field says how.

    Returns
    -------
    Info
    """
    return Info(
        numbanet=_attempt(_own_version),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        numba=_version("numba"),
        llvmlite=_version("llvmlite"),
        numpy=_version("numpy"),
        system=f"{platform.platform()}, {platform.machine()}",
        cpu=_attempt(_cpu),
        instructions=_attempt(_instructions),
        caches=_attempt(_caches),
        threads=_attempt(_threads),
        kernel_cache=_attempt(_kernel_cache),
        device=_attempt(_device),
        precision=_attempt(_precision),
        gpu=_attempt(_gpu),
    )


def _attempt(find: Callable[[], str]) -> str:
    try:
        return find()
    except Exception as error:  # whatever is broken shall be shown, not end the report of all that is not
        return f"unknown ({type(error).__name__}: {error})"


def _own_version() -> str:
    from numbanet import __version__

    return __version__


def _version(package: str) -> str:
    import importlib.metadata  # which `import numbanet` need not wait for

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """Return the CPU's model, as the system calls it."""
    if Path("/proc/cpuinfo").is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _cpu() -> str:
    from numbanet.cpu.isa import target

    return f"{cpu_name()} (LLVM: {target()[1]})"


def _instructions() -> str:
    from numbanet.cpu.isa import host_isa, target

    features = target()[2]
    shown = [name for name in _SHOWN_FEATURES if name in features]
    return f"{host_isa().name}, vectors of {host_isa().vector_bytes} bytes ({' '.join(shown)})"


def _caches() -> str:
    from numbanet.cpu.cache_sizes import caches

    found = caches()
    first, second, last = (size / 2**10 for size in (found.first, found.second, found.last))
    return f"{first:.0f} KB, {second:.0f} KB a core; last level {last / 2**10:.0f} MB"


def _threads() -> str:
    from numbanet.cpu.parallel import cgroup_quota, get_num_threads

    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    reasons = [f"{os.cpu_count()} CPUs"]
    if affinity is not None:
        reasons.append(f"affinity {affinity}")
    reasons.append(f"cgroup quota {cgroup_quota() or 'none'}")
    reasons.append(f"NUMBA_NUM_THREADS {os.environ.get('NUMBA_NUM_THREADS', 'not set')}")
    return f"{get_num_threads()} ({', '.join(reasons)})"


def _kernel_cache() -> str:
    from numbanet import settings, trusted
    from numbanet.cpu.cache import cache_dir

    if os.environ.get("NUMBANET_CACHE", "1") == "0":
        return "off (NUMBANET_CACHE=0)"
    if not settings.cache_enabled():
        return "off: this user has no home; set NUMBANET_CACHE_DIR"
    folder = cache_dir()
    untrusted = trusted.fault(folder)
    if untrusted is not None:
        return f"not used: {folder} {untrusted}"
    files = [path for path in folder.glob("*.bin") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files) / 2**20
    return f"{folder} ({_writable(folder)}; {len(files)} kernels, {size:.1f} MB)"


def _writable(folder: Path) -> str:
    """Say whether files can be made in a folder, or in the nearest one above that exists."""
    while not folder.is_dir():
        if folder.exists():
            return f"can't be written: {folder} is a file"
        if folder == folder.parent:
            return "can't be written: no such disk"
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return "writable"
    except OSError as error:
        return f"can't be written: {error.strerror}"


def _device() -> str:
    from numbanet import settings

    return f"{settings.get_device()}, which is {settings.resolve_device()}"


def _precision() -> str:
    from numbanet import settings

    return settings.get_precision()


def _gpu() -> str:
    from numbanet.cuda import unavailable_reason

    reason = unavailable_reason()
    if reason is not None:
        return f"none: {reason}"
    from numbanet.cuda.probe import device_count

    count = device_count()
    return f"works; there are {count}: cuda:0 to cuda:{count - 1}" if isinstance(count, int) and count > 1 else "works"
