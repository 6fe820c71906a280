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
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


class Model:
    """The network in PyTorch; it takes numbanet's tensors, and computes without gradients in evaluation mode."""

    def __init__(self, widths: Sequence[int]) -> None:
        from torch import channels_last, nn

        def conv(channels_in: int, channels_out: int) -> nn.Module:
            return nn.Conv2d(channels_in, channels_out, 3, padding="same", bias=False)

        def norm(channels: int) -> nn.Module:
            layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
            layer.weight.requires_grad = False
            return layer

        def block(channels_in: int, channels_out: int) -> nn.Module:
            first = {"conv1": conv(channels_in, channels_out), "pool": nn.MaxPool2d(2), "norm1": norm(channels_out)}
            second = {"conv2": conv(channels_out, channels_out), "norm2": norm(channels_out)}
            return nn.Sequential(OrderedDict({**first, "gelu1": nn.GELU(), **second, "gelu2": nn.GELU()}))

        blocks = nn.Sequential(*(block(c, k) for c, k in zip((24, *widths), widths)))
        head = {"pool": nn.MaxPool2d(3), "flatten": nn.Flatten(), "head": nn.Linear(widths[-1], 10, bias=False)}
        layers = {"whiten": nn.Conv2d(3, 24, 2), "gelu": nn.GELU(), "blocks": blocks, **head}
        self.net = nn.Sequential(OrderedDict(layers)).to(memory_format=channels_last)
        self.net.whiten.weight.requires_grad = False

    def __call__(self, images: nnet.Tensor) -> Any:
        import torch

        with torch.set_grad_enabled(self.net.training):
            return self.net(torch.tensor(images.data)) / 9

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)


class TorchTraining(fast.Training):
    """A training whose model and optimizer are PyTorch's; it can't be resumed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        import torch

        super().__init__(*args, **options)
        weights = {name: torch.tensor(value) for name, value in self.model.state_dict().items()}
        self.model = Model([block.norm2.num_features for block in self.model.blocks])
        self.model.load_state_dict(weights)
        self.slow = {name: value for name, value in weights.items() if value.is_floating_point()}
        self.optimizer = fast.make_optimizer(self.model, self.loader.batch_size, torch.optim.SGD)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.schedule.lr_lambdas[0])

    def loss(self, images: nnet.Tensor, labels: nnet.Tensor) -> Any:
        import torch

        options: dict[str, Any] = {"label_smoothing": 0.2, "reduction": "sum"}
        return torch.nn.functional.cross_entropy(self.model(images), torch.tensor(labels.data), **options)

    def save(self) -> None:
        log = {"settings": self.settings, "rows": self.rows}
        io.write_atomically(self.out / "log.json", json.dumps(log, indent=1).encode())


def compare(ours: Any, theirs: Any, steps: int) -> None:
    """Make steps in turn; print the seconds, their ratio and how far the losses are apart."""
    times, losses = np.zeros((2, steps + 1)), np.zeros((2, steps + 1))
    epochs = itertools.chain.from_iterable(itertools.repeat(ours.loader))
    for i, batch in enumerate(itertools.islice(epochs, steps + 1)):
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
    import torch

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
