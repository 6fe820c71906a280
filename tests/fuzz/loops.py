"""The table of numbanet.train and numbanet.viz: a linear classifier is trained, and its figures are kept and drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from numbanet import nn, optim, train, viz
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line
from tests.fuzz.choices import listed
from tests.fuzz.files import same

# ------------------------------------------------------------------------------------------------ training


def _network(weight: Any, bias: Any) -> nn.Module:
    if not isinstance(weight, np.ndarray) or not isinstance(bias, np.ndarray):
        raise TypeError("weight and bias must be arrays")
    network = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[-1], len(weight)))
    if weight.dtype == np.float64:
        network.double()
    network.load_state_dict({"1.weight": weight, "1.bias": bias})
    return network


def _batches(images: Any, labels: Any) -> Any:
    """Return batches, or what stands in their place; nested lists are of float32, which the definition is not."""
    if isinstance(images, (list, tuple)):
        images = [np.array(x) if isinstance(x, list) and x else x for x in images]
    if isinstance(images, (list, tuple)) and isinstance(labels, (list, tuple)):
        return list(zip(images, labels))
    return images


def _examples(d: Draw) -> Call:
    """Draw batches of images, their labels, and the weight and bias of a classifier."""
    shape, classes = (d.integer(1, 2), d.integer(1, 3), d.integer(1, 3)), d.integer(2, 4)
    counts = [d.integer(1, 4) for _ in range(d.integer(1, 3))]
    images = [d.floats((n, *shape), -1, 1) for n in counts]
    labels = [d.integers((n,), 0, classes - 1, d.pick("int64", "uint8")) for n in counts]
    return (images, labels, d.floats((classes, int(np.prod(shape))), -1, 1), d.floats((classes,), -1, 1)), {}


def _evaluated(images: Any, labels: Any, weight: Any, bias: Any) -> Any:
    network, seen = _network(weight, bias), []
    meter = train.evaluate(network, _batches(images, labels), None, lambda meter: seen.append(meter.images))
    return [meter.images, meter.loss, meter.accuracy, seen, network.training]


_evaluated.about = train.evaluate  # type: ignore[attr-defined]


def _scores(images: Any, weight: Any, bias: Any) -> Any:
    logits = np.reshape(images, (len(images), -1)) @ weight.T + bias
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _figures(images: Any, labels: Any, weight: Any, bias: Any) -> tuple[int, float, int]:
    """Return images, the sum of their losses, and how many are classified correctly."""
    labels = np.asarray(labels)
    scores, rows = _scores(images, weight, bias), np.arange(len(labels))
    return len(labels), -scores[rows, labels].sum(), int((scores.argmax(1) == labels).sum())


def _by_hand(images: Any, labels: Any, weight: Any, bias: Any) -> Any:
    if not len(images) or not len(labels):
        return [0, np.nan, np.nan, [], True]
    sums = np.sum([_figures(x, y, weight, bias) for x, y in zip(images, labels)], 0)
    return [int(sums[0]), sums[1] / sums[0], sums[2] / sums[0], np.cumsum([len(y) for y in labels]).tolist(), True]


def _fitted(images: Any, labels: Any, weight: Any, bias: Any, lr: Any, tested: Any, saved: Any, **options: Any) -> Any:
    """Train with SGD; return the record of each epoch without its times, and the weights."""
    network, batches = _network(weight, bias), _batches(images, labels)
    optimizer = optim.SGD(network.parameters(), lr=lr)
    if isinstance(options.get("epochs"), int) and options["epochs"] > 50:
        raise MemoryError("nobody can wait for so many epochs")
    epochs: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        out = folder if saved is True else None if saved is False else saved
        if isinstance(out, str):  # never beside the process: another case would read it there
            out = str(Path(folder, out))
        history = train.fit(
            network, optimizer, _Loader(batches) if saved is True and isinstance(batches, list) else batches,
            batches if tested else None, out=out,
            callbacks=[lambda record, model: epochs.append(record.epoch)], progress=options.pop("progress"), **options,
        )  # fmt: skip
        if saved is True:
            assert same(train.History.read(folder).to_list(), history.to_list())
            assert history.records == [] or Path(folder, "last.safetensors").is_file()
    assert epochs == [record.epoch for record in history]
    figures = [value for record in history for value in astuple(record)[:7]]
    return [*figures, *(p.data for p in network.parameters())]


_fitted.about = train.fit  # type: ignore[attr-defined]


class _Loader(list):
    """Batches whose place in an epoch is nothing to remember."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        assert state == {}


