"""The command line: what it prints, writes and returns, and how it fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet
from numbanet import data, io
from numbanet import functional as F
from numbanet.__main__ import main
from numbanet.cli.predict import read_image
from numbanet.cli.runs import new_folder
from numbanet.cli.show import value
from numbanet.train.history import History

EPOCH = len(data.load_digits(True)) // 32 + 1  # batches of an epoch


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two epochs on the digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--epochs", "2", "--out", str(folder), "--progress", "off"]) == 0
    return folder


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Ctrl-C comes with the `call`-th batch."""
    real, calls = data.DataLoader.__iter__, iter(range(1, 10**6))

    def batches(loader: data.DataLoader) -> Iterator[Any]:
        for batch in real(loader):
            if next(calls) == call:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(data.DataLoader, "__iter__", batches)


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must fail, and return its message, which is one line."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 1
    message = capsys.readouterr().err
    assert message.startswith("numbanet: ") and message.count("\n") == 1 and "Traceback" not in message
    return message


def test_the_default_training_reaches_98_percent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "digits"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = re.search(r"test accuracy after epoch (\d+): ([\d.]+)%", captured.out)
    assert found
    history = History.read("runs/digits-digits")
    assert float(found[2]) >= 98.0
    assert len(history) == int(found[1])
    assert history[-1].test_accuracy == pytest.approx(float(found[2]) / 100, abs=1e-4)
    assert {path.name for path in Path("runs/digits-digits").iterdir()} == {
        "last.safetensors", "best.safetensors", "log.csv", "log.jsonl",
    }  # fmt: skip


def test_eval_gives_the_accuracy_of_the_log(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained)]) == 0
    out = capsys.readouterr().out
    assert f"accuracy {History.read(trained)[-1].test_accuracy:.2%}" in out
    assert "355 test images" in out and "after epoch 2" in out
    assert main(["eval", str(trained / "best.safetensors"), "--train-set"]) == 0
    assert "1,442 training images" in capsys.readouterr().out


