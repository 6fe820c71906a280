"""How each data set is trained unless told otherwise: one table, and what is built from a row of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numbanet import data, optim
from numbanet.problem.base import choice

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. The learning rate goes up to `lr` and down to nothing in one cycle over all steps.

    Attributes
    ----------
    epochs, batch_size : int
    optimizer : {"sgd", "adam", "adamw", "rmsprop"}
        ``"sgd"`` has Nesterov momentum.
    lr : float
        The highest learning rate.
    weight_decay : float
    flip : bool
        Mirror half of the training images.
    shift : int
        Move training images by up to so many pixels.
    """

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    flip: bool = False
    shift: int = 0


MODELS = {"digits": "digits", "mnist": "lenet5", "cifar10": "convnetjs", "cifar100": "resnet20"}
"""The model of each data set, where none is named."""

RECIPES = {
    ("digits", "digits"): Recipe(20, 32, "adamw", 3e-3, 1e-2),
    ("mnist", "lenet5"): Recipe(8, 64, "sgd", 0.05, 5e-4, shift=1),
    ("cifar10", "convnetjs"): Recipe(12, 64, "sgd", 0.02, 5e-4, flip=True),
    ("cifar10", "resnet20"): Recipe(30, 128, "sgd", 0.2, 5e-4, flip=True, shift=4),
    ("cifar100", "resnet20"): Recipe(30, 128, "sgd", 0.2, 5e-4, flip=True, shift=4),
}

OTHERS = {
    "digits": Recipe(30, 32, "adamw", 2e-3, 1e-2, shift=1),
    "mnist": Recipe(12, 64, "adamw", 2e-3, 1e-2, shift=1),
    "cifar10": Recipe(30, 64, "adamw", 2e-3, 1e-2, flip=True, shift=2),
    "cifar100": Recipe(30, 64, "adamw", 2e-3, 1e-2, flip=True, shift=2),
}
"""Those of the other models."""


def recipe(dataset: str, model: str) -> Recipe:
    """Return the settings for a data set and a model: the table's, else those that suit the data set.

    Raises
    ------
    ValueError
        If there is no such data set.
    """
    choice("dataset", dataset, tuple(MODELS))
    return RECIPES.get((dataset, model), OTHERS[dataset])


def make_optimizer(recipe: Recipe, parameters: Any) -> optim.Optimizer:
    """Return the recipe's optimizer for some parameters; ValueError for an unknown name."""
    name, lr, decay = choice("optimizer", recipe.optimizer, OPTIMIZERS), recipe.lr, recipe.weight_decay
    if name == "sgd":
        return optim.SGD(parameters, lr, momentum=0.9, weight_decay=decay, nesterov=True)
    if name == "adam":
        return optim.Adam(parameters, lr, weight_decay=decay)
    if name == "adamw":
        return optim.AdamW(parameters, lr, weight_decay=decay)
    return optim.RMSprop(parameters, lr, weight_decay=decay)


def make_schedule(recipe: Recipe, optimizer: optim.Optimizer, steps_per_epoch: int) -> optim.lr_scheduler.OneCycleLR:
    """Return the recipe's schedule, which advances with each step (Smith and Topin, 2017)."""
    # RMSprop has no momentum to cycle here.
    return optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=max(1, recipe.epochs * steps_per_epoch), pct_start=0.2,
        cycle_momentum=recipe.optimizer != "rmsprop",
    )  # fmt: skip


def make_augmentation(recipe: Recipe, mean: Sequence[float], std: Sequence[float]) -> list[data.Augmentation]:
    """Return what happens to training images: the recipe's changes, and the normalisation that test images get too."""
    steps: list[data.Augmentation] = []
    if recipe.flip:
        steps.append(data.RandomHorizontalFlip())
    if recipe.shift:
        steps.append(data.RandomShift(recipe.shift))
    steps.append(data.Normalize(mean, std))
    return steps
