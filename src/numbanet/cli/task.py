"""What a training of the command line consists of, built from a few plain settings that its checkpoints keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from numbanet import data, models, nn, optim, random
from numbanet.cli.runs import newest_checkpoint
from numbanet.io import load_state
from numbanet.problem.base import choice
from numbanet.train.recipes import MODELS, Recipe, make_augmentation, make_optimizer, make_schedule
from numbanet.train.run import LAST_NAME

DATASETS = tuple(MODELS)
DEFAULT_FOLDER = "datasets"
CHECKPOINT_HELP = "file, or folder of a training, then its last.safetensors (default: the newest below runs)"
_TEST_BATCH = 250
_STATE = {"model": dict, "history": list}
_MAX_PIXELS = 1 << 22  # numbers of an image that a checkpoint may ask for


def _numbers(value: Any, low: float) -> bool:
    return isinstance(value, list) and all(
        type(x) in (int, float) and low < x < math.inf and (type(x) is float or abs(x) < 1 << 63) for x in value
    )


def _image_shape(value: Any) -> bool:
    sizes = isinstance(value, list) and len(value) == 3 and all(type(size) is int and size > 0 for size in value)
    return sizes and math.prod(value) <= _MAX_PIXELS


# What a checkpoint must tell, and what its values must be.
_FACTS: dict[str, Callable[[Any], bool]] = {
    "model": lambda value: isinstance(value, str),
    "data": lambda value: isinstance(value, str),
    "data_dir": lambda value: isinstance(value, str),
    "classes": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "image_shape": _image_shape,
    "mean": lambda value: _numbers(value, -math.inf),
    "std": lambda value: _numbers(value, 0),
}


@dataclass(frozen=True)
class Task:
    """The settings of a training.

    Attributes
    ----------
    data, data_dir, model : str
    seed : int
        Of the first weights, of the order of the images and of their augmentation.
    recipe : Recipe
    """

    data: str
    data_dir: str
    model: str
    seed: int
    recipe: Recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a flat dictionary."""
        return {name: value for name, value in asdict(self).items() if name != "recipe"} | asdict(self.recipe)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Task:
        """Return the settings that `to_dict` gave."""
        names = [field.name for field in fields(Recipe)]
        own = {name: value for name, value in settings.items() if name not in names}
        return cls(**own, recipe=Recipe(**{name: settings[name] for name in names}))


@dataclass(frozen=True)
class Setup:
    """A task's objects, ready for `numbanet.train.fit`; `facts` is what a checkpoint must tell to use its model."""

    model: nn.Module
    optimizer: optim.Optimizer
    schedule: optim.lr_scheduler.OneCycleLR
    train_loader: data.DataLoader
    test_loader: data.DataLoader
    facts: dict[str, Any]


def load_data(name: str, folder: str, train: bool, download: bool = False) -> data.Dataset:
    """Return a data set by its name.

    Raises
    ------
    FileNotFoundError, ValueError
        If files are missing or damaged; the message tells how to name another folder.
    """
    readers = {"mnist": data.mnist, "cifar10": data.cifar10, "cifar100": data.cifar100}
    if choice("data", name, DATASETS) == "digits":
        return data.load_digits(train)
    try:
        return readers[name](folder, train, download)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}: name the folder with --data-dir, or add --download") from None


def build_model(facts: dict[str, Any]) -> nn.Module:
    """Return the (untrained) model that a checkpoint's facts describe."""
    channels, height, width = facts["image_shape"]
    return models.get(facts["model"], len(facts["classes"]), channels, (height, width))


def prepare(task: Task, download: bool = False) -> Setup:
    """Read the data and build model, optimizer, schedule and loaders."""
    train = load_data(task.data, task.data_dir, True, download)
    test = load_data(task.data, task.data_dir, False, download)
    mean, std = data.channel_statistics(train)
    facts = {
        "model": task.model, "data": task.data, "data_dir": task.data_dir, "classes": list(train.classes),
        "image_shape": list(train.images.shape[1:]), "mean": list(mean), "std": list(std),
    }  # fmt: skip
    random.manual_seed(task.seed)
    try:
        model = build_model(facts)
    except ValueError as error:
        size = "x".join(map(str, facts["image_shape"]))
        raise ValueError(f"--model {task.model} does not fit {task.data}, images of {size}: {error}") from error
    loader = data.DataLoader(
        train, task.recipe.batch_size, shuffle=True, generator=np.random.default_rng(task.seed),
        augment=make_augmentation(task.recipe, mean, std),
    )  # fmt: skip
    optimizer = make_optimizer(task.recipe, model.parameters())
    schedule = make_schedule(task.recipe, optimizer, len(loader))
    return Setup(model, optimizer, schedule, loader, test_loader(test, facts), facts)


def test_loader(dataset: data.Dataset, facts: dict[str, Any]) -> data.DataLoader:
    """Return the loader of a test set, with the normalisation of the checkpoint's facts."""
    return data.DataLoader(dataset, _TEST_BATCH, augment=data.Normalize(facts["mean"], facts["std"]))


def checkpoint_file(path: str | Path | None) -> Path:
    """Return a checkpoint's file: the path, or the last checkpoint in the folder that it names, or the newest."""
    if path is None:
        return newest_checkpoint()
    return Path(path) / LAST_NAME if Path(path).is_dir() else Path(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint of ``numbanet train``.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, damaged, or of another origin; the message names it.
    """
    try:
        state = load_state(path)
        facts = state["metadata"]["facts"]
        missing = [name for name, fits in _FACTS.items() if not fits(facts[name])]
        if not missing and not len(facts["mean"]) == len(facts["std"]) == facts["image_shape"][0]:
            missing = ["mean", "std"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: was not written by 'numbanet train': it does not tell its model ({error})") from None
    missing += [name for name, kind in _STATE.items() if not isinstance(state.get(name), kind)]
    if missing:
        raise ValueError(f"{path}: was not written by 'numbanet train': its {' and '.join(missing)} can't be used")
    return state


def trained_model(path: Path, state: dict[str, Any]) -> nn.Module:
    """Return the model of a checkpoint that `read_checkpoint` read; ValueError if its parts do not fit each other."""
    try:
        with nn.parameter.at_most(sum(np.size(value) for value in state["model"].values())):
            model = build_model(state["metadata"]["facts"])
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())  # on one line
        raise ValueError(f"{path}: its model can't be restored: {reason}") from error
    return model
