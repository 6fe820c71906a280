"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np

from numbanet import functional as F
from numbanet import optim
from numbanet.amp import GradScaler
from numbanet.capturing import capture
from numbanet.host import look
from numbanet.io.atomic import remove_parts
from numbanet.io.paths import as_path
from numbanet.problem.base import flag, integer
from numbanet.problem.pointwise import number
from numbanet.tensor import Tensor
from numbanet.train.evaluate import Loss, Meter, as_tensors, check_loader, check_loss, count_correct, evaluate
from numbanet.train.history import EpochRecord, History
from numbanet.train.interrupt import Interrupted, StopRequest
from numbanet.train.progress import Silent, Style, make_progress
from numbanet.train.run import BEST_NAME, LAST_NAME, Run, dropped_if_unused

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_RESUME = "resume=True goes on from there"


class NonFiniteLoss(ArithmeticError):
    """A loss was nan or infinite: the training can't go on."""


def fit(
    model: Any,
    optimizer: Any,
    train_loader: Any,
    test_loader: Any = None,
    *,
    epochs: int,
    loss: Loss | None = None,
    schedule: Any = None,
    schedule_each: Literal["epoch", "step"] = "epoch",
    clip_norm: float | None = None,
    scaler: GradScaler | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    callbacks: Iterable[Callable[[EpochRecord, Any], object]] = (),
    progress: Style = "auto",
    metadata: dict[str, Any] | None = None,
    captured: bool = False,
) -> History:
    """Train a classifier.

    Each batch: ``loss(model(images), labels).backward()`` and a step of the optimizer. After each epoch the model is
    evaluated, checkpoints and logs are written, and the callbacks are called. Ctrl-C ends the training after the batch
    at hand, with a checkpoint from which ``resume=True`` goes on to the same weights, bit for bit, as if nothing had
    happened; a second Ctrl-C ends it at once. A folder that was made for a training of which nothing was saved is
    removed.

    Parameters
    ----------
    model : numbanet.nn.Module
        Maps images (N, C, H, W) to logits (N, classes).
    optimizer : numbanet.optim.Optimizer
        Made for the model's parameters, or for some of them.
    train_loader, test_loader : iterable
        Each iteration is an epoch of pairs of arrays or tensors, images and labels, which are class numbers (N,),
        probabilities (N, classes), or class numbers of pixels (N, H, W): a `numbanet.data.DataLoader`, a list, or an
        object of another class. With `out`, the train loader must have ``state_dict`` and ``load_state_dict`` too.
        Without a test loader nothing is evaluated.
    epochs : int
        Epochs in all, also when resuming.
    loss : callable, optional
        ``loss(logits, labels)``, a mean over the batch; `numbanet.functional.cross_entropy` if None.
    schedule : learning-rate schedule, optional
        Made for the optimizer.
    schedule_each : {"epoch", "step"}
        When the schedule advances.
    clip_norm : float, optional
        Scale gradients down to this norm over all parameters.
    scaler : numbanet.amp.GradScaler, optional
        Multiplies losses, for training in ``precision("fp16")``; its state is part of the checkpoints.
    out : path, optional
        Folder for ``last.safetensors``, ``best.safetensors`` (of the epoch with the highest accuracy), ``log.csv`` and
        ``log.jsonl``. Without it nothing is written.
    resume : bool
        Go on from ``last.safetensors``. Arguments must be made as they were for the first part.
    callbacks : iterable of callable
        Each is called as ``callback(record, model)`` after each epoch, once its checkpoint is written.
    progress : {"auto", "bar", "lines", "off"}
        ``"auto"`` shows a bar on a terminal, else one line an epoch.
    metadata : dict, optional
        Strings, numbers, lists and dictionaries to keep in the checkpoints.
    captured : bool
        Replay steps, see `numbanet.capture`, to the same weights, but for rounding, in less time: it says what models
        and losses of your own must not do then. Where steps can't be replayed (with an enabled scaler, on a GPU) they
        are run.

    Returns
    -------
    History
        One record an epoch; the accuracy to report is that of the last.

    Raises
    ------
    TypeError
        If `epochs` is no integer, `captured` neither True nor False, `clip_norm` no number, `optimizer` no optimizer,
        `loss` no function, `scaler` no scaler, a loader yields no pairs, or `train_loader` has no state to put into a
        checkpoint.
    ValueError
        If an argument makes no sense, `optimizer` has none of the model's parameters, or the checkpoint to resume is
        damaged or does not fit.
    FileNotFoundError
        If there is no checkpoint to resume.
    OSError
        If `out` can't be written: the disk is full, say. The checkpoint that was there before is untouched.
    NonFiniteLoss
        If a loss is nan or infinite; the message tells epoch and step. The weights and
        buffers are those before that step.
    Interrupted
        On Ctrl-C, a kind of KeyboardInterrupt; the message tells where the checkpoint is.
    """
    epochs = integer("epochs", epochs, 0)
    flag("captured", captured)
    clip_norm = None if clip_norm is None else number("clip_norm", clip_norm, 0)
    if not all(hasattr(optimizer, name) for name in ("param_groups", "zero_grad", "step")):
        raise TypeError(f"optimizer must be a numbanet.optim.Optimizer, got {type(optimizer).__name__}")
    _check_optimizer(optimizer, model)
    check_loss(loss)
    if not isinstance(scaler, GradScaler | None):
        raise TypeError(f"scaler must be a numbanet.amp.GradScaler, got {type(scaler).__name__}")
    if schedule_each not in ("epoch", "step"):
        raise ValueError(f"schedule_each must be 'epoch' or 'step', got {schedule_each!r}")
    if resume and out is None:
        raise ValueError("resume=True needs out, the folder of the training to resume")
    for name, loader in (("train_loader", train_loader), ("test_loader", test_loader)):
        if loader is not None or name == "train_loader":
            check_loader(name, loader)
        if loader is not None and _length(loader) == 0:
            raise ValueError(f"{name} has no batch")
    if out is not None and not (hasattr(train_loader, "state_dict") and hasattr(train_loader, "load_state_dict")):
        raise TypeError(
            f"train_loader is a {type(train_loader).__name__} without state_dict and load_state_dict, which the "
            "checkpoints in out need: use a numbanet.data.DataLoader, or leave out away"
        )
    run = Run(
        model, optimizer, schedule, train_loader, epochs, None if out is None else as_path("out", out), metadata or {},
        scaler or GradScaler(enabled=False),
    )  # fmt: skip
    if run.out is not None:
        remove_parts(run.out)
    with nullcontext() if run.out is None or run.out.exists() else dropped_if_unused(run.out):
        if resume:
            run.load()
        elif run.out is not None:
            run.history.write(run.out)  # a folder that can't be written is an error now, and not after an epoch
        dataset = getattr(train_loader, "dataset", None)
        images = None if dataset is None else len(dataset)
        shown = make_progress(progress, epochs, images, (run.epoch - 1) * (images or 0) + run.meter.images)
        each_step = schedule if schedule_each == "step" else None
        step: Step = _step(run, loss or F.cross_entropy, clip_norm)
        step = capture(step) if captured else step
        with closing(shown), StopRequest(shown.note) as stop, _where_interrupted(run):
            while run.epoch <= epochs:
                # A training that was interrupted while it was tested has no batches left.
                if run.batch != _length(train_loader):
                    _train_epoch(run, step, each_step, shown, stop)
                test = _test(run, test_loader, loss, shown, stop)
                record = _finish_epoch(run, test, schedule if schedule_each == "epoch" else None)
                shown.epoch(record)
                for callback in callbacks:
                    callback(record, model)
                if stop.requested and run.epoch <= epochs:
                    _interrupt(run)
    return run.history


