"""The training loop: it learns, records, keeps the best, and stops where it must."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import data, get_num_threads, io, nn, optim, set_num_threads, train
from numbanet import functional as F
from numbanet.amp import GradScaler
from numbanet.creation import tensor
from numbanet.tape import is_grad_enabled
from numbanet.train.run import dropped_if_unused
from tests.tiny import weights


def test_it_learns_and_reports_the_last_epoch(tiny: Any) -> None:
    history = tiny.fit(None, epochs=12, schedule=None)
    assert [record.epoch for record in history] == list(range(1, 13))
    assert [record.step for record in history] == list(range(4, 49, 4))
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].score == history[-1].test_accuracy
    assert history[-1].test_accuracy == train.evaluate(tiny.model, tiny.test).accuracy
    assert history[-1].test_accuracy > 0.6  # chance gives a third
    assert all(record.seconds > 0 and record.images_per_second > 0 for record in history)


def test_evaluate_is_the_definition(tiny: Any) -> None:
    tiny.fit(None, epochs=1)
    tiny.model.train()
    meter = train.evaluate(tiny.model, tiny.test)
    assert tiny.model.training
    tiny.model.eval()
    images, labels = (np.concatenate(parts) for parts in zip(*tiny.test, strict=True))
    logits = tiny.model(tensor(images)).detach().cpu().numpy().astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    assert meter.images == len(labels) == 20
    assert meter.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert meter.accuracy == np.mean(logits.argmax(1) == labels)


def test_evaluate_records_nothing_and_restores_the_mode_after_an_error(tiny: Any) -> None:
    def loss(logits: Any, labels: Any) -> Any:
        assert not is_grad_enabled() and not tiny.model.training
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train.evaluate(tiny.model, tiny.test, loss)
    assert tiny.model.training and is_grad_enabled()


def test_evaluate_leaves_frozen_layers_as_they_were(tiny: Any) -> None:
    tiny.model.train()
    tiny.model[1].eval()
    train.evaluate(tiny.model, tiny.test)
    assert [layer.training for layer in tiny.model] == [True, False, True, True, True, True, True]


def test_best_and_last_checkpoint(tiny: Any, tmp_path: Path) -> None:
    history = tiny.fit(tmp_path, epochs=6, schedule=None, metadata={"note": [1, "two"]})
    best, last = (io.load_state(tmp_path / f"{name}.safetensors") for name in ("best", "last"))
    scores = [record.score for record in history]
    assert len(best["history"]) == scores.index(max(scores)) + 1
    assert len(last["history"]) == 6
    assert best["best_accuracy"] == last["best_accuracy"] == max(scores) == history.best.score
    assert last["metadata"] == {"note": [1, "two"]}
    io.load_model(tiny.model, tmp_path / "best.safetensors")
    assert train.evaluate(tiny.model, tiny.test).accuracy == max(scores)


def test_callbacks_come_after_the_checkpoint(tiny: Any, tmp_path: Path) -> None:
    seen: list[Any] = []

    def callback(record: train.EpochRecord, model: Any) -> None:
        assert model is tiny.model
        seen.append((record.epoch, len(io.load_state(tmp_path / "last.safetensors")["history"])))

    tiny.fit(tmp_path, callbacks=[callback])
    assert seen == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(tiny: Any, tmp_path: Path, bad: float) -> None:
    calls = iter(range(1, 100))

    def loss(logits: Any, labels: Any) -> Any:
        value = F.cross_entropy(logits, labels)
        return value * bad if next(calls) == 10 else value  # the third batch of the second epoch

    place = rf"loss in epoch 2, step 3 is {bad} at learning rate .*; the checkpoint of the last whole epoch is in"
    with pytest.raises(train.NonFiniteLoss, match=place):
        tiny.fit(tmp_path, loss=loss)
    assert all(np.isfinite(values).all() for values in weights(tiny.model))
    assert len(io.load_state(tmp_path / "last.safetensors")["history"]) == 1


def test_a_batch_that_is_not_finite_leaves_all_as_before(remake: Any) -> None:
    batches = list(remake().loader)
    before = remake()
    before.loader, before.schedule = batches[:2], None
    before.fit(None, epochs=1)
    images = batches[2][0].copy()
    images[0, 0, 0, 0] = np.nan
    tiny = remake()
    tiny.loader, tiny.schedule = [*batches[:2], (images, batches[2][1])], None
    with pytest.raises(train.NonFiniteLoss, match="loss in epoch 1, step 3 is nan"):
        tiny.fit(None)
    for (name, value), expected in zip(
        tiny.model.state_dict().items(), before.model.state_dict().values(), strict=True
    ):
        np.testing.assert_array_equal(value, expected, err_msg=name)


class Pairs:
    """Batches of a class of the user's own, which has no length."""

    def __init__(self, batches: Any):
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


