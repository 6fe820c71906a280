"""DLPack with PyTorch: memory is shared both ways, and what PyTorch says of it is right."""

from __future__ import annotations

import pytest
import torch

import numbanet as nnet


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_memory_is_shared_with_torch(dtype: str) -> None:
    theirs = torch.arange(24).reshape(4, 6).to(getattr(torch, dtype))[::2, 1::2].T
    ours = nnet.from_dlpack(theirs)
    back = torch.from_dlpack(ours)
    assert back.dtype == theirs.dtype and back.stride() == theirs.stride() and torch.equal(back, theirs)
    assert back.data_ptr() == theirs.data_ptr() == ours.data.__array_interface__["data"][0]
    theirs[0, 0] = 1
    assert ours.data[0, 0] == 1 == back[0, 0]


def test_capsules_of_torch() -> None:
    theirs = torch.ones(3)
    ours = nnet.from_dlpack(torch.utils.dlpack.to_dlpack(theirs))
    theirs[1] = 5
    assert ours.data.tolist() == [1, 5, 1]
    assert torch.utils.dlpack.from_dlpack(ours.__dlpack__()).data_ptr() == theirs.data_ptr()


def test_refusals_are_those_of_torch() -> None:
    with pytest.raises(BufferError, match="require gradient"):
        nnet.from_dlpack(torch.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="requires a gradient"):
        torch.from_dlpack(nnet.tensor([1.0], requires_grad=True))
    with pytest.raises(TypeError, match="x must hold numbers of a dtype that NumPy has, got torch.bfloat16"):
        nnet.from_dlpack(torch.ones(2, dtype=torch.bfloat16))
