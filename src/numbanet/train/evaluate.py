"""Loss and accuracy of a model: over a test set, and summed up batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet import functional as F
from numbanet import memory, ops
from numbanet.creation import tensor
from numbanet.data.dataset import Dataset
from numbanet.device_array import DeviceArray
from numbanet.nn.mode import evaluating
from numbanet.problem.base import integer
from numbanet.problem.pointwise import number
from numbanet.tape import no_grad
from numbanet.tensor import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Meter:
    """Sums over the images seen so far, from which their mean loss and accuracy follow."""

    images: int = 0
    loss_sum: float = 0.0
    correct: int | float = 0
    seconds: float = 0.0

    def add(self, images: int, loss: float | Tensor, correct: int | float, seconds: float = 0.0) -> None:
        """Count a batch with its mean loss; TypeError or ValueError where one is no such number."""
        images = integer("images", images, 0)
        if not (isinstance(correct, float) and 0 <= correct <= images):  # of shares of pixels
            correct = integer("correct", correct, 0)
        loss = number("loss", loss.item() if isinstance(loss, Tensor) and loss.numel() == 1 else loss)
        seconds = number("seconds", seconds)
        self.images += images
        self.loss_sum += loss * images
        self.correct += correct
        self.seconds += seconds

    @property
    def loss(self) -> float:
        """Mean loss of an image (nan before the first)."""
        return self.loss_sum / self.images if self.images else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of the images that were classified correctly, in [0, 1] (nan before the first)."""
        return self.correct / self.images if self.images else float("nan")

    @property
    def images_per_second(self) -> float:
        """Images per second of training."""
        return self.images / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the sums as a plain dictionary: the arguments of `Meter`."""
        return asdict(self)


def count_correct(logits: Tensor, labels: NDArray[np.integer]) -> int | float:
    """Return how many rows of `logits` (N, classes) have their largest value at the label.

    An image with a label a pixel, logits (N, classes, H, W), counts for the share of its pixels that are right. Labels
    (N, classes) are probabilities, of which the largest counts.
    """
    best = ops.extremum(logits.data, 1)[1] if type(logits.data) is DeviceArray else logits.data.argmax(axis=1)
    best, labels = memory.on_host(best), memory.on_host(labels)
    if _are_probabilities(labels, logits.shape):
        labels = labels.argmax(axis=1)
    if best.shape != labels.shape:
        raise ValueError(
            f"labels must have shape {best.shape}, got {labels.shape}: right classes are counted; a loop of one's own "
            "trains on other targets"
        )
    found = int(np.count_nonzero(best == labels))
    return found if labels.ndim == 1 else found * len(labels) / max(1, labels.size)


def _are_probabilities(labels: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return whether labels are probabilities of several classes, and no other numbers of the same shape."""
    if labels.dtype.kind != "f" or labels.ndim != 2 or labels.shape != shape or shape[1] < 2:
        return False
    return bool((labels >= 0).all() and (abs(labels.sum(axis=1) - 1) < 1e-3).all())


def as_tensors(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the images and the labels of a batch, arrays or tensors, as tensors."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(
            f"loader must yield pairs of images and labels, got {type(batch).__name__}: "
            "data.DataLoader(data.Dataset(images, labels), batch_size) does"
        )
    images, labels = (part if isinstance(part, Tensor) else tensor(part) for part in batch)
    if labels.ndim == 0:
        raise ValueError(f"labels must have shape (N,), (N, classes) or (N, H, W) of pixels, got {labels.shape}")
    return images, labels


def check_loader(name: str, loader: Any) -> None:
    """Raise TypeError, with the name of the argument, for what nobody can iterate over."""
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        hint = ": data.DataLoader(dataset, batch_size) makes one" if isinstance(loader, Dataset) else ""
        raise TypeError(f"{name} must be an iterable of batches, got {type(loader).__name__}{hint}")


def check_loss(loss: Any) -> None:
    """Raise TypeError for what nobody can call; None stands for cross entropy."""
    if loss is not None and (not callable(loss) or isinstance(loss, type)):
        made = f": make one of the class, {loss.__name__}()" if isinstance(loss, type) else ""
        raise TypeError(f"loss must be a function of scores and labels, such as F.cross_entropy, got {loss!r}{made}")


def evaluate(
    model: Any,
    loader: Any,
    loss: Loss | None = None,
    on_batch: Callable[[Meter], None] | None = None,
) -> Meter:
    """Return the loss and accuracy of a model over a data set.

    The model is put into evaluation mode, nothing is recorded, and each of its modules gets its former mode back.

    Parameters
    ----------
    model : numbanet.nn.Module
        Maps images (N, C, H, W) to logits (N, classes).
    loader : iterable
        Yields pairs of arrays or tensors, images and integer labels (N,), as a `numbanet.data.DataLoader`
        does, or (N, H, W), one a pixel.
    loss : callable, optional
        ``loss(logits, labels)``, a mean over the batch; `numbanet.functional.cross_entropy` if None.
    on_batch : callable, optional
        Called with the running sums after each batch.

    Returns
    -------
    Meter
        Its `loss` and `accuracy`.

    Raises
    ------
    TypeError, ValueError
        If the loader yields anything but such pairs, or `loss` is no function.
    """
    check_loader("loader", loader)
    check_loss(loss)
    loss = loss or F.cross_entropy
    meter = Meter()
    with evaluating(model), no_grad():
        for batch in loader:
            images, labels = as_tensors(batch)
            logits = model(images)
            meter.add(len(labels), loss(logits, labels).item(), count_correct(logits, labels.data))
            if on_batch is not None:
                on_batch(meter)
    return meter
