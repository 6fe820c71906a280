"""numbanet beside other users of threads: PyTorch and scikit-learn, imported before it or after."""

from __future__ import annotations

import importlib.util

import pytest

from tests.processes import run_python

BESIDE = """
import sys
import numpy as np

def numbanet_side():
    import numbanet as nnet
    nnet.set_num_threads(2)
    x = np.random.default_rng(0).standard_normal((4, 16, 20, 20)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((16, 16, 3, 3)).astype(np.float32)
    return lambda: nnet.ops.conv2d(x, w, padding=1).tobytes(), nnet.get_num_threads

def torch_side():
    import torch
    torch.set_num_threads(2)
    torch.manual_seed(0)
    x, w = torch.randn(4, 16, 20, 20), torch.randn(16, 16, 3, 3)
    return lambda: torch.nn.functional.conv2d(x, w, padding=1).numpy().tobytes(), torch.get_num_threads

def sklearn_side():
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_info
    x = np.random.default_rng(0).standard_normal((400, 8))
    def call():
        model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(x, x[:, 0] > 0)
        return model.predict_proba(x).tobytes()
    def threads():
        return sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info() if "sklearn" in str(pool))
    return call, threads

SIDES = {"numbanet": numbanet_side, "torch": torch_side, "sklearn": sklearn_side}
first, second = (SIDES[name]() for name in sys.argv[1:3])
alone, threads = first[0](), first[1]()
beside = second[0](), second[1]()
for _ in range(5):
    assert first[0]() == alone and second[0]() == beside[0]
assert (first[1](), second[1]()) == (threads, beside[1]), "numbers of threads"
print("done")
"""


@pytest.mark.parametrize("neighbour", ["torch", "sklearn"])
@pytest.mark.parametrize("numbanet_first", [True, False])
def test_results_and_numbers_of_threads_are_unharmed(neighbour: str, numbanet_first: bool) -> None:
    if importlib.util.find_spec(neighbour) is None:
        pytest.skip(f"{neighbour} is not installed")
    order = ("numbanet", neighbour) if numbanet_first else (neighbour, "numbanet")
    assert run_python(BESIDE, *order, NUMBA_NUM_THREADS="2") == "done"
