"""The benchmark's augmentations in PyTorch: what is timed beside ours gives the same batches."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import backends, operations


@pytest.mark.parametrize("name", ["flip", "crop", "crop reflect", "cutout", "normalize", "pipeline"])
def test_augmentations_do_what_the_user_of_pytorch_writes(name):
    chosen = [c for c in operations.operation_cases(("augmentation",)) if c.name.startswith(f"{name} uint8 512")]
    chosen += [c for c in operations.operation_cases(("augmentation",)) if c.name == f"{name} float32 512 @32"]
    assert len(chosen) == (3 if name in ("normalize", "pipeline") else 2)
    for case in chosen:
        expected, *results = (backends.to_numpy(case.build(b)()) for b in ("torch", "torch:channels_last", "numbanet"))
        for result in results:
            assert result.dtype == expected.dtype
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
        if "pipeline" not in name and "normalize" not in name:
            assert case.bytes == 2 * expected.nbytes
