"""A save that fails at any call to the file system, or is killed there, leaves what was there before, and says so."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numbanet import io
from numbanet.__main__ import main
from numbanet.io.atomic import remove_parts
from numbanet.train.history import History
from numbanet.train.run import Run
from tests.processes import run_python
from tests.reliability import faults, kill
from tests.reliability.faults import fault_at
from tests.tiny import comparable, final_state, make

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
OLD, NEW = {"a": np.zeros(300)}, {"a": np.ones(300)}


def calls_of_a_save(folder: Path) -> int:
    with fault_at(-1, faults.kill) as count:
        io.save(folder / "a.safetensors", OLD)
    return count()


def test_a_save_is_several_calls(tmp_path: Path) -> None:
    assert calls_of_a_save(tmp_path) == 7, "the folder, open, write, flush, fsync, replace, fsync of the folder"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("fault", "number"),
    [(faults.DISK_FULL, errno.ENOSPC), (faults.DENIED, errno.EACCES), (faults.BROKEN, errno.EIO)],
)
def test_every_failing_call(tmp_path: Path, fault: Any, number: int, after: bool) -> None:
    calls = calls_of_a_save(tmp_path)
    path = tmp_path / "a.safetensors"
    for call in range(calls):
        io.save(path, OLD)
        with fault_at(call, fault, after):
            try:
                io.save(path, NEW)
                raised = None
            except OSError as error:
                raised = error
        replaced = call == calls - 1 or (after and call == calls - 2)
        in_place = io.load(path)["a"].tobytes()
        if raised is None:
            assert call == calls - 1 and number == errno.EACCES, "a folder that can't be read can't be synchronised"
            assert in_place == NEW["a"].tobytes()
        else:
            assert raised.errno == number
            assert in_place == (NEW if replaced else OLD)["a"].tobytes()
            if call < calls - 1:
                text = re.escape(os.strerror(number))
                assert re.fullmatch(rf"\[Errno {number}\] not saved: {text}: '.*a\.safetensors'", str(raised))
        assert os.listdir(tmp_path) == [path.name], f"call {call} leaves something behind"


@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_at_every_call(tmp_path: Path, after: bool) -> None:
    path = tmp_path / "a.safetensors"
    for call in range(calls_of_a_save(tmp_path)):
        io.save(path, OLD)
        with fault_at(call, faults.interrupt, after), pytest.raises(KeyboardInterrupt):
            io.save(path, NEW)
        assert io.load(path)["a"].tobytes() in (OLD["a"].tobytes(), NEW["a"].tobytes())
        assert os.listdir(tmp_path) == [path.name]


def ends(work: Any) -> int:
    """Run in a forked child, and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_call(tmp_path: Path, after: bool) -> None:
    path, calls = tmp_path / "a.safetensors", calls_of_a_save(tmp_path)
    found = []
    for call in range(calls):
        io.save(path, OLD)

        def work(call: int = call) -> None:
            with fault_at(call, faults.kill, after):
                io.save(path, NEW)

        assert ends(work) == -signal.SIGKILL
        found.append(io.load(path)["a"][0])
        others = tmp_path / ".download-17.part"  # another program's
        others.touch()
        remove_parts(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted([path.name, others.name])
    changed = calls - 1 - after  # the first call at whose fault the name stands for the new file
    assert found == [0.0] * changed + [1.0] * (calls - changed)


@forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_training_killed_at_every_call(tmp_path: Path) -> None:
    """Every checkpoint that it leaves is that of the undisturbed training, and at last it goes on to the same end."""
    states: list[Any] = []
    whole = tmp_path / "whole"
    with fault_at(-1, faults.kill) as count:
        make().fit(whole, callbacks=[lambda record, model: states.append(final_state(whole))])
    parts = tmp_path / "parts"
    make().fit(parts, epochs=0)  # its logs
    for call in range(0, count(), 3):

        def work(call: int = call) -> None:
            with fault_at(call, faults.kill):
                make().fit(parts, resume=(parts / "last.safetensors").exists())

        status = ends(work)
        assert status in (-signal.SIGKILL, 1)
        for path in parts.glob("*.safetensors"):
            state = comparable(io.load_state(path))
            assert state == states[len(state["history"]) - 1]
        assert len(History.read(parts)) <= 3
    make().fit(parts, resume=True)
    assert final_state(parts) == states[-1]
    assert {path.name for path in parts.iterdir()} == {path.name for path in whole.iterdir()}, "nothing is left behind"


@forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_random_moments(tmp_path: Path, ending: signal.Signals) -> None:
    report = kill.run(tmp_path, 8, ending)
    assert report.signals == 8 and report.trainings >= 1


@pytest.mark.parametrize(("fault", "number"), [(faults.DISK_FULL, errno.ENOSPC), (faults.DENIED, errno.EACCES)])
def test_a_training_whose_disk_is_full(tmp_path: Path, fault: Any, number: int) -> None:
    """It ends, says which file was not saved, and can be resumed where it stood before."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make().fit(whole)
    disk = None

    def fill(record: Any, model: Any) -> None:
        nonlocal disk
        disk = fault_at(1, fault)
        disk.__enter__()

    with pytest.raises(OSError, match=r"not saved: .*safetensors'") as caught:
        make().fit(parts, callbacks=[fill])
    assert disk is not None
    disk.__exit__(None, None, None)
    assert caught.value.errno == number
    assert io.load_state(parts / "last.safetensors")["step"] == 4
    make().fit(parts, resume=True)
    assert final_state(parts) == final_state(whole)


def test_a_vanished_folder(tmp_path: Path) -> None:
    """It comes back with the next save; where it goes away within one, the save fails and says so."""
    folder, path = tmp_path / "runs", tmp_path / "runs" / "a.safetensors"
    io.save(path, OLD)

    def remove() -> None:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    remove()
    io.save(path, NEW)
    calls = calls_of_a_save(folder)
    for call in range(calls):
        io.save(path, OLD)
        failed = False
        with fault_at(call, remove):
            try:
                io.save(path, NEW)
            except FileNotFoundError as error:
                failed = True
                assert error.filename == str(path)
        # The first call makes it, and when the last one is made, the file has had its name.
        assert failed == (0 < call < calls - 1), call


LIMITED = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from numbanet import io
    path = Path(sys.argv[1]) / "a.safetensors"
    io.save(path, {"a": np.zeros(100)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    try:
        io.save(path, {"a": np.ones(10_000)})
    except OSError as error:
        print(error.errno, error)
    assert (io.load(path)["a"] == np.zeros(100)).all()
    print([file.name for file in path.parent.iterdir()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits")
def test_a_real_limit_in_the_middle_of_the_content(tmp_path: Path) -> None:
    lines = run_python(LIMITED, str(tmp_path)).splitlines()
    assert lines[0].startswith(f"{errno.EFBIG} ") and "not saved" in lines[0]
    assert lines[1] == "['a.safetensors']"


def test_the_command_says_what_was_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Run.save

    def full(*args: Any) -> Any:
        with fault_at(1, faults.DISK_FULL):
            return real(*args)

    monkeypatch.setattr(Run, "save", full)
    assert main(["train", "--epochs", "1", "--progress", "off", "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert re.fullmatch(r"numbanet: \[Errno 28\] not saved: No space left on device: '.*best\.safetensors'\n", message)
