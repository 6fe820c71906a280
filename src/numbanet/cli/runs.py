"""The folders below ``runs``: where a new training goes, and which one is the newest."""

from __future__ import annotations

import re
from pathlib import Path

from numbanet.train.recipes import MODELS
from numbanet.train.run import LAST_NAME

RUNS = Path("runs")


def new_folder(dataset: str, model: str) -> Path:
    """Make a folder that was not there, and return it: ``runs/DATA-MODEL``, with a number from the second on.

    Of several processes each gets one of its own.
    """
    name = f"{dataset}-{model}"
    RUNS.mkdir(exist_ok=True)
    matches = [re.fullmatch(re.escape(name) + r"(?:-(\d+))?", path.name) for path in RUNS.iterdir()]
    number = max((int(match[1] or 1) for match in matches if match), default=0) + 1
    while True:
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another process was faster
            number += 1


def newest_checkpoint(dataset: str | None = None, model: str | None = None) -> Path:
    """Return the file that was written last among the last checkpoints of the trainings below ``runs``.

    With a data set or a model (then the data set's own model, or any data set) only their folders count.

    Raises
    ------
    FileNotFoundError
        If there is none; the message names what is there.
    """
    present = sorted(RUNS.rglob(LAST_NAME))
    chosen, wanted = present, ""
    if dataset is not None or model is not None:
        wanted = f"{dataset or '*'}-{model or MODELS[dataset or 'digits']}"
        pattern = re.compile(re.escape(wanted).replace(r"\*", ".+") + r"(?:-\d+)?")
        chosen = [path for path in present if pattern.fullmatch(path.parent.name)]
    if not chosen:
        there = ", ".join(str(path.parent) for path in present)
        raise FileNotFoundError(
            f"there is no training {f'called {wanted} ' if wanted else ''}below {RUNS}"
            + (f", only {there}" if there else "")
        )
    return max(chosen, key=lambda path: (path.stat().st_mtime_ns, path))