def _training(d: Draw) -> Call:
    args, _ = _examples(d)
    return (*args, d.pick(0.1, 0.5, 1), d.chance(0.5), d.chance(0.3)), {
        "epochs": d.integer(0, 3), "clip_norm": d.pick(None, 0.5, 1), "progress": "off",
    }  # fmt: skip


def _descended(
    images: Any, labels: Any, weight: Any, bias: Any, lr: Any, tested: Any, saved: Any, *, epochs: Any, clip_norm: Any,
    progress: Any,
) -> Any:  # fmt: skip
    found: list[Any] = []
    for epoch in range(epochs):
        sums = np.zeros(3)
        for x, y in zip(images, labels):
            sums += _figures(x, y, weight, bias)
            errors = np.exp(_scores(x, weight, bias))
            errors[np.arange(len(y)), y] -= 1
            steps = [errors.T @ np.reshape(x, (len(x), -1)) / len(x), errors.sum(0) / len(x)]
            if clip_norm is not None:
                norm = np.sqrt(sum((step**2).sum() for step in steps))
                steps = [step * min(1.0, clip_norm / (norm + 1e-6)) for step in steps]
            weight, bias = weight - lr * steps[0], bias - lr * steps[1]
        test = np.sum([_figures(x, y, weight, bias) for x, y in zip(images, labels)], 0) if tested else None
        tests = [None, None] if test is None else [test[1] / test[0], test[2] / test[0]]
        found += [epoch + 1, (epoch + 1) * len(images), float(lr), sums[1] / sums[0], sums[2] / sums[0], *tests]
    return [*found, np.asarray(weight, np.float64), np.asarray(bias, np.float64)]


# ------------------------------------------------------------------------------------------------ figures


def _metered(batches: Any) -> Any:
    meter = train.Meter()
    for batch in listed("batches", batches):
        meter.add(*listed("batch", batch))
    again = train.Meter(**meter.to_dict())
    same_again = again == meter or again.loss != again.loss
    return [meter.images, meter.loss, meter.accuracy, meter.images_per_second, same_again]


_metered.about = train.Meter.add  # type: ignore[attr-defined]


def _seen(d: Draw) -> Call:
    count = d.integer(0, 4)
    return ([(d.integer(0, 9), d.number(0, 9), d.integer(0, 9), d.number(0, 1)) for _ in range(count)],), {}


def _sums(batches: Any) -> Any:
    images, seconds = sum(b[0] for b in batches), sum(sum(b[3:]) for b in batches)
    loss, correct = sum(b[0] * b[1] for b in batches), sum(b[2] for b in batches)
    means = [loss / images, correct / images] if images else [np.nan, np.nan]
    return [images, *means, images / seconds if seconds else 0.0, True]


def _rows(d: Draw) -> list[tuple[Any, ...]]:
    tested = d.chance(0.5)
    return [
        (epoch, 10 * epoch, 0.1, d.number(0, 3), d.pick(0.5, d.number(0, 1)),
         *((1.5, d.number(0, 1)) if tested else (None, None)), d.number(0, 9), d.number(0, 99))
        for epoch in range(1, d.integer(2, 5))
    ]  # fmt: skip


def _record(row: Any) -> Any:
    return train.EpochRecord(*listed("row", row))


