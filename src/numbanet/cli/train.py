"""``numbanet train``."""

from __future__ import annotations

import argparse
import shlex
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from numbanet.cli.options import add_engine_options, apply_engine_options, at_least, positive_float
from numbanet.cli.runs import new_folder, newest_checkpoint
from numbanet.cli.task import DATASETS, DEFAULT_FOLDER, Setup, Task, prepare, read_checkpoint
from numbanet.train.progress import clock
from numbanet.train.recipes import MODELS, OPTIMIZERS, OTHERS, RECIPES, recipe
from numbanet.train.run import LAST_NAME, dropped_if_unused

HELP = "train a network; with --data digits nothing need be downloaded"
_COLUMNS = "{:9} {:10} {:>6} {:>10} {:9} {:>5} {:>12}"
_RECIPE_OPTIONS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay")


def description() -> str:
    """Return what --help says first: the recipes, which are the defaults of their options."""
    rows = [*RECIPES.items(), *(((dataset, "others"), found) for dataset, found in OTHERS.items())]
    table = [_COLUMNS.format("data", "model", *(name.replace("_", "-") for name in _RECIPE_OPTIONS))]
    for names, found in sorted(rows, key=lambda row: DATASETS.index(row[0][0])):
        table.append(_COLUMNS.format(*names, *(getattr(found, name) for name in _RECIPE_OPTIONS)))
    return f"{HELP.capitalize()}. The recipes:\n\n" + "\n".join(f"    {line}" for line in table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from numbanet import models

    add = parser.add_argument
    add("--data", choices=DATASETS, help="data set (default: digits, which is part of the package)")
    add("--data-dir", metavar="DIR", help=f"folder of the data set's official files (default: {DEFAULT_FOLDER})")
    add("--download", action="store_true", help="fetch the files that are missing from --data-dir")
    add("--model", choices=models.names(), help="network (default: the data set's own)")
    add("--epochs", type=at_least(1), help="times to go through all training images (default: the recipe's)")
    add("--batch-size", type=at_least(1), help="images of a step (default: the recipe's)")
    add("--optimizer", choices=OPTIMIZERS, help="sgd has Nesterov momentum (default: the recipe's)")
    add("--lr", type=positive_float, help="highest learning rate of the one-cycle schedule (default: the recipe's)")
    add("--weight-decay", type=float, help="how much a step shrinks the weights (default: the recipe's)")
    add("--seed", type=at_least(0), help="of weights, order and augmentation (default: 0)")
    add("--out", metavar="DIR", help="folder for checkpoints and logs (default: a new one, runs/DATA-MODEL)")
    add("--resume", action="store_true", help="go on with a training: that in --out, else the newest below runs")
    add("--capture", action=argparse.BooleanOptionalAction, default=True,
        help="replay steps: faster, but the first ones take more memory")  # fmt: skip
    add("--progress", choices=("auto", "bar", "lines", "off"), default="auto",
        help="auto (the default): a bar on a terminal, else a line an epoch")  # fmt: skip
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and print the last epoch's test accuracy."""
    apply_engine_options(args)
    folder = _folder(args)
    if folder is not None and args.resume:
        task, facts = _resumed_task(folder, args)
    else:
        task, facts = _new_task(args), None
    setup = prepare(task, args.download)
    if facts is not None and facts["classes"] != setup.facts["classes"]:
        raise ValueError(f"{folder}: the training had the classes {facts['classes']}, the data have others")
    with nullcontext(folder) if folder is not None else dropped_if_unused(new_folder(task.data, task.model)) as folder:
        _train(task, setup, folder, args)
    return 0


def _train(task: Task, setup: Setup, folder: Path, args: argparse.Namespace) -> None:
    from numbanet import train

    _introduce(task, setup, folder)
    began = time.perf_counter()
    try:
        history = train.fit(
            setup.model, setup.optimizer, setup.train_loader, setup.test_loader, epochs=task.recipe.epochs,
            schedule=setup.schedule, schedule_each="step", out=folder, resume=args.resume, progress=args.progress,
            metadata={"facts": setup.facts, "task": task.to_dict()}, captured=args.capture,
        )  # fmt: skip
    except train.Interrupted as error:
        command = f"numbanet train --resume --out {shlex.quote(str(folder))}"
        raise train.Interrupted(str(error).replace("resume=True", command)) from None
    last, best = history[-1], history.best
    assert best is not None
    took = clock(time.perf_counter() - began) + (" since it was resumed" if args.resume else "")
    print(f"done in {took}: test accuracy after epoch {last.epoch}: {last.score:.2%}", end=" ")
    print(f"(best: {best.score:.2%} after epoch {best.epoch})")
    print(f"checkpoints and logs: {folder}")


def _folder(args: argparse.Namespace) -> Path | None:
    """Return the folder of the training, None for a new one; a training that is there already is never overwritten."""
    if args.out is not None:
        folder = Path(args.out)
        if not args.resume and (folder / LAST_NAME).exists():
            raise ValueError(
                f"{folder} holds a training: add --resume to go on with it, or name another folder (--out)"
            )
        return folder
    return newest_checkpoint(args.data, args.model).parent if args.resume else None


def _new_task(args: argparse.Namespace) -> Task:
    dataset = args.data or "digits"
    model = args.model or MODELS[dataset]
    given = {name: getattr(args, name) for name in _RECIPE_OPTIONS if getattr(args, name) is not None}
    return Task(
        dataset, args.data_dir or DEFAULT_FOLDER, model, args.seed or 0, replace(recipe(dataset, model), **given)
    )


def _resumed_task(folder: Path, args: argparse.Namespace) -> tuple[Task, dict[str, Any]]:
    """Return the settings that the training was begun with; options that contradict them are an error."""
    path = folder / LAST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no training to resume in {folder}")
    metadata = read_checkpoint(path)["metadata"]
    try:
        task = Task.from_dict(metadata["task"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: does not tell how it was trained: {error}") from None
    for name in ("data", "model", "seed", *_RECIPE_OPTIONS):
        given, known = getattr(args, name), task.to_dict()[name]
        if given is not None and given != known:
            why = ", its learning rates lead to that end: train longer in another folder" if name == "epochs" else ""
            raise ValueError(
                f"--{name.replace('_', '-')} {given}: the training in {folder} was begun with {known}{why}"
            )
    return (task if args.data_dir is None else replace(task, data_dir=args.data_dir)), metadata["facts"]


def _introduce(task: Task, setup: Setup, folder: Path) -> None:
    parameters = sum(p.numel() for p in setup.model.parameters())
    counts = len(setup.train_loader.dataset), len(setup.test_loader.dataset)
    chosen = task.recipe
    print(
        f"{task.data}: {counts[0]:,} images to train on, {counts[1]:,} to test, {len(setup.facts['classes'])} classes"
    )
    print(
        f"{task.model}: {parameters:,} parameters; {chosen.epochs} epochs, batches of {chosen.batch_size}, "
        f"{chosen.optimizer}, learning rates up to {chosen.lr:g}; Ctrl-C saves to {folder}",
        flush=True,
    )
