"""What the CPU can do, the GPU can do too: every pass of every operation has a kernel on both."""

import pytest

from numbanet import dispatch


@pytest.mark.parametrize("operation", dispatch.operations())
def test_every_operation_has_its_twin(operation: str) -> None:
    on_cpu = set(dispatch.passes(operation))
    on_gpu = {which for which in on_cpu if dispatch.candidates("cuda", operation, which)}
    assert on_gpu == on_cpu


@pytest.mark.parametrize("operation", dispatch.operations())
def test_names_and_order(operation: str) -> None:
    for which in dispatch.passes(operation):
        names = [candidate.name for candidate in dispatch.candidates("cuda", operation, which)]
        assert len(names) == len(set(names)) and all(name.startswith("cuda.") for name in names)
        assert "cuda.naive" not in names[:-1] or names[-1] == "cuda.naive"
