"""What a convolution can tell about its result: the statistics that a batch norm in training needs."""

from __future__ import annotations

import numpy as np


class Moments:
    """Partial sums of each channel of a result, taken by the tasks that stored it.

    Attributes
    ----------
    parts : numpy.ndarray or None
        Shape (parts, 4, channels). A part is a set of positions of all images, and each position belongs to one part;
        its numbers are their count, a shift s near their values, the sum of x - s, and that of (x - s)^2.
        None where the kernel that ran takes no sums: a batch norm then reads the result, as it does any other.
    """

    __slots__ = ("parts",)
    __hash__ = None  # type: ignore[assignment] # each call takes one of its own: none is an option that comes again

    def __init__(self) -> None:
        self.parts: np.ndarray | None = None
