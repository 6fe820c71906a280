"""What each epoch came to, in memory and as log files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from numbanet.io.atomic import write_atomically
from numbanet.io.paths import as_path

CSV_NAME, JSONL_NAME = "log.csv", "log.jsonl"


@dataclass(frozen=True)
class EpochRecord:
    """The figures of one epoch.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    step : int
        Optimizer steps since the start of the training.
    lr : float
        Learning rate of the first parameter group at the end of the epoch's last step.
    train_loss, train_accuracy : float
        Means over the epoch's images as they were trained on: with augmentation, while the weights changed.
    test_loss, test_accuracy : float or None
        Of the test images after the epoch; None without a test set.
    seconds, images_per_second : float
        Time of training alone, without the evaluation.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    seconds: float
    images_per_second: float

    @property
    def score(self) -> float:
        """The accuracy that decides which epoch was best: of the test images where there are some."""
        return self.train_accuracy if self.test_accuracy is None else self.test_accuracy


@dataclass
class History:
    """The records of a training, oldest first."""

    records: list[EpochRecord] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    @property
    def best(self) -> EpochRecord | None:
        """The record with the highest accuracy, the earliest of equals; None before the first epoch's end."""
        return max(self.records, key=lambda record: record.score, default=None)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the records as plain dictionaries."""
        return [asdict(record) for record in self.records]

    @classmethod
    def from_list(cls, rows: Iterable[dict[str, Any]]) -> History:
        """Return the history that `to_list` gave.

        Raises
        ------
        TypeError
            If a row is not a record: names or types differ.
        """
        if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
            raise TypeError(f"rows must be dictionaries, got {rows!r}")
        return cls([_record(row) for row in rows])

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``log.csv`` and ``log.jsonl`` into a folder, whole, so that no epoch appears twice."""
        folder, text = as_path("folder", folder), io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.to_list())
        write_atomically(folder / CSV_NAME, text.getvalue().encode())
        lines = "".join(json.dumps(row) + "\n" for row in self.to_list())
        write_atomically(folder / JSONL_NAME, lines.encode())

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> History:
        """Read ``log.jsonl`` from the folder of a training.

        Raises
        ------
        FileNotFoundError
            If the folder holds none.
        ValueError
            If a line of it is not a record; the message names the file and the line.
        """
        path = as_path("folder", folder) / JSONL_NAME
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file: {os.fspath(folder)} is not the folder of a training")
        records = []
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                records.append(_record(json.loads(line.decode())))
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"{path}: line {number} is not a record of an epoch: {error}") from None
        return cls(records)


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "float | None": (int, float, type(None))}


def _record(row: Any) -> EpochRecord:
    """Return the record that a dictionary describes; TypeError if names or types are others."""
    if not isinstance(row, dict):
        raise TypeError(f"a row must be a dictionary, got {row!r}")
    record = EpochRecord(**row)
    for entry in fields(record):
        value = getattr(record, entry.name)
        if not isinstance(value, _KINDS[str(entry.type)]) or isinstance(value, bool):
            raise TypeError(f"{entry.name} must be of type {entry.type}, got {value!r}")
    return record
