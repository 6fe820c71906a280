"""``numbanet predict``."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanet.cli.options import add_engine_options, apply_engine_options, at_least
from numbanet.cli.task import CHECKPOINT_HELP, checkpoint_file, read_checkpoint, trained_model

HELP = "print the class of images"
DESCRIPTION = """Print the class of images and its probability.

Each image is turned upright (EXIF), made grey or RGB as the model needs it, cut around its centre to the model's
proportions, and scaled to its size. The digits of MNIST and of the bundled set are light on dark: use --invert for ink
on paper."""

# Kinds of image that Pillow decodes by itself: for some others it starts programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAX_PIXELS = 1 << 26
# No more than deflate can make of a byte in images of one bit a pixel.
_PIXELS_PER_BYTE = 8 * 1032


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument("--top", type=at_least(1), default=3, help="classes to print for each image (default: 3)")
    parser.add_argument("--invert", action="store_true", help="swap light and dark")
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Classify the images one by one."""
    from numbanet import data, no_grad, tensor
    from numbanet import functional as F

    apply_engine_options(args)
    checkpoint = checkpoint_file(args.checkpoint)
    state = read_checkpoint(checkpoint)
    facts = state["metadata"]["facts"]
    normalize = data.Normalize(facts["mean"], facts["std"])
    model = trained_model(checkpoint, state)
    model.eval()
    if args.checkpoint is None:
        print(f"using {checkpoint}", file=sys.stderr)
    for path in args.images:
        pixels = read_image(Path(path), facts["image_shape"])
        batch = normalize((255 - pixels if args.invert else pixels)[None], None)
        with no_grad():
            probabilities = F.softmax(model(tensor(batch)), 1).numpy()[0]
        ranked = np.argsort(-probabilities, kind="stable")[: args.top]
        print(f"{path}: " + ", ".join(f"{facts['classes'][i]} {probabilities[i]:.1%}" for i in ranked))
    return 0


def read_image(path: Path, shape: list[int]) -> NDArray[np.uint8]:
    """Return a picture as pixels of shape (channels, height, width).

    Raises
    ------
    ImportError
        Without Pillow; the message tells how to install it.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a picture, or a damaged one; the message names it.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('reading images needs Pillow: pip install "numbanet[data]"') from error
    channels, height, width = shape
    if channels not in (1, 3):
        raise ValueError(f"the model takes {channels} channels, neither grey nor RGB")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=_FORMATS) as file:
            warnings.simplefilter("ignore")  # of metadata
            columns, rows = file.size
            if columns * rows > min(_MAX_PIXELS, _PIXELS_PER_BYTE * path.stat().st_size):
                raise ValueError(f"{path}: declares {columns} x {rows} pixels, more than it may hold")
            upright: Any = ImageOps.exif_transpose(file)
            if upright.mode.startswith("I"):  # 16 bits of grey, which `convert` would cut off at 255
                values = np.clip(np.asarray(upright, np.int64), 0, 65535)
                upright = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
            picture = upright.convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image of a known kind ({', '.join(_FORMATS)})") from None
    except Exception as error:  # Pillow raises errors of many kinds for damaged files
        text = str(error)
        raise ValueError(text if text.startswith(f"{path}: ") else f"{path}: can't be read: {error!r}") from None
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
