"""Prepared weights: packed or Winograd-transformed once, for as many calls as the weight stays the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from numbanet import memory
from numbanet.candidate import Candidate

_FORMS = 4  # as many at most; the one that was made first goes


class PreparedWeight:
    """A weight that nobody changes, and the forms of it that kernels asked for.

    `numbanet.ops.prepare_conv2d` and `numbanet.ops.prepare_linear` make it; `numbanet.ops.conv2d` and
    `numbanet.ops.linear` take it in place of the weight.

    Parameters
    ----------
    weight : numpy.ndarray
        Of a convolution (K, C/groups, R, S), or of a linear layer (out_features, in_features). It is not copied where
        its memory order is that of the kernels: whoever changes it must drop this object.

    Attributes
    ----------
    shape : tuple of int
        Of the weight.
    dtype : numpy.dtype
        Of the weight.
    array : numpy.ndarray
        The weight in the memory order of the kernels: (K, R, S, C/groups), or (out_features, in_features).
    """

    __slots__ = ("_forms", "array", "dtype", "shape")

    def __init__(self, weight: np.ndarray):
        self.shape, self.dtype = weight.shape, weight.dtype
        # A view also where it has the shape: who holds it does not hold the weight, whose references are counted.
        with memory.lasting():
            self.array = (memory.channels_last(weight) if weight.ndim == 4 else memory.row_major(weight)).view()
        self._forms: dict[Hashable, Any] = {}

    def form(self, candidate: Candidate, problem: Any) -> Any:
        """Return what the candidate's `run` takes as the weight of a problem; `prepare` is called once a form."""
        if candidate.prepare is None:
            return self.array
        key = candidate.name, candidate.form(problem)
        found = self._forms.get(key)
        if found is None:
            while len(self._forms) >= _FORMS:
                self._forms.pop(next(iter(self._forms), None), None)
            with memory.lasting():
                found = self._forms[key] = candidate.prepare(problem, self.array)
        return found

    def known(self, key: Hashable) -> Any:
        """Return a form that was prepared before, by its key among `forms`; else None."""
        return self._forms.get(key)

    def forms(self) -> Iterable[tuple[Hashable, Any]]:
        """Return all forms that were prepared, each with its key."""
        return tuple(self._forms.items())

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of its owner prepares anew: forms belong to one array
