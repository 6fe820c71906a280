"""Prepared weights: packed or Winograd-transformed once, for as many calls as the weight stays the same."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from numbanet.candidate import Candidate

_FORMS = 4  # as many at most; the one that was made first goes


class PreparedWeight:
    """A weight that nobody changes, and the forms of it that kernels asked for.

    `numbanet.ops.prepare_conv2d` and `numbanet.ops.prepare_linear` make it; `numbanet.ops.conv2d` and
    `numbanet.ops.linear` take it in place of the weight.

    Parameters
    ----------
    weight : numpy.ndarray
        Not copied: whoever changes it must drop this object.
    """

    __slots__ = ("_forms", "weight")

    def __init__(self, weight: np.ndarray):
        self.weight = weight
        self._forms: dict[Hashable, Any] = {}

    def form(self, candidate: Candidate, problem: Any, weight: np.ndarray) -> Any:
        """Return what the candidate's `prepare` makes of the weight (here in the memory order of its kernels)."""
        assert candidate.prepare is not None
        key = candidate.name, candidate.form(problem)
        found = self._forms.get(key)
        if found is None:
            while len(self._forms) >= _FORMS:
                self._forms.pop(next(iter(self._forms)))
            found = self._forms[key] = candidate.prepare(problem, weight)
        return found