def _made(rows: Any) -> Any:
    """Return a history of rows, or of what stands in their place."""
    if isinstance(rows, (list, tuple)):
        columns = train.EpochRecord.__dataclass_fields__
        rows = [dict(zip(columns, row)) if isinstance(row, (list, tuple)) else row for row in rows]
    return train.History.from_list(rows)


def _history(rows: Any) -> Any:
    """Keep a history as dictionaries and as files; return the best epoch, and whether it comes back."""
    made = _made(rows)
    with tempfile.TemporaryDirectory() as folder:
        made.write(folder)
        read, table = train.History.read(folder), Path(folder, "log.csv").read_text(encoding="utf-8").splitlines()
    assert made.best is not None or not rows
    return [
        made.best.epoch if made.best else 0, read == made, train.History.from_list(made.to_list()) == made,
        len(table) == len(made) + 1, [record.epoch for record in made] == [made[i].epoch for i in range(len(made))],
    ]  # fmt: skip


_history.about = train.History.from_list  # type: ignore[attr-defined]


def _best(rows: Any) -> Any:
    scores = [row[4] if row[6] is None else row[6] for row in rows]
    return [rows[int(np.argmax(scores))][0] if rows else 0, True, True, True, True]


def _plotted(rows: Any, ending: Any, title: Any) -> Any:
    """Draw a history; return the data of the curves, and whether the file is what its ending says."""
    if ending == "":
        raise ValueError("ending must be a word: the file would lie in the folder of the process")
    history = _made(rows) if isinstance(rows, (list, tuple)) else rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"curves.{ending}") if isinstance(ending, str) and ending else ending
        figure = viz.plot_history(history, path, title)
        begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
        right = path is None or path.read_bytes().startswith(begins[ending])
    curves = [np.array(line.get_data(), float) for axes in figure.axes for line in axes.lines]
    return [right, *curves, figure.get_suptitle() == (title or "")]


_plotted.about = viz.plot_history  # type: ignore[attr-defined]


def _curves(rows: Any, ending: Any, title: Any) -> Any:
    epochs = [row[0] for row in rows]
    columns = [(3, 1), (5, 1), (4, 100), (6, 100)]
    drawn = [np.array([epochs, [factor * row[i] for row in rows]]) for i, factor in columns if rows[0][i] is not None]
    return [True, *drawn, True]


def lines() -> Iterator[Line]:
    """Yield the lines of numbanet.train and numbanet.viz."""
    words = (
        "weight", "bias", "model", "loader", "images", "labels", "lr", "row", "rows", "start_dim", "records", "input",
        "target", "array",
    )  # fmt: skip
    options: dict[str, Any] = {"words": words, "also": (IndexError, RuntimeError), "tolerance": 1e-4}
    yield Line("train.evaluate", _evaluated, _examples, _by_hand, **options)
    options["also"] = (*options["also"], OSError, train.NonFiniteLoss)
    yield Line("train.fit", _fitted, _training, _descended, **options)
    for name in ("Meter", "Meter.add", "Meter.to_dict"):
        yield Line(
            f"train.{name}", _metered,
            _seen, _sums, words=(*words, "loss", "correct", "seconds", "batches", "batch"),
        )  # fmt: skip
    for name in ("History", "History.to_list", "History.from_list", "History.write", "History.read"):
        yield Line(f"train.{name}", _history, lambda d: ((_rows(d),), {}), _best, words=words)
    yield Line(
        "train.EpochRecord", lambda row: _record(row).score, lambda d: ((d.pick(*_rows(d)),), {}),
        lambda row: row[4] if row[6] is None else row[6], words=(*words, "argument"), loose=True,
    )  # fmt: skip
    yield Line(
        "viz.plot_history", _plotted,
        lambda d: ((_rows(d), d.pick(None, "png", "svg", "pdf"), d.pick(None, "a title")), {}), _curves,
        words=(*words, "epoch", "folder", "ending"), also=(OSError,),
    )  # fmt: skip
