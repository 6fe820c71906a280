"""Cases of augmentation: ours, and what a user of PyTorch writes for a batch whose images each get other numbers.

Both draw from NumPy's generator, in the same order, so that the first batches are equal. (torchvision's transforms draw
once for a whole batch; only its normalisation does the same as ours.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, layers
from benchmarks.cases import Call, Case

_MEAN, _STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
_SIDE = 8  # of the blank squares
_PADDING = 4

Step = Callable[[Any, np.random.Generator], Any]


def _steps(size: int, backend: str) -> dict[str, Step]:
    """Return the augmentations of one library, for images of a size: functions of a batch and a generator."""
    if backend != "numbanet":
        return {
            "flip": _flip, "crop": partial(_crop, size=size, mode="constant"),
            "crop reflect": partial(_crop, size=size, mode="reflect"), "cutout": _cutout, "normalize": _normalize,
        }  # fmt: skip
    from numbanet import data

    return {
        "flip": data.RandomHorizontalFlip(), "crop": data.RandomCrop(size, _PADDING),
        "crop reflect": data.RandomCrop(size, _PADDING, "reflect"), "cutout": data.Cutout(_SIDE),
        "normalize": data.Normalize(_MEAN, _STD),
    }  # fmt: skip


def _flip(x: Any, rng: np.random.Generator) -> Any:
    import torch

    chosen = torch.from_numpy(rng.random(len(x)) < 0.5)
    return torch.where(chosen[:, None, None, None], x.flip(-1), x)


def _crop(x: Any, rng: np.random.Generator, size: int, mode: str) -> Any:
    import torch

    padding = (_PADDING,) * 4
    if mode == "reflect" and x.dtype == torch.uint8:  # which PyTorch reflects as floats only
        padded = torch.nn.functional.pad(x.float(), padding, mode).to(torch.uint8)
    else:
        padded = torch.nn.functional.pad(x, padding, mode)
    n, beyond, within = len(x), padded.shape[2] - size + 1, torch.arange(size)
    rows, columns = (torch.from_numpy(rng.integers(beyond, size=n))[:, None] + within for _ in range(2))
    pixels = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def _cutout(x: Any, rng: np.random.Generator) -> Any:
    import torch

    first = [torch.from_numpy(rng.integers(s, size=len(x)) - _SIDE // 2)[:, None] for s in x.shape[2:]]
    inside = [(torch.arange(s) >= f) & (torch.arange(s) < f + _SIDE) for f, s in zip(first, x.shape[2:])]
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)


def _normalize(x: Any, rng: np.random.Generator) -> Any:
    """Do what torchvision's transforms do (v2: ToDtype with scale, Normalize)."""
    import torch

    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (_MEAN, _STD))
    scaled = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.clone()
    return scaled.sub_(mean).div_(std)


def _call(names: tuple[str, ...], shape: tuple[int, ...], dtype: str, planar: bool, backend: str) -> Call:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8).astype(dtype)
    rng, steps = np.random.default_rng(1), [_steps(shape[2], backend)[name] for name in names]
    if backend == "numbanet":
        from numbanet.data.augment import Batch, augmented

        x = images if planar else backends.channels_last(images)
        return lambda: augmented(Batch(x), steps, rng)
    x = backends.get(backend).tensor(images)

    def run() -> Any:
        import torch

        y = x
        with torch.inference_mode():
            for step in steps:
                y = step(y, rng)
        return y

    return run


def augmentation_cases() -> Iterator[Case]:
    """Yield the cases: each augmentation alone, and a pipeline of all, of bytes and of floats."""
    pipeline = ("flip", "crop", "normalize", "cutout")
    for name, shape in layers.IMAGES.items():
        size = math.prod(shape)
        for dtype, item in (("uint8", 1), ("float32", 4)):
            for steps in (("flip",), ("crop",), ("crop reflect",), ("cutout",), ("normalize",), pipeline):
                result = 4 if "normalize" in steps else item
                label = f"{'pipeline' if steps == pipeline else steps[0]} {dtype} {name}"
                make = partial(Case, "augmentation", which="forward", bytes=(item + result) * size)
                yield make(label, build=partial(_call, steps, shape, dtype, False))
                if steps in (("normalize",), pipeline):
                    yield make(f"{label} planar", build=partial(_call, steps, shape, dtype, True))
