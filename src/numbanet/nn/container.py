"""Modules that hold modules, and the identity."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numbanet.nn.module import Module, _indented


class Identity(Module):
    """Return the input; arguments are accepted and ignored, as in torch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """Return `input`."""
        return input


class _Sequence(Module):
    """Child modules named ``"0"``, ``"1"``, ... and indexed as a list."""

    def _extend(self, modules: Iterable[Module]) -> None:
        for module in modules:
            number = len(self)
            while str(number) in self._modules:  # a slice of a Sequential keeps the names of its layers
                number += 1
            self.add_module(str(number), module)

    def _name(self, index: Any) -> str:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range for {len(self)} modules")
        return list(self._modules)[position]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._sliced(index)
        return self._modules[self._name(index)]

    def _sliced(self, index: slice) -> Any:
        return type(self)(list(self)[index])  # type: ignore[call-arg]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)[index] if isinstance(index, slice) else [self._name(index)]
        for name in names:
            delattr(self, name)
        self._rename(list(self))

    def _rename(self, modules: list[Module]) -> None:
        self._modules.clear()
        self._extend(modules)

    def append(self, module: Module) -> Any:
        """Add a module at the end, and return the container."""
        self._extend([module])
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end, and return the container."""
        self._extend(modules)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Insert a module before a position, and return the container."""
        modules = list(self)
        modules.insert(index, module)
        self._rename(modules)
        return self


class Sequential(_Sequence):
    """Apply modules one after the other.

    Parameters
    ----------
    *modules : Module, or one mapping of str to Module
        The layers in order; a mapping also gives their names.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self._extend(modules)  # type: ignore[arg-type]

    def forward(self, input: Any) -> Any:
        """Return the result of the last module."""
        for module in self:
            input = module(input)
        return input

    def _sliced(self, index: slice) -> Sequential:
        return type(self)(dict(list(self._modules.items())[index]))


class ModuleList(_Sequence):
    """A list of modules, each of which is registered; it has no forward of its own.

    Parameters
    ----------
    modules : iterable of Module, optional
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self._extend(modules or ())

    def _child_lines(self) -> list[str]:
        """Runs of modules with equal text become one line, as in torch: ``(0-2): 3 x Linear(...)``."""
        runs: list[tuple[int, int, str]] = []
        for position, text in enumerate(map(repr, self)):
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], position, text)
            else:
                runs.append((position, position, text))
        return [_indented(_run_line(*run)) for run in runs]


def _run_line(first: int, last: int, text: str) -> str:
    return f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}"
