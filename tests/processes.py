"""Run Python in new processes: for what depends on the environment, on the first launch, or kills the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


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
