"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def at_least(minimum: int) -> Callable[[str], int]:
    """Return an argparse type: an integer not below `minimum`."""

    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {value}")
        return value

    parse.__name__ = "integer"  # argparse names the type in its message
    return parse


def positive_float(text: str) -> float:
    """Parse a finite number above zero."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


positive_float.__name__ = "number"


def device_word(text: str) -> str:
    """Return a device word as it is, if it is one."""
    from numbanet.settings import parse_device

    try:
        parse_device("device", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Declare --device and --threads."""
    parser.add_argument("--device", type=device_word, help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--threads", type=at_least(1), help="CPU threads (default: all that this process may use)")


def apply_engine_options(args: argparse.Namespace) -> None:
    """Set the device and the threads.

    Raises
    ------
    RuntimeError
        If the device is a GPU that can't be used.
    ValueError
        If there are fewer threads.
    """
    from numbanet import set_num_threads
    from numbanet.settings import set_device

    if args.device is not None:
        set_device(args.device)
    if args.threads is not None:
        try:
            set_num_threads(args.threads)
        except ValueError as error:
            raise ValueError(str(error).replace("count", "--threads", 1)) from None
