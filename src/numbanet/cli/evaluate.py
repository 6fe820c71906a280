"""``numbanet eval``."""

from __future__ import annotations

import argparse

from numbanet.cli.options import add_engine_options, apply_engine_options
from numbanet.cli.task import (
    CHECKPOINT_HELP,
    DATASETS,
    checkpoint_file,
    load_data,
    read_checkpoint,
    test_loader,
    trained_model,
)

HELP = "print the test accuracy of a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    parser.add_argument("--data", choices=DATASETS, help="data set (default: the one that it was trained on)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data set (default: the one of the training)")
    parser.add_argument("--train-set", action="store_true", help="evaluate the training images instead")
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print loss and accuracy."""
    from numbanet import train

    apply_engine_options(args)
    path = checkpoint_file(args.checkpoint)
    state = read_checkpoint(path)
    facts = state["metadata"]["facts"]
    name = args.data or facts["data"]
    dataset = load_data(name, args.data_dir or facts["data_dir"], args.train_set)
    if list(dataset.images.shape[1:]) != facts["image_shape"] or len(dataset.classes) != len(facts["classes"]):
        raise ValueError(
            f"{path}: its model takes images of shape {tuple(facts['image_shape'])} in {len(facts['classes'])} "
            f"classes, {name} has {dataset.images.shape[1:]} in {len(dataset.classes)}"
        )
    model = trained_model(path, state)
    result = train.evaluate(model, test_loader(dataset, facts))
    kind = "training" if args.train_set else "test"
    print(f"{path}: {facts['model']} after epoch {len(state['history'])}")
    print(f"{name}, {result.images:,} {kind} images: loss {result.loss:.4f}, accuracy {result.accuracy:.2%}")
    return 0
