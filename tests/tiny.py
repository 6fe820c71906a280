"""A training that takes no time: four batches of tiny images, and a network with every kind of state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from numbanet import data, io, nn, optim, random, train

_TIMES = ("seconds", "images_per_second")
EPOCHS = 3


@dataclass
class Tiny:
    """The arguments of a fit, made anew as a new process would make them."""

    model: nn.Module
    optimizer: optim.Optimizer
    loader: data.DataLoader
    test: data.DataLoader
    schedule: Any

    def fit(self, out: Path | None, **options: Any) -> train.History:
        """Run the training."""
        options = {"epochs": EPOCHS, "progress": "off", "schedule": self.schedule, "schedule_each": "step", **options}
        return train.fit(self.model, self.optimizer, self.loader, self.test, out=out, **options)


def images(count: int, seed: int) -> data.Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    pixels = rng.integers(100, size=(count, 2, 6, 6), dtype=np.uint8)
    pixels[np.arange(count), 0, labels * 2, :] += 100  # a bright row tells the class
    return data.Dataset(pixels, labels, ("top", "middle", "bottom"))


def make(epochs: int = EPOCHS) -> Tiny:
    random.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(36, 3),
    )  # fmt: skip
    optimizer = optim.SGD(model.parameters(), 0.05, momentum=0.9)
    augment = [data.RandomHorizontalFlip(), data.Normalize((0.3, 0.3), (0.2, 0.2))]
    loader = data.DataLoader(images(30, 1), 8, True, np.random.default_rng(3), augment)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=4 * epochs)
    return Tiny(model, optimizer, loader, data.DataLoader(images(20, 2), 8, augment=augment[1]), schedule)


def weights(model: nn.Module) -> list[np.ndarray]:
    """Return copies of the parameters on the host."""
    return [p.detach().cpu().numpy().copy() for p in model.parameters()]


def comparable(value: Any) -> Any:
    """Return a state without times, with arrays as bytes, so that == compares every bit."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key not in _TIMES}
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def final_state(folder: Path) -> Any:
    """Return the last checkpoint of a training, comparable."""
    return comparable(io.load_state(folder / "last.safetensors"))
