"""Files that somebody made to do harm; `tests.fuzz_files` has the mutations and the long run."""

from __future__ import annotations

import ast
import gzip
import json
import math
import os
import pickle
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import numbanet
from numbanet import data, io, trusted
from numbanet.cli import predict, task
from numbanet.train.history import History
from tests.fuzz_files.__main__ import fuzz
from tests.fuzz_files.readers import READERS

PACKAGE = Path(numbanet.__file__).parent
IMAGE = [3, 8, 8]


# A reader that fills up what a truncated file lacks.
PLANTED = """
import numpy as np, numbanet.data.idx as idx
idx.read_exactly = lambda stream, count, path: np.frombuffer(stream.read(count).ljust(count, b"?"), np.uint8)
"""


def test_mutated_files_are_read_rightly_or_refused() -> None:
    counts, faults, _ = fuzz(list(READERS), seed=1, first=0, last=60)
    assert not faults
    assert counts["read"] > 5 * len(READERS)
    assert counts["refused"] > 20 * len(READERS)


def test_the_fuzzer_finds_a_planted_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED)  # which the child runs at its start
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    _, faults, _ = fuzz(["idx"], seed=1, first=0, last=100)
    assert any("not what the file holds" in text for _, _, text in faults)


# ---------------------------------------------------------------------------------------------------- code


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_run(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    content = pickle.dumps(Bomb(planted))
    (tmp_path / "log.jsonl").write_bytes(content)
    path = tmp_path / "file"
    header = json.dumps({"a": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    wrapped = len(header).to_bytes(8, "little") + header + content
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([Bomb(planted)], object), allow_pickle=True)
    for whole in (content, wrapped, objects.read_bytes()):
        path.write_bytes(whole)
        for read in (io.load_state, data.read_idx, task.read_checkpoint, lambda p: predict.read_image(p, IMAGE)):
            with pytest.raises(ValueError, match="file: "):
                read(path)
    assert io.load(_written(path, wrapped))["a"].tobytes() == content
    with pytest.raises(ValueError, match="not a record"):
        History.read(tmp_path)
    assert not planted.exists()
    pickle.loads(content)
    assert planted.exists()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    """Pickle is used for the cache of machine code, and between processes of one program.

    Exec is, for functions that are made of numbers and own names.
    """
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            words = []
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                words = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                words = [f"{node.func.id}()"]
            elif isinstance(node, ast.keyword):
                words = [f"{node.arg}="]
            found |= {(file.relative_to(PACKAGE).as_posix(), word) for word in words}
    dangerous = {"pickle", "marshal", "shelve", "dill", "joblib", "eval()", "exec()", "compile()", "allow_pickle="}
    assert {entry for entry in found if entry[1] in dangerous} == {
        ("ahead.py", "pickle"),
        ("ahead.py", "marshal"),
        ("cpu/cache.py", "pickle"),
        ("cpu/program.py", "exec()"),
        ("ops/steady.py", "eval()"),
        ("ops/steady.py", "exec()"),  # all of text that is written there
    }


# ---------------------------------------------------------------------------------------------------- sizes


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def _safetensors(shape: list[int], body: bytes = b"") -> bytes:
    end = 4 * math.prod(shape)
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return len(header).to_bytes(8, "little") + header + body


LIES: list[tuple[str, bytes, Callable[[Path], object]]] = [
    ("safetensors", _safetensors([10**6, 10**6]), io.load),
    ("header", (10**12).to_bytes(8, "little") + b"{}", io.load),
    ("idx", bytes([0, 0, 8, 2]) + struct.pack(">II", 10**6, 10**6), data.read_idx),
    ("idx.gz", gzip.compress(bytes([0, 0, 8, 2]) + struct.pack(">II", 10**6, 10**6), mtime=0), data.read_idx),
    ("png", _png(60_000, 60_000), lambda path: predict.read_image(path, IMAGE)),
    ("small png", _png(7_000, 7_000), lambda path: predict.read_image(path, IMAGE)),
]


@pytest.mark.parametrize(("content", "read"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_small_files_that_claim_much_are_refused_at_once(
    tmp_path: Path, content: bytes, read: Callable[[Path], object]
) -> None:
    assert len(content) < 250
    path = _written(tmp_path / "lie", content)
    tracemalloc.start()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with pytest.raises(ValueError, match="lie: "):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 64 << 10


def test_shapes_that_no_array_can_have_are_refused_by_name(tmp_path: Path) -> None:
    for shape in ([0, 2**40, 2**40], [0, 2**64 - 1], [1] * 65):
        path = _written(tmp_path / "a.safetensors", _safetensors(shape, bytes(4 * math.prod(shape))))
        with pytest.raises(ValueError, match="a.safetensors: tensor 'a' has shape"):
            io.load(path)
    for sizes in ((0, *[2**32 - 1] * 3), (1,) * 255):
        body = struct.pack(f">{len(sizes)}I", *sizes) + bytes(math.prod(sizes))
        path = _written(tmp_path / "a.idx", bytes([0, 0, 8, len(sizes)]) + body)
        with pytest.raises(ValueError, match="a.idx: declares an array of shape"):
            data.read_idx(path)


def test_deep_json_is_refused_by_name(tmp_path: Path) -> None:
    deep = b"[" * 200_000
    with pytest.raises(ValueError, match="a: not a safetensors file"):
        io.load(_written(tmp_path / "a", len(deep).to_bytes(8, "little") + deep))
    io.save(tmp_path / "b", {}, {"numbanet.state": deep.decode()})
    with pytest.raises(ValueError, match="b: its state is not JSON"):
        io.load_state(tmp_path / "b")
    io.save(tmp_path / "c", {}, {"numbanet.state": '{"$tuple":[' * 900 + "1" + "]}" * 900})
    with pytest.raises(ValueError, match="c: (its state is not JSON|damaged)"):
        io.load_state(tmp_path / "c")
    _written(tmp_path / "log.jsonl", deep)
    with pytest.raises(ValueError, match="line 1 is not a record"):
        History.read(tmp_path)


def test_a_checkpoint_cannot_ask_for_a_larger_model_than_it_holds(tmp_path: Path) -> None:
    whole = READERS["checkpoint"].seeds()[0]
    path = _written(tmp_path / "a.safetensors", whole)
    state = io.load_state(path)
    task.trained_model(path, task.read_checkpoint(path))
    facts = state["metadata"]["facts"]
    for changes, message in (
        ({"image_shape": [1, 2000, 2000]}, "more numbers than they may"),
        ({"model": "vgg16"}, "more numbers than they may"),
        ({"image_shape": [1, 10**6, 10**6]}, "image_shape can't be used"),
        ({"image_shape": [1, 12.0, 12]}, "image_shape can't be used"),
        ({"mean": [0.5, 0.5]}, "mean and std can't be used"),
        ({"mean": [2**63]}, "mean can't be used"),
        ({"std": [10**400]}, "std can't be used"),
        ({"classes": [1, 2]}, "classes can't be used"),
    ):
        io.save_state(path, {**state, "metadata": {"facts": {**facts, **changes}}})
        with pytest.raises(ValueError, match=f"a.safetensors: .*{message}"):
            task.trained_model(path, task.read_checkpoint(path))


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(OSError, match=f"{path}: is a device or a pipe"):
            io.load(path)


def test_kinds_of_images_that_start_programs_are_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"a\.png: not an image of a known kind \(BMP"):
        predict.read_image(path, IMAGE)


# ---------------------------------------------------------------------------------------------------- folders of code


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such owners")
def test_folders_that_others_can_write_are_not_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBANET_VERBOSE", raising=False)
    folder = tmp_path / "cache" / "kernels"
    old = os.umask(0o002)  # as where each user has a group of his own
    try:
        trusted.make(folder)
    finally:
        os.umask(old)
    file = _written(folder / "code", b"machine code")
    file.chmod(0o644)
    assert trusted.read(file) == b"machine code"
    for mode in (0o775, 0o757, 0o777):
        folder.chmod(mode)
        with pytest.raises(trusted.UntrustedError, match=f"can be written by others \\(mode {mode:o}\\)"):
            trusted.read(file)
        with pytest.raises(trusted.UntrustedError):
            trusted.make(folder)
        assert f"chmod -R go-w {folder}" in capsys.readouterr().err
    with pytest.raises(trusted.UntrustedError):
        trusted.read(file)
    assert not capsys.readouterr().err  # said once
    folder.chmod(0o755)
    file.chmod(0o666)
    with pytest.raises(trusted.UntrustedError, match="code: can be written"):
        trusted.read(file)
    file.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if os.getuid():  # what root owns is trusted
        with pytest.raises(trusted.UntrustedError, match=f"belongs to user {os.getuid()}"):
            trusted.read(file)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give files away")
def test_folders_of_another_user_are_not_trusted(tmp_path: Path) -> None:
    file = _written(tmp_path / "code", b"machine code")
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(trusted.UntrustedError, match="belongs to user 12345"):
        trusted.read(file)
    with pytest.raises(trusted.UntrustedError, match="belongs to user 12345"):
        trusted.make(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of this kind")
def test_links_and_pipes_in_the_cache_are_not_followed(tmp_path: Path) -> None:
    _written(tmp_path / "code", b"machine code")
    (tmp_path / "link").symlink_to(tmp_path / "code")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            trusted.read(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="this system has no such owners")
def test_kernels_of_an_open_folder_are_compiled_anew(tmp_path: Path) -> None:
    from tests.cpu.test_cache import RUN_RELU
    from tests.processes import run_python

    environment = {"NUMBANET_CACHE_DIR": str(tmp_path / "cache"), "NUMBANET_VERBOSE": "1"}
    assert "loaded" not in run_python(RUN_RELU, **environment)
    assert "loaded" in run_python(RUN_RELU, **environment)
    (folder,) = (tmp_path / "cache").glob("kernels-*")
    folder.chmod(0o777)
    before = sorted(path.stat().st_mtime_ns for path in folder.iterdir())
    lines = run_python(RUN_RELU, **environment)
    assert "loaded" not in lines and "right" in lines
    assert sorted(path.stat().st_mtime_ns for path in folder.iterdir()) == before
    told = run_python("import numbanet; print(numbanet.info())", **environment)
    assert f"not used: {folder} can be written by others (mode 777)" in " ".join(told.split())
