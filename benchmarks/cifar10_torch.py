"""The recipe of examples/cifar10_fast.py in PyTorch, from the same weights and on the same batches.

    python -m benchmarks.cifar10_torch --data datasets                        # seconds a step, in turn, and the losses
    python -m benchmarks.cifar10_torch --data datasets --train runs/torch     # train, with the same log
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import numbanet as nnet
from numbanet import data, io


def example(name: str) -> Any:
    """Return a program of examples/ as a module."""
    path = Path(__file__).parent.parent / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"examples_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fast = example("cifar10_fast")


def conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding="same", bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


class Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(channels_in, channels_out), norm(channels_out)
        self.conv2, self.norm2 = conv(channels_out, channels_out), norm(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Net(nn.Module):
    """The network; it takes numbanet's tensors, and computes without gradients in evaluation mode."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        self.blocks = nn.Sequential(*(Block(c, k) for c, k in zip((24, *widths), widths)))
        self.head = nn.Linear(widths[-1], 10, bias=False)

    def forward(self, images: nnet.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.training):
            x = self.blocks(F.gelu(self.whiten(torch.tensor(images.data))))
            return self.head(F.max_pool2d(x, 3).flatten(1)) / 9


class TorchTraining(fast.Training):
    """A training whose model and optimizer are PyTorch's; it can't be resumed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        weights = {name: torch.tensor(value) for name, value in self.model.state_dict().items()}
        widths = [block.norm2.num_features for block in self.model.blocks]
        self.model = Net(widths).to(memory_format=torch.channels_last)
        self.model.load_state_dict(weights)
        self.slow = {name: value for name, value in weights.items() if value.is_floating_point()}
        self.optimizer = fast.make_optimizer(self.model, self.loader.batch_size, torch.optim.SGD)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.schedule.lr_lambdas[0])

    def loss(self, images: nnet.Tensor, labels: nnet.Tensor) -> torch.Tensor:
        scores = self.model(images)
        return F.cross_entropy(scores, torch.tensor(labels.data), label_smoothing=0.2, reduction="sum")

    def save(self) -> None:
        log = {"settings": self.settings, "rows": self.rows}
        io.write_atomically(self.out / "log.json", json.dumps(log, indent=1).encode())


def compare(ours: Any, theirs: Any, steps: int) -> None:
    """Make steps in turn; print the seconds, their ratio and how far the losses are apart."""
    times, losses = np.zeros((2, steps + 1)), np.zeros((2, steps + 1))
    for i, batch in enumerate(itertools.islice(ours.loader, steps + 1)):
        images, labels = map(nnet.tensor, batch)
        for row, training in enumerate((ours, theirs)):
            began = time.perf_counter()
            losses[row, i] = training.step(images, labels)
            times[row, i] = time.perf_counter() - began
        if i:  # the first compiles, or chooses kernels
            apart = abs(losses[0, i] / losses[1, i] - 1)
            print(f"step {i:3}: numbanet {times[0, i]:.3f} s, torch {times[1, i]:.3f} s, losses apart {apart:.1e}")
    median, epoch = np.median(times[:, 1:], axis=1), len(ours.loader)
    print(f"median of {steps}: numbanet {median[0]:.3f} s, torch {median[1]:.3f} s, ratio {median[1] / median[0]:.2f}")
    print(f"an epoch of {epoch} steps: numbanet {epoch * median[0]:.0f} s, torch {epoch * median[1]:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train CIFAR-10's fast recipe in PyTorch, or time it in turn.")
    parser.add_argument("--data", default="datasets", metavar="DIR")
    parser.add_argument("--steps", type=int, default=5, help="steps to time")
    parser.add_argument("--train", metavar="DIR", help="train in PyTorch instead, and write log.json there")
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=nnet.get_num_threads())
    args = parser.parse_args()
    nnet.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    sets = data.cifar10(args.data), data.cifar10(args.data, train=False)
    if args.train:
        TorchTraining(*sets, args.train, args.epochs, args.seed).run()
    else:
        with tempfile.TemporaryDirectory() as folder:
            pair = [kind(*sets, folder, args.epochs, args.seed) for kind in (fast.Training, TorchTraining)]
            compare(*pair, args.steps)


if __name__ == "__main__":
    main()