@pytest.mark.parametrize("progress", ["off", "lines", "bar"])
def test_loaders_may_be_any_iterables_of_pairs(remake: Any, progress: str) -> None:
    pytest.importorskip("tqdm")
    batches, results = list(remake().loader), []
    tensors = [(tensor(images), tensor(labels)) for images, labels in batches]
    for kind in (list, tuple, Pairs):
        for content in (batches, tensors):
            tiny = remake()
            tiny.loader, tiny.test = kind(content), kind(list(tiny.test))
            history = tiny.fit(None, epochs=2, progress=progress)
            assert [record.step for record in history] == [4, 8] and history[-1].test_accuracy is not None
            results.append([value.tobytes() for value in tiny.model.state_dict().values()])
    assert all(result == results[0] for result in results)


def test_what_a_loader_must_have(tiny: Any, tmp_path: Path) -> None:
    batches = list(tiny.loader)
    tiny.loader = batches
    for resume in (False, True):
        with pytest.raises(TypeError, match="train_loader is a list without state_dict .* checkpoints in out need"):
            tiny.fit(tmp_path, resume=resume)
    tiny.loader = iter(batches)
    with pytest.raises(ValueError, match="train_loader has no batch in epoch 2: each iteration"):
        tiny.fit(None)
    tiny.loader, tiny.test = batches, iter(tiny.test)
    with pytest.raises(ValueError, match="test_loader has no batch after epoch 2"):
        tiny.fit(None, schedule=None)
    tiny.loader = []
    with pytest.raises(ValueError, match="train_loader has no batch"):
        tiny.fit(None)