def test_predict(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    test = data.load_digits(False)
    paths = []
    for number in range(20):
        picture = image.fromarray(test.images[number, 0]).resize((64, 64), image.Resampling.NEAREST)
        wide = image.new("RGB", (100, 64), "red")  # what lies left and right is cut away
        wide.paste(picture.convert("RGB"), (18, 0))
        paths.append(f"{number}.png")
        wide.save(paths[-1])
    assert main(["predict", "--checkpoint", str(trained), "--top", "2", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    found = [re.fullmatch(r"(\d+)\.png: (\d) ([\d.]+)%, (\d) ([\d.]+)%", line) for line in lines]
    assert all(found)
    correct = sum(int(match[2]) == test.labels[int(match[1])] for match in found if match)
    assert correct >= 15
    assert all(float(match[3]) >= float(match[5]) for match in found if match)


def test_predict_inverted(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = data.load_digits(False).images[0, 0]
    image.fromarray(pixels).save("light.png")
    image.fromarray(255 - pixels).save("ink.png")
    assert main(["predict", "--checkpoint", str(trained), "light.png"]) == 0
    light = capsys.readouterr().out
    assert main(["predict", "--checkpoint", str(trained), "--invert", "ink.png"]) == 0
    assert capsys.readouterr().out.replace("ink", "light") == light


def test_pictures_are_turned_upright_and_16_bits_are_scaled() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = data.load_digits(False).images[0, 0]
    turned = image.fromarray(np.rot90(pixels).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save("turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(Path("turned.png"), [1, 8, 8])[0], pixels)
    image.fromarray(pixels.astype(np.uint16) * 257).save("deep.png")
    for channels in (1, 3):
        np.testing.assert_array_equal(read_image(Path("deep.png"), [channels, 8, 8])[-1], pixels)


def test_predict_without_pillow_and_with_bad_files(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL.Image")
    command = ("predict", "--checkpoint", trained)
    assert "none.png: no such file" in fails(capsys, *command, "none.png")
    Path("text.png").write_text("no image")
    assert "text.png: not an image of a known kind" in fails(capsys, *command, "text.png")
    Path("cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(20))
    assert "cut.png: " in fails(capsys, *command, "cut.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert 'pip install "numbanet[data]"' in fails(capsys, *command, "text.png")


def test_interrupted_and_resumed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--epochs", "2", "--progress", "off"]
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, EPOCH + 10)
        assert main(["train", *options]) == 130
    notice, message = capsys.readouterr().err.splitlines()
    assert notice.startswith("numbanet: stopping after this batch")
    assert re.match(rf"numbanet: interrupted in epoch 2 of 2, after \d+ of {EPOCH} batches; saved to runs", message)
    command = re.search(r": numbanet (train --resume --out \S+) goes on from there$", message)
    assert command and main(command[1].split()) == 0
    assert re.search(r"done in [\d.]+ s since it was resumed: test accuracy", capsys.readouterr().out)
    assert main(["train", *options, "--out", "whole"]) == 0
    parts, whole = (io.load_state(f"{name}/last.safetensors") for name in ("runs/digits-digits", "whole"))
    for kind in ("model", "optimizer"):
        assert repr(tensors(parts[kind])) == repr(tensors(whole[kind]))
    assert parts["history"][-1]["test_loss"] == whole["history"][-1]["test_loss"]


def tensors(state: Any) -> Any:
    """Return a state with arrays as bytes."""
    if isinstance(state, dict):
        return {key: tensors(item) for key, item in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_real_ctrl_c() -> None:
    command = [sys.executable, "-m", "numbanet", "train", "--epochs", "500", "--out", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch   1/500"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    notice, message = errors.splitlines()
    assert notice.startswith("numbanet: stopping after this batch")
    assert re.fullmatch(r"numbanet: interrupted in epoch \d+ of 500, .*--resume --out run goes on from there", message)
    assert Path("run/last.safetensors").is_file()


def test_a_training_that_leaves_nothing_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    for words in ([], ["--out", "run"]):
        with monkeypatch.context() as patch:
            patch.setattr(F, "cross_entropy", interrupted)
            assert main(["train", "--progress", "off", *words]) == 130
        message = capsys.readouterr().err.splitlines()[-1]
        where = f"in epoch 1 of 20, after 0 of {EPOCH} batches, at once"
        assert message == f"numbanet: interrupted {where}; nothing was saved"
    assert not Path("run").exists() and list(Path("runs").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_training_whose_reader_goes_away_leaves_no_folder() -> None:
    assert into_a_closed_pipe("train") == (141, b"")
    assert list(Path("runs").iterdir()) == []


def test_a_training_is_never_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds a training: add --resume" in fails(capsys, "train", "--out", trained)
    for _ in range(2):
        assert main(["train", "--epochs", "1", "--progress", "off"]) == 0
    assert {path.name for path in Path("runs").iterdir()} == {"digits-digits", "digits-digits-2"}
    Path("runs/digits-digits-7").mkdir()  # not a training


def test_trainings_that_start_at_once_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def late(folder: Path) -> list[Path]:
        """What was there before another process made its folder."""
        found = list(listed(folder))
        (folder / "digits-digits").mkdir(exist_ok=True)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", late)
        assert new_folder("digits", "digits") == Path("runs/digits-digits-2")
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: new_folder("digits", "digits"), range(64)))
    assert len(set(folders)) == 64 and all(folder.is_dir() for folder in folders)


def place_trainings(trained: Path, *folders: str) -> None:
    """Copy a training into folders, of which the first is the oldest."""
    for age, folder in enumerate(reversed(folders)):
        shutil.copytree(trained, folder)
        os.utime(Path(folder) / "last.safetensors", (1e9 - age, 1e9 - age))


def test_resume_without_a_folder_takes_the_newest(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no training below runs" in fails(capsys, "train", "--resume")
    place_trainings(trained, "runs/digits-digits-3", "runs/digits-digits-2", "runs/mine")

    def resumed(*words: str) -> str:
        capsys.readouterr()
        assert main(["train", "--resume", *words]) == 0
        return capsys.readouterr().out.replace(os.sep, "/").rstrip().rpartition(" ")[2]

    assert resumed() == "runs/mine"
    for words in (["--data", "digits"], ["--model", "digits"], ["--data", "digits", "--model", "digits"]):
        assert resumed(*words) == "runs/digits-digits-2"
    message = fails(capsys, "train", "--resume", "--data", "mnist").replace(os.sep, "/")
    assert "no training called mnist-lenet5 below runs, only runs/digits-digits-2, runs/digits-digits-3" in message


def test_eval_and_predict_take_the_newest(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    assert "there is no training below runs" in fails(capsys, "eval")
    assert "there is no training below runs" in fails(capsys, "predict", "digit.png")
    place_trainings(trained, "runs/digits-digits-2", "runs/digits-digits")
    assert main(["eval"]) == 0
    newest = str(Path("runs/digits-digits/last.safetensors"))
    assert capsys.readouterr().out.startswith(f"{newest}: digits after epoch 2\n")
    image.fromarray(data.load_digits(False).images[0, 0]).save("digit.png")
    assert main(["predict", "digit.png"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"using {newest}\n" and captured.out.startswith("digit.png: ")


def test_resume_takes_no_other_settings(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "train", "--out", trained, "--resume", "--epochs", 5)
    assert "--epochs 5: the training in" in message and "was begun with 2, its learning rates" in message
    assert message.endswith("train longer in another folder\n")
    assert "was begun with 0.003\n" in fails(capsys, "train", "--out", trained, "--resume", "--lr", 0.1)
    assert main(["train", "--out", str(trained), "--resume", "--epochs", "2"]) == 0
    assert "test accuracy after epoch 2" in capsys.readouterr().out
    assert "no training to resume in nowhere" in fails(capsys, "train", "--resume", "--out", "nowhere")


def test_failures_are_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "train", "--data", "mnist", "--data-dir", "nowhere")
    assert "nowhere" in message and "--data-dir" in message and "--download" in message
    assert "device 'cuda' can't be used" in fails(capsys, "train", "--device", "cuda")
    assert "--threads must be between 1 and" in fails(capsys, "train", "--threads", 100000)
    assert "none.safetensors: no such file" in fails(capsys, "eval", "none.safetensors")
    io.save("plain.safetensors", {"weight": np.zeros(3)})
    assert "plain.safetensors: holds tensors only" in fails(capsys, "eval", "plain.safetensors")
    message = fails(capsys, "train", "--model", "lenet5")
    assert "--model lenet5 does not fit digits, images of 1x8x8: image_size must be at least 12" in message
    Path("damaged.safetensors").write_bytes((trained / "last.safetensors").read_bytes()[:1000])
    assert "damaged.safetensors: truncated" in fails(capsys, "eval", "damaged.safetensors")
    assert "loss in epoch 1, step" in fails(
        capsys, "train", "--optimizer", "sgd", "--lr", 1e30, "--weight-decay", 0, "--progress", "off"
    )
    Path("file").write_text("")
    assert "file" in fails(capsys, "train", "--epochs", 1, "--progress", "off", "--out", "file/below")


@pytest.mark.parametrize("command", ["eval", "predict", "train"])
def test_checkpoints_of_other_origin(trained: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    Path("runs").mkdir()
    path = Path("runs/last.safetensors")
    words = {"eval": ["eval", path], "predict": ["predict", "x.png"], "train": ["train", "--resume"]}[command]
    whole = io.load_state(trained / "last.safetensors")
    facts = whole["metadata"]["facts"]
    for metadata in ({}, None, [1], {"facts": None}, {"facts": {}}, {"facts": facts | {"mean": 3}}):
        io.save_state(path, whole | {"metadata": metadata})
        assert f"{path}: was not written by 'numbanet train'" in fails(capsys, *words)
    io.save_state(path, whole | {"model": None})
    assert "its model can't be used" in fails(capsys, *words)
    if command == "train":
        for task in (None, {}, {"seed": 1}):
            io.save_state(path, whole | {"metadata": {"facts": facts, "task": task}})
            assert f"{path}: does not tell how it was trained" in fails(capsys, *words)
    else:
        for changes in ({"model": {}}, {"metadata": {"facts": facts | {"model": "hal"}}}):
            io.save_state(path, whole | changes)
            assert f"{path}: its model can't be restored" in fails(capsys, *words)


def into_a_closed_pipe(command: str) -> tuple[int, bytes]:
    """Return the status and the errors of a command whose reader has gone away."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([sys.executable, "-m", "numbanet", command], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    return result.returncode, result.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_goes_away_is_no_error() -> None:
    assert into_a_closed_pipe("info") == (141, b"")


def test_ctrl_c_while_the_commands_are_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("argparse.ArgumentParser.add_subparsers", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "numbanet: interrupted\n"


def test_verbose_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBANET_VERBOSE", "1")
    with pytest.raises(FileNotFoundError):
        main(["eval", "none.safetensors"])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "dance",
        "train --epochs 0",
        "train --epochs x",
        "train --lr -1",
        "train --lr inf",
        "train --data imagenet",
        "train --model hal",
        "train --batch-size 0",
        "predict",
        "train --epoch 1",
        "eval --train",
        "--vers",
    ],
)
def test_usage_errors(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    assert "usage: numbanet" in capsys.readouterr().err


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "eval", "predict", "info", "explain", "plot"):
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
        assert f"usage: numbanet {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert re.search(r"mnist +lenet5 +8 +64 +sgd +0.05 +0.0005\n", text) and re.search(r"digits +others +30 +32", text)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"numbanet {numbanet.__version__}\n"


def test_info_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out == f"{numbanet.info()}\n"
    shapes = ["2x16x9x9", "32x16x3x3"]
    assert main(["explain", "conv2d", *shapes, "padding=1", "stride=(2,1)", "--which", "backward_weight"]) == 0
    options: dict[str, Any] = {"padding": 1, "stride": (2, 1), "which": "backward_weight"}
    assert capsys.readouterr().out.rstrip() == numbanet.explain("conv2d", (2, 16, 9, 9), (32, 16, 3, 3), **options)
    assert "operation must be one of" in fails(capsys, "explain", "conv9d", "1x2")
    assert "conv2d" in fails(capsys, "explain", "conv2d")


def test_words_of_explain() -> None:
    words = {
        "32x64x5x5": (32, 64, 5, 5),
        "2": 2,
        "(1,2)": (1, 2),
        "relu": "relu",
        "True": True,
        "0.5": 0.5,
        "None": None,
    }
    assert {text: value(text) for text in words} == words


def test_plot(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["plot", str(trained), "-o", "curves.svg", "--title", "digits"]) == 0
    assert "<svg" in Path("curves.svg").read_text()
    assert capsys.readouterr().out == "curves.svg\n"
    assert "is not the folder of a training" in fails(capsys, "plot", ".")
