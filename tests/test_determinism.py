"""The same seed gives the same bits: in every process, with any number of threads, whatever NumPy's global state is."""

from __future__ import annotations

from pathlib import Path

import pytest

import numbanet as nnet
from numbanet import nn
from tests.processes import run_python

TRAIN = """
    import hashlib, sys
    from pathlib import Path
    import numpy as np
    from numbanet import set_num_threads
    from tests import tiny

    threads, seed, parts, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True", Path(sys.argv[4])
    np.random.seed(seed)
    before = np.random.get_state()
    set_num_threads(threads)
    if parts:
        from tests.train.test_resume import interrupting
        from numbanet import train
        try:
            tiny.make().fit(folder, loss=interrupting(9))  # in the middle of the second epoch
        except train.Interrupted:
            print("interrupted", file=sys.stderr)
        set_num_threads(3 - threads)
    tiny.make().fit(folder, resume=parts)
    after = np.random.get_state()
    assert before[2] == after[2] and (before[1] == after[1]).all(), "NumPy's global state was used"
    print(hashlib.sha256(repr(tiny.final_state(folder)).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A digest of weights, statistics, optimizer, random states and history after a training with one thread."""
    return run_python(TRAIN, "1", "0", "False", str(tmp_path_factory.mktemp("first")))


@pytest.mark.parametrize(("threads", "parts"), [(1, False), (2, False), (2, True)])
def test_a_new_process_gets_the_same_bits(bits: str, threads: int, parts: bool, tmp_path: Path) -> None:
    assert run_python(TRAIN, str(threads), str(17 + threads), str(parts), str(tmp_path)) == bits


def test_a_seed_decides_the_parameters() -> None:
    def parameters(seed: int) -> list[bytes]:
        nnet.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), nn.Linear(5, 6), nn.GroupNorm(2, 4))
        return [p.data.tobytes() for p in model.parameters()]

    assert parameters(1) == parameters(1)
    assert parameters(1) != parameters(2)
