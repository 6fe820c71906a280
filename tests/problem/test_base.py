"""What all problems share."""

from __future__ import annotations

import pickle

from numbanet.problem.conv import conv2d_problem
from tests.processes import run_python

_MAKE = """
import pickle
from numbanet.problem.conv import conv2d_problem
problem = conv2d_problem("forward", (1, 3, 5, 5), (4, 3, 3, 3), "float32")
hash(problem)
print(pickle.dumps(problem).hex())
"""


def test_a_problem_from_another_process_is_found_in_dictionaries():
    problem = conv2d_problem("forward", (1, 3, 5, 5), (4, 3, 3, 3), "float32")
    for seed in ("1", "2"):  # those of strings start from it
        other = pickle.loads(bytes.fromhex(run_python(_MAKE, PYTHONHASHSEED=seed)))
        assert other == problem and hash(other) == hash(problem) and {problem: 1}[other] == 1
