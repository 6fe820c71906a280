"""The command line: ``numbanet`` or ``python -m numbanet``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from numbanet import __version__, settings

_FAILED, _INTERRUPTED, _BROKEN_PIPE = 1, 130, 141


def _parser() -> argparse.ArgumentParser:
    from numbanet.cli import evaluate, predict, show, train, warmup  # here, where Ctrl-C is heard

    parser = argparse.ArgumentParser(
        prog="numbanet", description="Train and run convolutional networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"numbanet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str,
        run: Callable[[argparse.Namespace], int],
        summary: str,
        add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
        description: str | None = None,
    ) -> None:
        command = commands.add_parser(
            name, help=summary, description=description or summary, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if add_arguments is not None:
            add_arguments(command)
        command.set_defaults(run=run)

    add("train", train.run, train.HELP, train.add_arguments, train.description())
    add("eval", evaluate.run, evaluate.HELP, evaluate.add_arguments)
    add("predict", predict.run, predict.HELP, predict.add_arguments, predict.DESCRIPTION)
    add("info", show.run_info, show.INFO_HELP)
    add("explain", show.run_explain, show.EXPLAIN_HELP, show.add_explain_arguments, show.EXPLAIN_DESCRIPTION)
    add("warmup", warmup.run, warmup.HELP, warmup.add_arguments)
    add("plot", show.run_plot, show.PLOT_HELP, show.add_plot_arguments)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; those of this process if None.

    Returns
    -------
    int
        0; or 1 after an error, whose message goes to standard error (with ``NUMBANET_VERBOSE=1`` it is raised instead);
        or 130 after Ctrl-C; or 141 if the reader of the output went away.

    Raises
    ------
    SystemExit
        With code 2 if the words make no sense, and 0 after ``--help``.
    """
    try:
        args = _parser().parse_args(argv)
        status = int(args.run(args))
        sys.stdout.flush()  # so that a reader that went away is noticed here
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return _BROKEN_PIPE
    except KeyboardInterrupt as error:
        print(f"numbanet: {error}" if error.args else "numbanet: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (OSError, ValueError, RuntimeError, ImportError, ArithmeticError, MemoryError) as error:
        if settings.verbose():
            raise
        print(f"numbanet: {error or type(error).__name__}", file=sys.stderr)
        return _FAILED


if __name__ == "__main__":
    sys.exit(main())
