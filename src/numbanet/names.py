"""Names of arguments as PyTorch takes them: NumPy's beside its own, and which ones need others."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

_NUMPY = (("axis", "dim"), ("keepdims", "keepdim"))
Function = TypeVar("Function", bound=Callable[..., Any])


class Omitted:
    """What stands for an argument that was not given, where None is a value, or none."""

    def __repr__(self) -> str:
        return "nothing"


OMITTED: Any = Omitted()


def numpy_names(*beside_dim: str) -> Callable[[Function], Function]:
    """Let a function take `axis` for `dim`, its second argument, and `keepdims` for `keepdim`.

    Parameters
    ----------
    *beside_dim : str
        Arguments that may be given by their names, all of them, only beside `dim`: PyTorch has no such overload.

    Raises
    ------
    TypeError
        By the function, if an argument is given by both names, or without its `dim`.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if options:
                for other, name in _NUMPY:
                    if other in options:
                        if name in options:
                            raise TypeError(f"{name} and {other} are one argument, and both were given")
                        options[name] = options.pop(other)
                if beside_dim and len(args) < 2 and "dim" not in options and options.keys() >= set(beside_dim):
                    raise TypeError(f"dim must be given beside {' and '.join(beside_dim)}")
            return function(*args, **options)

        return call  # type: ignore[return-value]

    return decorate