def _check_optimizer(optimizer: Any, model: Any) -> None:
    """Raise ValueError if a step of the optimizer would change nothing of what is trained."""
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if trained and not trained & known:
        raise ValueError("optimizer has none of the model's parameters: make it of model.parameters() of this model")


def _length(loader: Any) -> int | None:
    """Return how many batches a loader has, or None if it does not tell."""
    return len(loader) if hasattr(loader, "__len__") else None


def _step(run: Run, loss: Loss, clip_norm: float | None) -> Step:
    """Return the step that is made for each batch; the loss is looked at before anything but buffers has changed."""

    def check(value: np.ndarray) -> None:
        _check_finite(value.item(), f"loss in epoch {run.epoch}, step {run.batch + 1}", run)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = run.model(images)
        value = loss(logits, labels)
        if value.numel() != 1:
            value.item()  # raises the error that says so
        look(check, value.data)
        run.optimizer.zero_grad()
        run.scaler.scale(value).backward()
        if clip_norm is not None:
            run.scaler.unscale_(run.optimizer)
            optim.clip_grad_norm_(run.model.parameters(), clip_norm)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        return value, logits

    return step


def _train_epoch(run: Run, step: Step, schedule: Any, shown: Silent, stop: StopRequest) -> None:
    run.model.train()
    began = time.perf_counter()
    buffers = [buffer.data for buffer in run.model.buffers()]
    for batch in run.loader:
        images, labels = as_tensors(batch)
        former = [buffer.copy() for buffer in buffers]  # of batch norm: a few numbers a channel
        try:
            value, logits = step(images, labels)
        except NonFiniteLoss:
            for buffer, data in zip(buffers, former):
                buffer[...] = data
            raise
        if schedule is not None:
            schedule.step()
        now = time.perf_counter()
        run.meter.add(len(labels), value.item(), count_correct(logits, labels.data), now - began)
        began = now
        run.batch += 1
        run.step += 1
        shown.batch(run.epoch, run.meter, len(labels))
        # After the last batch the loader must come to its end, for its own state: the test is interrupted instead.
        if stop.requested and run.batch != _length(run.loader):
            _interrupt(run)
    if not run.batch:
        raise ValueError(f"train_loader has no batch in epoch {run.epoch}: each iteration over it must be an epoch")


