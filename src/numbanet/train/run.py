"""Everything that a training consists of, and its state: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numbanet import random
from numbanet.amp import GradScaler
from numbanet.io import load_state, save_state
from numbanet.problem.base import integer
from numbanet.train.evaluate import Meter
from numbanet.train.history import CSV_NAME, JSONL_NAME, History

LAST_NAME, BEST_NAME = "last.safetensors", "best.safetensors"


@contextmanager
def dropped_if_unused(folder: Path) -> Iterator[Path]:
    """Remove the folder that was made for a training, if that fails, or is interrupted, before its first checkpoint.

    What others have put there stays.
    """
    try:
        yield folder
    except BaseException:
        if not (folder / LAST_NAME).exists():
            with suppress(OSError):  # it was not made, or is not empty
                for name in (CSV_NAME, JSONL_NAME):  # which hold no epoch
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
        raise


@dataclass
class Run:
    """A training and where it stands.

    Attributes
    ----------
    model, optimizer, schedule, loader
        What has a state of its own; `schedule` may be None.
    out : Path or None
        Folder of the checkpoints and logs.
    metadata : dict
        What the caller wants to find in the checkpoint.
    scaler : GradScaler
        Of the loss; it may be disabled.
    epochs : int
        Epochs in all.
    batch : int
        Batches of the current epoch that are done.
    step : int
        Optimizer steps since the start.
    meter : Meter
        Sums over the current epoch's batches.
    history : History
        The epochs that are over.
    """

    model: Any
    optimizer: Any
    schedule: Any
    loader: Any
    epochs: int
    out: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))
    batch: int = 0
    step: int = 0
    meter: Meter = field(default_factory=Meter)
    history: History = field(default_factory=History)

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 1."""
        return len(self.history) + 1

    @property
    def lr(self) -> float:
        """Learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on."""
        best = self.history.best
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loader": self.loader.state_dict(),
            "random": random.get_state(),
            "epochs": self.epochs,
            "batch": self.batch,
            "step": self.step,
            "meter": self.meter.to_dict(),
            "history": self.history.to_list(),
            "best_accuracy": None if best is None else best.score,
            "metadata": self.metadata,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken.

        Raises
        ------
        ValueError
            If it is the state of a training with another length, or with a schedule where this one has none.
        """
        if state["epochs"] != self.epochs:
            raise ValueError(f"epochs: the training to resume has {state['epochs']}, got {self.epochs}")
        if (state["schedule"] is None) != (self.schedule is None):
            raise ValueError("schedule: the training to resume and this one must both have one, or neither")
        scaled = state.get("scaler", {})  # which older checkpoints have not
        if bool(scaled) != self.scaler.is_enabled():
            raise ValueError("scaler: the training to resume and this one must both have one, or neither")
        batch, step = integer("batch", state["batch"], 0), integer("step", state["step"], 0)
        if batch > len(self.loader):
            raise ValueError(f"batch must be at most {len(self.loader)}, got {batch}")
        meter, history = Meter(**state["meter"]), History.from_list(state["history"])
        if not all(type(value) in (int, float) for value in meter.to_dict().values()):
            raise TypeError(f"meter must hold numbers, got {meter}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(scaled)
        self.loader.load_state_dict(state["loader"])
        random.set_state(state["random"])
        self.batch, self.step = batch, step
        self.meter, self.history = meter, history
        self.metadata = state["metadata"]

    def save(self, name: str = LAST_NAME) -> Path | None:
        """Write the checkpoint and the logs, if there is a folder for them; return the checkpoint's path."""
        if self.out is None:
            return None
        save_state(self.out / name, self.state_dict())
        self.history.write(self.out)
        return self.out / name

    def load(self) -> None:
        """Go to where the folder's last checkpoint stands, and make the logs agree with it.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged, or of another kind of training; the message names it.
        """
        assert self.out is not None
        path = self.out / LAST_NAME
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file: there is no training to resume in {self.out}")
        state = load_state(path)
        try:
            self.load_state_dict(state)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{path}: does not fit this training: {error}") from error
        self.history.write(self.out)