def test_an_interrupted_training_over_a_loader_without_length(tiny: Any) -> None:
    def loss(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(*args)

    tiny.loader = Pairs(list(tiny.loader))
    with pytest.raises(train.Interrupted, match="in epoch 1 of 3, after 1 batches; nothing was saved"):
        tiny.fit(None, loss=loss)


def ctrl_c_at(*steps: int) -> Any:
    """Return a loss at whose `steps`-th calls Ctrl-C comes."""
    calls = iter(range(1, 100))

    def loss(*args: Any) -> Any:
        number = next(calls)
        for _ in range(steps.count(number)):
            signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(*args)

    return loss


@pytest.mark.parametrize("progress", ["off", "lines", "bar"])
def test_the_first_ctrl_c_is_answered_at_once(tiny: Any, capsys: pytest.CaptureFixture[str], progress: str) -> None:
    def loss(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        seen.append(capsys.readouterr().err)
        return F.cross_entropy(*args)

    seen: list[str] = []
    with pytest.raises(train.Interrupted):
        tiny.fit(None, loss=loss, progress=progress)
    assert len(seen) == 1 and "numbanet: stopping after this batch" in seen[0]
    assert seen[0].endswith("Ctrl-C once more: at once\n") or progress == "bar"


@pytest.mark.parametrize("error", [BrokenPipeError, RuntimeError("reentrant call")])
def test_an_answer_that_cannot_be_printed_loses_no_training(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def note(self: Any, text: str) -> None:
        raise error

    monkeypatch.setattr("numbanet.train.progress.Silent.note", note)
    with pytest.raises(train.Interrupted, match="after 2 of 4 batches; saved to"):
        tiny.fit(tmp_path / "run", loss=ctrl_c_at(2))


def test_a_second_ctrl_c_tells_what_is_there(remake: Any, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "one"
    with pytest.raises(train.Interrupted, match="in epoch 1 of 3, after 1 of 4 batches, at once; nothing was saved"):
        remake().fit(out, loss=ctrl_c_at(2, 2))
    assert not out.exists()
    where = "in epoch 2 of 3, after 1 of 4 batches, at once; .*last.safetensors is from before: resume=True goes on"
    tiny = remake()
    tiny.test = None
    with pytest.raises(train.Interrupted, match=where):
        tiny.fit(out, loss=ctrl_c_at(6, 6))
    assert len(train.History.read(out)) == 1


def test_an_interruption_of_somebodys_own_stays_what_it_is(tiny: Any) -> None:
    class Stop(KeyboardInterrupt):
        pass

    stop = Stop("budget")

    def loss(*args: Any) -> Any:
        raise stop

    with pytest.raises(Stop) as caught:
        tiny.fit(None, loss=loss)
    assert caught.value is stop


def test_only_a_folder_that_was_made_for_a_training_goes_with_it(remake: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def fails(*args: Any) -> Any:
        assert (out / "log.csv").exists()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        remake().fit(out, loss=fails)
    assert not out.exists()
    with pytest.raises(ValueError, match="progress must be one of"):
        remake().fit(out, progress="loud")
    assert not out.exists()
    out.mkdir()
    with pytest.raises(ZeroDivisionError):
        remake().fit(out, loss=fails)
    assert out.exists()
    made = tmp_path / "other"
    with pytest.raises(ZeroDivisionError), dropped_if_unused(made):
        made.mkdir()
        (made / "notes.txt").write_text("of the user")
        raise ZeroDivisionError
    assert [path.name for path in made.iterdir()] == ["notes.txt"]


def test_an_optimizer_of_another_model_is_refused(tiny: Any, remake: Any) -> None:
    tiny.optimizer = optim.SGD(remake().model.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"optimizer has none of the model's parameters: make it of model.parameters"):
        tiny.fit(None, schedule=None)
    tiny.optimizer = optim.SGD(tiny.model[6].parameters(), 0.1)  # a part is enough: the others are frozen
    before = weights(tiny.model[0])
    tiny.fit(None, schedule=None, epochs=1)
    np.testing.assert_array_equal(weights(tiny.model[0])[0], before[0])
    tiny.model[6].requires_grad_(False)
    with pytest.raises(ValueError, match="optimizer has none of the model's parameters"):
        tiny.fit(None, schedule=None)


def test_a_test_loss_that_is_not_finite(tiny: Any) -> None:
    def loss(logits: Any, labels: Any) -> Any:
        return F.cross_entropy(logits, labels) * (1.0 if tiny.model.training else float("nan"))

    with pytest.raises(train.NonFiniteLoss, match="test loss after epoch 1 is nan"):
        tiny.fit(None, loss=loss)


def test_schedules_advance_with_epochs_or_steps(remake: Any) -> None:
    for each, expected in (("epoch", [0.5, 0.05, 0.005]), ("step", [0.5e-4, 0.5e-8, 0.5e-12])):
        tiny = remake()
        optimizer = optim.SGD(tiny.model.parameters(), 0.5)
        schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
        tiny.optimizer = optimizer
        history = tiny.fit(None, schedule=schedule, schedule_each=each)
        assert [record.lr for record in history] == pytest.approx(expected)


def test_clip_norm_bounds_the_step(remake: Any) -> None:
    tiny = remake()
    tiny.optimizer = optim.SGD(tiny.model.parameters(), 1.0)
    before = weights(tiny.model)
    tiny.loader.drop_last = True
    tiny.loader.batch_size = 30  # one step
    tiny.fit(None, epochs=1, schedule=None, clip_norm=1e-3)
    moved = np.sqrt(sum(((p - b) ** 2).sum() for p, b in zip(weights(tiny.model), before, strict=True)))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def weights_after(tiny: Any, out: Path | None = None, **options: Any) -> list[np.ndarray]:
    tiny.fit(out, **options)
    return weights(tiny.model)


@pytest.mark.parametrize("clip_norm", [None, 1e-2])
def test_a_scale_of_the_loss_changes_no_bit_and_survives(remake: Any, tmp_path: Path, clip_norm: float | None) -> None:
    plain = weights_after(remake(), clip_norm=clip_norm)
    scaler = GradScaler(init_scale=2.0**10, growth_interval=2)
    for p, q in zip(plain, weights_after(remake(), tmp_path, clip_norm=clip_norm, scaler=scaler), strict=True):
        np.testing.assert_array_equal(p, q)
    assert scaler.get_scale() > 2.0**10
    resumed = GradScaler()
    remake().fit(tmp_path, resume=True, scaler=resumed)
    assert resumed.state_dict() == scaler.state_dict()
    with pytest.raises(ValueError, match="scaler: the training to resume and this one must both have one"):
        remake().fit(tmp_path, resume=True)


def test_without_a_test_set_the_training_accuracy_decides(tiny: Any, tmp_path: Path) -> None:
    tiny.test = None
    history = tiny.fit(tmp_path)
    assert history[-1].test_loss is None and history[-1].test_accuracy is None
    assert history[-1].score == history[-1].train_accuracy
    assert train.History.read(tmp_path).to_list() == history.to_list()


def test_faulty_arguments(tiny: Any) -> None:
    with pytest.raises(ValueError, match="epochs must be at least 0, got -1"):
        tiny.fit(None, epochs=-1)
    with pytest.raises(TypeError, match="epochs must be an integer, got 2.5"):
        tiny.fit(None, epochs=2.5)
    with pytest.raises(TypeError, match="optimizer must be a numbanet.optim.Optimizer, got NoneType"):
        train.fit(tiny.model, None, tiny.loader, epochs=1)
    with pytest.raises(TypeError, match="scaler must be a numbanet.amp.GradScaler, got float"):
        tiny.fit(None, scaler=2.0)
    with pytest.raises(TypeError, match="loss must be a function of scores and labels.*, got 'mse'"):
        tiny.fit(None, loss="mse")
    with pytest.raises(TypeError, match="loss must be a function of scores and labels.*, got 'mse'"):
        train.evaluate(tiny.model, tiny.test, "mse")
    with pytest.raises(TypeError, match=r"got <class .*: make one of the class, CrossEntropyLoss\(\)"):
        tiny.fit(None, loss=nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match="schedule_each must be 'epoch' or 'step', got 'day'"):
        tiny.fit(None, schedule_each="day")
    with pytest.raises(ValueError, match="progress must be one of 'auto'.*got 'loud'"):
        tiny.fit(None, progress="loud")
    tiny.loader.drop_last, tiny.loader.batch_size = True, 31
    with pytest.raises(ValueError, match="train_loader has no batch"):
        tiny.fit(None)
    tiny.loader.drop_last, tiny.test.drop_last, tiny.test.batch_size = False, True, 21
    with pytest.raises(ValueError, match="test_loader has no batch"):
        tiny.fit(None)


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        tiny.fit(tmp_path / "file" / "below", loss=lambda logits, labels: pytest.fail("it was trained"))


def test_any_number_of_threads_gives_the_same_bits(remake: Any) -> None:
    former, results = get_num_threads(), []
    for count in {1, former}:
        tiny = remake()
        set_num_threads(count)
        try:
            tiny.fit(None, epochs=1)
        finally:
            set_num_threads(former)
        results.append([value.tobytes() for value in tiny.model.state_dict().values()])
    assert all(result == results[0] for result in results)


def test_no_epochs(tiny: Any, tmp_path: Path) -> None:
    assert len(tiny.fit(tmp_path / "new", epochs=0)) == 0
    assert not (tmp_path / "new" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("x", 0.5, 1), TypeError, "images must be an integer, got 'x'"),
        ((-1, 0.5, 1), ValueError, "images must be at least 0, got -1"),
        ((2, ..., 1), TypeError, "loss must be a number, got Ellipsis"),
        ((2, 0.5, 2.5), TypeError, "correct must be an integer, got 2.5"),
        ((2, 0.5, 1, "x"), TypeError, "seconds must be a number, got 'x'"),
    ],
)
def test_a_meter_refuses_what_are_no_numbers(arguments: Any, error: type[Exception], message: str) -> None:
    meter = train.Meter()
    with pytest.raises(error, match=message):
        meter.add(*arguments)
    assert meter == train.Meter()


def test_a_meter_reads_the_loss_of_a_batch(device: str) -> None:
    meter = train.Meter()
    meter.add(4, F.cross_entropy(nnet.tensor(np.zeros((4, 8), np.float32)), nnet.tensor([1, 2, 3, 4])), 1)
    assert meter.loss == pytest.approx(np.log(8), rel=1e-6)


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        (5, TypeError, "loader must be an iterable of batches, got int"),
        ([5], TypeError, "loader must yield pairs of images and labels, got int"),
        ([(np.zeros((2, 3)),)], TypeError, "loader must yield pairs of images and labels, got tuple"),
        ([(np.zeros((2, 3), np.float32), 1)], ValueError, r"labels must have shape \(N,\), .*, got \(\)"),
    ],
)
def test_loaders_that_yield_no_batches_are_refused(
    tiny: Any, loader: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train.evaluate(tiny.model, loader)
    optimizer = optim.SGD(tiny.model.parameters(), lr=0.1)
    with pytest.raises(error, match=message):
        train.fit(tiny.model, optimizer, loader, epochs=1, progress="off")


def test_refusals_tell_what_to_do(tiny: Any) -> None:
    with pytest.raises(TypeError, match=r"got ndarray: data.DataLoader\(data.Dataset\(images, labels\), "):
        train.evaluate(tiny.model, np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match=r"got Dataset: data.DataLoader\(dataset, batch_size\) makes one"):
        train.evaluate(tiny.model, data.load_digits())  # type: ignore[arg-type]


def test_labels_are_numbers_or_probabilities_of_classes(device: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((6, 4)).astype(np.float32), rng.integers(3, size=6)
    model, soft = nn.Linear(4, 3), np.eye(3, dtype=np.float32)[labels] * 0.8 + np.float32(0.2 / 3)
    numbers, probabilities = (train.evaluate(model, [(images, given)]) for given in (labels, soft))
    assert numbers.accuracy == probabilities.accuracy and numbers.loss != probabilities.loss
    one = nn.Linear(4, 1)
    for scores, given in (
        (model, soft[:, :1]), (one, soft[:, :1]), (model, np.ones((6, 3), np.float32)), (model, labels[:, None]),
        (model, np.zeros((6, 3), np.int64)), (one, np.ones((6, 1), np.float32)),
    ):
        with pytest.raises(ValueError, match=r"labels must have shape \(6,\), got \(6, .\): right classes are counted"):
            train.evaluate(scores, [(images, given)], loss=lambda scores, target: scores.sum())


def test_a_folder_must_be_a_path(tiny: Any) -> None:
    with pytest.raises(TypeError, match="out must be a path, got 7"):
        tiny.fit(7, epochs=1)


@pytest.mark.parametrize(("bound", "error"), [((1, 2), TypeError), (-1.0, ValueError)])
def test_the_norm_to_clip_to_is_named(tiny: Any, bound: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="clip_norm must be"):
        tiny.fit(None, epochs=1, clip_norm=bound)


@pytest.mark.parametrize("style", [[], {}, None])
def test_a_style_of_progress_is_a_word(tiny: Any, style: Any) -> None:
    with pytest.raises(ValueError, match=r"progress must be one of 'auto', 'bar', 'lines', 'off', got "):
        tiny.fit(None, epochs=1, progress=style)


def test_labels_of_pixels(device: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 2, 5, 5)).astype(np.float32), rng.integers(3, size=(4, 5, 5))
    model = nn.Conv2d(2, 3, 1)
    loader = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    history = train.fit(model, optim.SGD(model.parameters(), 0.0), loader, loader, epochs=1, progress="off")
    with nnet.no_grad():
        right = model(nnet.tensor(images)).cpu().numpy().argmax(1) == labels
    assert history.records[-1].test_accuracy == pytest.approx(right.mean())
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 5, 5\), got \(2, 5, 4\)"):
        train.evaluate(model, [(images[:2], labels[:2, :, :4])], loss=lambda scores, target: scores.sum())
