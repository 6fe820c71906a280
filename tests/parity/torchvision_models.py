"""torchvision's networks, where torchvision is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def load() -> Any:
    """Return ``torchvision.models``, or skip the test.

    A torchvision that was built for another variant of PyTorch (with CUDA, say) can't load its compiled operators, and
    then stops at those that its import describes. The networks need none: it is enough that their names exist.
    """
    pytest.importorskip("torch")
    for name in ("nms", "qnms", ""):
        try:
            return pytest.importorskip("torchvision.models")
        except RuntimeError as error:
            if f"torchvision::{name} does not exist" not in str(error):
                raise
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    raise AssertionError("unreachable")
