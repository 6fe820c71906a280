"""An interrupted training goes on, bit for bit, as if nothing had happened."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from numbanet import functional as F
from numbanet import io, train
from numbanet.train.history import History
from tests.tiny import comparable, final_state


def interrupting(call: int) -> Any:
    """A cross-entropy at whose `call`-th call Ctrl-C is pressed."""
    calls = iter(range(1, 1000))

    def loss(logits: Any, labels: Any) -> Any:
        if next(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(logits, labels)

    return loss


# An epoch is four batches of training, then three of testing.
@pytest.mark.parametrize(
    ("call", "epoch", "batches"),
    [(1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 1, 4), (7, 1, 4), (9, 2, 2), (18, 3, 4), (21, 3, 4)],
)
def test_resumed_equals_uninterrupted(remake: Any, tmp_path: Path, call: int, epoch: int, batches: int) -> None:
    whole = remake().fit(tmp_path / "whole")
    place = f"interrupted in epoch {epoch} of 3, after {batches} of 4 batches; saved to .*last.safetensors"
    with pytest.raises(train.Interrupted, match=place):
        remake().fit(tmp_path / "parts", loss=interrupting(call))
    assert len(History.read(tmp_path / "parts")) == epoch - 1
    resumed = remake().fit(tmp_path / "parts", resume=True)
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    assert comparable(resumed.to_list()) == comparable(whole.to_list())
    assert [r.epoch for r in resumed] == [1, 2, 3]


def test_interrupted_again_and_again(remake: Any, tmp_path: Path) -> None:
    remake().fit(tmp_path / "whole")
    with pytest.raises(train.Interrupted):
        remake().fit(tmp_path / "parts", loss=interrupting(1))
    for _ in range(7):
        with pytest.raises(train.Interrupted):
            remake().fit(tmp_path / "parts", loss=interrupting(2), resume=True)
    remake().fit(tmp_path / "parts", resume=True)
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")


def test_no_epoch_is_logged_twice_after_a_crash(remake: Any, tmp_path: Path) -> None:
    def keep(record: train.EpochRecord, model: Any) -> None:
        shutil.copy(tmp_path / "last.safetensors", tmp_path / f"after-{record.epoch}")

    remake().fit(tmp_path, callbacks=[keep])
    shutil.copy(tmp_path / "after-1", tmp_path / "last.safetensors")  # the power failed before epoch 2 was saved
    remake().fit(tmp_path, resume=True)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    with (tmp_path / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["test_loss"]) == json.loads(lines[-1])["test_loss"]
    assert final_state(tmp_path) == comparable(io.load_state(tmp_path / "after-3"))


def test_a_finished_training_is_resumed_without_a_step(remake: Any, tmp_path: Path) -> None:
    history = remake().fit(tmp_path)
    before = final_state(tmp_path)
    assert remake().fit(tmp_path, resume=True).to_list() == history.to_list()
    assert final_state(tmp_path) == before


def test_a_second_interrupt_ends_at_once(tiny: Any, tmp_path: Path) -> None:
    def loss(logits: Any, labels: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second Ctrl-C was ignored")

    with pytest.raises(train.Interrupted, match="after 0 of 4 batches, at once; nothing was saved"):
        tiny.fit(tmp_path, loss=loss)
    assert not (tmp_path / "last.safetensors").exists()


def test_the_handler_is_put_back(tiny: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    tiny.fit(None, epochs=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_without_a_folder_says_that_nothing_was_saved(tiny: Any) -> None:
    with pytest.raises(train.Interrupted, match="nothing was saved"):
        tiny.fit(None, loss=interrupting(2))


def test_in_another_thread(tiny: Any) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(tiny.fit(None, epochs=1)))
    thread.start()
    thread.join()
    assert len(results[0]) == 1


def test_what_cannot_be_resumed(remake: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume=True needs out"):
        remake().fit(None, resume=True)
    with pytest.raises(FileNotFoundError, match="no training to resume in"):
        remake().fit(tmp_path, resume=True)
    remake().fit(tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"last\.safetensors: does not fit this training: epochs: .* has 1, got 3"):
        remake().fit(tmp_path, resume=True)
    with pytest.raises(ValueError, match="schedule: the training to resume and this one must both have one"):
        remake().fit(tmp_path, epochs=1, schedule=None, resume=True)
    other = remake()
    other.loader.batch_size = 7
    with pytest.raises(ValueError, match="does not fit this training: .*batch_size 8"):
        other.fit(tmp_path, epochs=1, resume=True)
    path = tmp_path / "last.safetensors"
    state = io.load_state(path)
    for batch, words in ((5, "batch must be at most 4, got 5"), (-1, "batch must be at least 0, got -1")):
        io.save_state(path, {**state, "batch": batch})
        with pytest.raises(ValueError, match=rf"last\.safetensors: .*{words}"):
            remake().fit(tmp_path, epochs=1, resume=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"last\.safetensors: truncated"):
        remake().fit(tmp_path, epochs=1, resume=True)
