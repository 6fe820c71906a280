"""Where the tests of captured steps capture them: on each device."""

from __future__ import annotations

from typing import Any

import pytest

from numbanet.cpu import replay
from numbanet.cuda import launch


class Replays:
    """A device, and its replays; see `tests.capturing.trainer.Replayer`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.calls: list[str] = []


@pytest.fixture
def driver(device: str, monkeypatch: pytest.MonkeyPatch) -> Replays:
    """A count of what is repeated; tests/cuda has a pretended GPU in its place."""
    found, recording = Replays(device), replay.Recording if device == "cpu" else launch.Recording
    run: Any = recording.run

    def counted(self: Any) -> None:
        found.calls.append("graph")
        run(self)

    monkeypatch.setattr(recording, "run", counted)
    return found
