"""``numbanet info``, ``numbanet explain`` and ``numbanet plot``: they print or draw, and compute nothing."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path
from typing import Any

from numbanet.cli.options import device_word

INFO_HELP = "print versions, CPU, threads, caches, GPU"
EXPLAIN_HELP = "print which kernel would run for an operation, and why"
EXPLAIN_DESCRIPTION = """Print which kernel would run for an operation, and why the others would not.

    numbanet explain conv2d 32x64x56x56 64x64x3x3 padding=1 --which backward_input
    numbanet explain max_pool2d 32x64x56x56 2"""
PLOT_HELP = "draw the curves of a training"


def run_info(args: argparse.Namespace) -> int:
    """Print what numbanet runs on."""
    from numbanet import info

    print(info())
    return 0


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of explain."""
    parser.add_argument("operation")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="32x64x56x56, 2, relu, padding=1, ...")
    parser.add_argument("--which", default="forward", help="the pass (default: forward)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--device", type=device_word)


def run_explain(args: argparse.Namespace) -> int:
    """Print the candidates of an operation."""
    from numbanet import explain

    positional = [value(text) for text in args.arguments if "=" not in text]
    named = {name: value(text) for name, _, text in (a.partition("=") for a in args.arguments if "=" in a)}
    try:
        print(explain(args.operation, *positional, which=args.which, dtype=args.dtype, device=args.device, **named))
    except TypeError as error:
        raise ValueError(error) from error
    return 0


def value(text: str) -> Any:
    """Return what a word of the command line stands for: a shape, a Python literal, or itself."""
    if re.fullmatch(r"\d+(x\d+)+", text):
        return tuple(int(size) for size in text.split("x"))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def add_plot_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of plot."""
    parser.add_argument("folder", help="of a training")
    parser.add_argument("-o", "--output", help="file to write, .png, .svg or .pdf (default: FOLDER/curves.png)")
    parser.add_argument("--title")


def run_plot(args: argparse.Namespace) -> int:
    """Draw loss and accuracy over the epochs."""
    from numbanet.viz import plot_history

    output = args.output or str(Path(args.folder) / "curves.png")
    plot_history(args.folder, output, args.title)
    print(output)
    return 0
