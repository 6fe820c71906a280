"""The parts that the page of speed is made of: each is a run of `benchmarks.compare`, and leaves a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import plot
from benchmarks.overhead import Overhead
from benchmarks.report import Row


class Part(NamedTuple):
    """A run of the comparison, and the head of its tables."""

    title: str
    arguments: str


TRAINED = ("resnet20", "wide256", "mobilenet_v2", "resnet50", "vgg16")
INFERRED = ("resnet50", "mobilenet_v2", "vgg16")
LAYERS = {
    "resnet50": "Layers of ResNet-50",
    "cifar": "Layers of networks for CIFAR",
    "odd": "Layers of odd shapes",
    "mobilenet_v2": "Layers of MobileNet v2",
    "single": "Layers of single images",
}
_NETS = ",".join(TRAINED)
PARTS: dict[str, Part] = {
    **{table: Part(title, f"--table {table} --seconds 0.1 --rounds 4 --again 2") for table, title in LAYERS.items()},
    "matmul": Part(
        "Matrix products beside PyTorch's and NumPy's", "--sections matmul --seconds 0.05 --rounds 4 --again 2"
    ),
    "training": Part("Training steps", f"--sections training --seconds 0.5 --rounds 2 --nets {_NETS}"),
    "inference": Part("Inference", f"--sections inference --seconds 0.3 --rounds 3 --nets {','.join(INFERRED)}"),
    "operations": Part("Operations that move memory", "--sections operations --seconds 0.05 --rounds 4 --again 2"),
    "overhead": Part("Python around the kernels of a call", "--sections overhead --rounds 5"),
    "memory": Part("Memory of training steps", f"--sections memory --nets {_NETS}"),
}


@dataclass(frozen=True)
class Measured:
    """What the file of a part says.

    Attributes
    ----------
    name : str
        Of `PARTS`.
    threads : int
    machine, versions : str
    commit, date : str
        Of the sources, and of the run; empty in files that do not say.
    seconds : float
        How long the run took; NaN likewise.
    rows : list of Row
    overhead : list of Overhead
    memory : list of dict
        As `benchmarks.compare` writes them.
    """

    name: str
    threads: int
    machine: str
    versions: str
    commit: str
    date: str
    seconds: float
    rows: list[Row]
    overhead: list[Overhead]
    memory: list[dict[str, Any]]


def file(folder: Path, name: str, threads: int) -> Path:
    """Return where a part is kept."""
    return folder / f"{name}-{threads}.json"


def measure(name: str, threads: int, folder: Path) -> None:
    """Run a part in a process of its own. A run that fails or is interrupted leaves the file of an earlier one.

    Raises
    ------
    RuntimeError
        If a result was wrong, or the run failed.
    """
    target = file(folder, name, threads)
    unfinished = target.with_suffix(".part").absolute()
    command = [sys.executable, "-m", "benchmarks.compare", *PARTS[name].arguments.split()]
    done = subprocess.run(
        [*command, "--threads", str(threads), "--json", str(unfinished)], check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OPENBLAS_NUM_THREADS": str(threads)},  # NumPy's products take it from there
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} with {threads} threads failed: {' '.join(command)}")
    unfinished.replace(target)


def read(name: str, threads: int, path: Path) -> Measured:
    """Return what the file of a part says. Errors as for `plot.read`."""
    rows, machine = plot.read(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    run = content.get("run", {"commit": "", "date": "", "seconds": float("nan")})
    calls = [{key: value for key, value in call.items() if key != "threads"} for call in content.get("overhead", ())]
    return Measured(
        name, threads, machine, content["machine"][1], **run, rows=rows,
        overhead=[Overhead(**call) for call in calls], memory=content.get("memory", []),
    )  # fmt: skip


def found(folder: Path) -> Iterator[Measured]:
    """Yield the parts that have a file: in the order of `PARTS`, with few threads first."""
    for name in PARTS:
        numbers = [path.stem.rpartition("-")[2] for path in folder.glob(f"{name}-*.json")]
        for threads in sorted(int(number) for number in numbers if number.isdigit()):
            yield read(name, threads, file(folder, name, threads))
