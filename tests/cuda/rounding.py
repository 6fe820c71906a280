"""What the tensor cores' operands are rounded to."""

from __future__ import annotations

import numpy as np


def rounded(x: np.ndarray, kind: str) -> np.ndarray:
    """Return float32 numbers rounded to "bf16", "fp16" (ties to even) or "tf32" (ties away from zero), as float64."""
    if kind == "fp16":
        return x.astype(np.float16).astype(np.float64)
    bits = x.view(np.uint32)
    if kind == "bf16":
        bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    else:
        bits = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return bits.view(np.float32).astype(np.float64)
