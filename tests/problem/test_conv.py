"""Problems of convolutions."""

from __future__ import annotations

from numbanet.problem.conv import conv2d_problem


def test_equal_calls_give_one_problem() -> None:
    problems = [conv2d_problem("forward", [2, 3, 8, 9], (4, 3, 3, 3), "float32", 1, (1, 1)) for _ in range(2)]
    assert problems[0] is problems[1]
    assert problems[0] is not conv2d_problem("forward", (2, 3, 8, 9), (4, 3, 3, 3), "float32", 1, (1, 0))
