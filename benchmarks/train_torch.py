"""Train a network in PyTorch as ``numbanet train`` does: equal first weights, batches and schedule.

::

    python -m benchmarks.train_torch --data cifar10 --data-dir datasets --model resnet20 --out runs/torch
    numbanet train              --data cifar10 --data-dir datasets --model resnet20 --out runs/numbanet

Each epoch appends a line to ``log.jsonl``, with the fields of our own log, and renews ``last.pt``; a training that
ended early goes on from there when it is started again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import backends, nets
from numbanet.cli.task import DATASETS, Setup, Task, prepare
from numbanet.train.recipes import recipe


def _optimizer(name: str, parameters: Any, lr: float, weight_decay: float) -> Any:
    from torch import optim

    kinds: dict[str, Callable[..., Any]] = {
        "sgd": partial(optim.SGD, momentum=0.9, nesterov=True),
        "adam": optim.Adam,
        "adamw": optim.AdamW,
        "rmsprop": optim.RMSprop,
    }
    return kinds[name](parameters, lr=lr, weight_decay=weight_decay)


def torch_model(name: str, ours: Any) -> Any:
    """Return PyTorch's twin of a network of ours, with its parameters and statistics."""
    b = backends.get("torch:channels_last")
    theirs = nets.NETS[name].build(b)
    b.load(theirs, dict(zip(theirs.state_dict(), map(backends.to_numpy, ours.state_dict().values()), strict=True)))
    return b.place(theirs)


class Training:
    """A model with its optimizer and schedule, which can be saved between two epochs."""

    def __init__(self, task: Task, setup: Setup):
        from torch.optim.lr_scheduler import OneCycleLR

        chosen = task.recipe
        self.setup, self.epochs = setup, chosen.epochs
        self.model = torch_model(task.model, setup.model)
        self.optimizer = _optimizer(chosen.optimizer, self.model.parameters(), chosen.lr, chosen.weight_decay)
        self.schedule = OneCycleLR(
            self.optimizer, chosen.lr, total_steps=self.epochs * len(setup.train_loader), pct_start=0.2,
            cycle_momentum=chosen.optimizer != "rmsprop",
        )  # fmt: skip
        self.epoch, self.seconds = 0, 0.0

    def save(self, path: Path) -> None:
        """Write all that a later process needs."""
        import torch

        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        own = {"epoch": self.epoch, "seconds": self.seconds, "loader": json.dumps(self.setup.train_loader.state_dict())}
        part = path.with_suffix(".part")
        torch.save(parts | own, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        import torch

        state = torch.load(path, weights_only=True)
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.setup.train_loader.load_state_dict(json.loads(state["loader"]))

    def train_epoch(self) -> dict[str, float]:
        """Train on all images once; the seconds are those of training alone."""
        from torch.nn.functional import cross_entropy

        self.model.train()
        start, loss_sum, images = time.perf_counter(), 0.0, 0
        for batch, labels in self.setup.train_loader:
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(_tensor(batch)), _tensor(labels))
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            loss_sum += loss.item() * len(labels)
            images += len(labels)
        self.epoch += 1
        self.seconds += time.perf_counter() - start
        return {"epoch": self.epoch, "train_loss": loss_sum / images, "train_seconds": self.seconds}

    def accuracy(self) -> float:
        """Return the share of the test images that are recognised."""
        import torch

        self.model.eval()
        with torch.no_grad():
            right = [
                int((self.model(_tensor(batch)).argmax(1).numpy() == labels).sum())
                for batch, labels in self.setup.test_loader
            ]
        return sum(right) / len(self.setup.test_loader.dataset)


def _tensor(array: np.ndarray) -> Any:
    return backends.get("torch:channels_last").tensor(array)


def main(arguments: list[str] | None = None) -> None:
    """Train from the command line."""
    import torch

    parser = argparse.ArgumentParser(description="train a network in PyTorch as numbanet train does")
    parser.add_argument("--data", choices=DATASETS, default="cifar10")
    parser.add_argument("--data-dir", default="datasets")
    parser.add_argument("--model", choices=sorted(nets.NETS), default="resnet20")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: PyTorch's own")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = recipe(args.data, args.model)
    chosen = chosen if args.epochs is None else replace(chosen, epochs=args.epochs)
    task = Task(args.data, args.data_dir, args.model, args.seed, chosen)
    training = Training(task, prepare(task))
    args.out.mkdir(parents=True, exist_ok=True)
    last = args.out / "last.pt"
    if last.exists():
        training.load(last)
    while training.epoch < training.epochs:
        record = training.train_epoch() | {"test_accuracy": training.accuracy()}
        with (args.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        training.save(last)
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
