"""Where the tests of captured steps capture them: here, the CPU."""

from __future__ import annotations

import pytest

from numbanet.cpu.replay import Recording


class Replays:
    """The CPU, and its replays; see `tests.capturing.trainer.Replayer`."""

    place = "cpu"

    def __init__(self) -> None:
        self.calls: list[str] = []


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Replays:
    """A count of what is repeated; the tests in tests/cuda have a GPU in its place."""
    found, run = Replays(), Recording.run

    def counted(recording: Recording) -> None:
        found.calls.append("graph")
        run(recording)

    monkeypatch.setattr(Recording, "run", counted)
    return found