def _test(run: Run, loader: Any, loss: Loss | None, shown: Silent, stop: StopRequest) -> Meter | None:
    if loader is None:
        return None

    def on_batch(meter: Meter) -> None:
        shown.testing(run.epoch, meter)
        if stop.requested:
            _interrupt(run)

    meter = evaluate(run.model, loader, loss, on_batch)
    if not meter.images:
        raise ValueError(f"test_loader has no batch after epoch {run.epoch}: each iteration over it must be an epoch")
    _check_finite(meter.loss, f"test loss after epoch {run.epoch}", run)
    return meter


def _finish_epoch(run: Run, test: Meter | None, schedule: Any) -> EpochRecord:
    """Record the epoch, move on to the next, and write the checkpoints."""
    meter, former = run.meter, run.history.best
    record = EpochRecord(
        epoch=run.epoch,
        step=run.step,
        lr=run.lr,
        train_loss=meter.loss,
        train_accuracy=meter.accuracy,
        test_loss=None if test is None else test.loss,
        test_accuracy=None if test is None else test.accuracy,
        seconds=meter.seconds,
        images_per_second=meter.images_per_second,
    )
    run.history.records.append(record)
    run.batch, run.meter = 0, Meter()
    if schedule is not None:
        schedule.step()
    if former is None or record.score > former.score:
        run.save(BEST_NAME)
    run.save()
    return record


def _check_finite(value: float, what: str, run: Run) -> None:
    if math.isfinite(value):
        return
    kept = f"; the checkpoint of the last whole epoch is in {run.out}" if run.out and len(run.history) else ""
    raise NonFiniteLoss(f"{what} is {value} at learning rate {run.lr:g}: try a lower one, or clip gradients{kept}")


def _interrupt(run: Run) -> None:
    path = run.save()
    raise Interrupted(f"{_place(run)}; " + (f"saved to {path}: {_RESUME}" if path else "nothing was saved"))


def _place(run: Run) -> str:
    batches = _length(run.loader)
    of = "" if batches is None else f" of {batches}"
    return f"interrupted in epoch {run.epoch} of {run.epochs}, after {run.batch}{of} batches"


@contextmanager
def _where_interrupted(run: Run) -> Iterator[None]:
    """Let an interruption at once, which saves nothing, tell what was saved before."""
    try:
        yield
    except KeyboardInterrupt as error:
        if type(error) is not KeyboardInterrupt:  # `Interrupted`, or somebody's own, who waits for it
            raise
        path = None if run.out is None else run.out / LAST_NAME
        saved = f"{path} is from before: {_RESUME}" if path is not None and path.exists() else "nothing was saved"
        raise Interrupted(f"{_place(run)}, at once; {saved}") from None
