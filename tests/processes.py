"""Run Python in new processes: for what depends on the environment, on the first launch, or kills the interpreter."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap

import pytest


def run_python(
    code: str, *arguments: str, prefix: tuple[str, ...] = (), timeout: float = 300, **environment: str | None
) -> str:
    """Return what the code prints; the variables of `environment` are set, or removed where None.

    Warnings are errors in it, and so is an exit status other than 0.
    """
    variables = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
    for name in [name for name, value in environment.items() if value is None]:
        variables.pop(name, None)
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True, text=True, timeout=timeout, env=variables,
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def run_beside(layer: str, code: str, **environment: str) -> list[str]:
    """Return the lines that the code prints where Numba takes the given threading layer.

    It prints "missing", and ends, where Numba has none: then the test is skipped. Of pip's TBB, Numba must be told.
    """
    if layer == "tbb":
        try:
            files = importlib.metadata.files("tbb") or []
        except importlib.metadata.PackageNotFoundError:
            files = []
        folders = [str(file.locate().parent) for file in files if file.name == "libtbb.so.12"]  # type: ignore[attr-defined]
        environment["LD_LIBRARY_PATH"] = ":".join([*folders, os.environ.get("LD_LIBRARY_PATH", "")])
    found = run_python(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2", **environment).splitlines()
    if found == ["missing"]:
        pytest.skip(f"Numba has no {layer} here")
    return found
