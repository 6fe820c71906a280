"""Curves of a training: loss and accuracy over the epochs."""

from __future__ import annotations

import os
from typing import Any

from numbanet.io.paths import as_path
from numbanet.train.history import History

_TRAIN, _TEST = "#8a97a6", "#d1495b"


def plot_history(
    history: History | str | os.PathLike[str], path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Any:
    """Draw loss and accuracy over the epochs of a training.

    Parameters
    ----------
    history : History or path
        What `numbanet.train.fit` returned, or the folder that it wrote.
    path : path, optional
        Write the figure to this file; its ending (``.png``, ``.svg``, ``.pdf``) says how.
    title : str, optional
        Stands above the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot: it opens no window and needs no closing.

    Raises
    ------
    ImportError
        Without matplotlib; the message says how to install it.
    TypeError
        If a path is none, or the title is no string.
    FileNotFoundError
        If the folder holds no log.
    ValueError
        If no epoch is over yet, or the file's ending is unknown.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "numbanet[viz]"') from error
    if not isinstance(title, str | None):
        raise TypeError(f"title must be a string, got {title!r}")
    target = None if path is None else as_path("path", path)
    records = history if isinstance(history, History) else History.read(as_path("history", history))
    if not records:
        raise ValueError("history has no epoch to draw")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    _draw(losses, records, "loss", 1)
    _draw(accuracies, records, "accuracy", 100)
    losses.set_ylabel("loss")
    losses.set_ylim(bottom=0)
    accuracies.set_ylabel("accuracy (%)")
    last = records[-1].test_accuracy
    if last is not None:
        accuracies.set_title(f"test accuracy after epoch {records[-1].epoch}: {last:.2%}", fontsize="medium")
    if title:
        figure.suptitle(title)
    if target is not None:
        try:
            figure.savefig(target, dpi=150)
        except ValueError as error:  # of an ending that no writer has
            raise ValueError(f"path {str(target)!r} can't be drawn to: {error}") from None
    return figure


def _draw(axes: Any, records: History, name: str, factor: float) -> None:
    """Draw the train and the test curve of one figure over the epochs."""
    epochs = [record.epoch for record in records]
    for kind, color in (("train", _TRAIN), ("test", _TEST)):
        values = [getattr(record, f"{kind}_{name}") for record in records]
        if values[0] is not None:
            axes.plot(epochs, [factor * v for v in values], color=color, marker=".", markersize=4, label=kind)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
