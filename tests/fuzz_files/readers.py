"""The readers, the small valid files that each starts from, its mutations, and what it must give for a file."""

from __future__ import annotations

import contextlib
import gzip
import io as streams
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from numbanet import data, io, measured, nn, optim, random
from numbanet.cli import predict, task
from numbanet.data import cifar
from numbanet.train.history import EpochRecord, History
from numbanet.train.recipes import Recipe
from numbanet.train.run import LAST_NAME, Run
from tests.fuzz_files.mutate import NUMBERS, Mutation, mutated_bytes, mutated_gzip, mutated_json


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes
    ----------
    name : str
        The file's name; errors must hold it.
    seeds : callable
        Makes the valid files.
    mutate : callable
        Makes one file of another.
    read : callable
        Reads a file; what it returns goes to `check`, with the file's content.
    refusals : tuple of exception types
        What the reader documents.
    check : callable
        Raises AssertionError where the content is not the right one.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    mutate: Mutation
    read: Callable[[Path], Any]
    check: Callable[[Any, bytes], None]
    refusals: tuple[type[Exception], ...] = (ValueError, OSError)


def _file(write: Callable[[Path], Any]) -> bytes:
    """Return the bytes that a function writes to a path."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


# ---------------------------------------------------------------------------------------------------- safetensors


def _split(content: bytes) -> tuple[Any, bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def _joined(header: str, body: bytes, lie: int = 0) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return ((len(text) + lie) % 2**64).to_bytes(8, "little") + text + body


def _tensor_files() -> list[bytes]:
    arrays = {
        "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "bias": np.zeros(2), "none": np.zeros((0, 3)),
        "flags": np.array([True, False]), "count": np.array(7),
    }  # fmt: skip
    return [_file(lambda path: io.save(path, arrays, {"made": "today"})), _file(lambda path: io.save(path, {}))]


def _mutated_tensors(rng: Random, content: bytes) -> bytes:
    how = rng.randrange(5)
    if how < 2:
        return mutated_bytes(rng, content)
    header, body = _split(content)
    if how == 2:
        return _joined(json.dumps(header), mutated_bytes(rng, body))
    lie = 0 if how == 3 else rng.choice((1, -1, 8, 1000, 10**12, 2**62, -(10**12)))
    return _joined(mutated_json(rng, header), body, lie)


def _check_tensors(found: tuple[dict[str, np.ndarray], dict[str, str]], content: bytes) -> None:
    header, body = _split(content)
    metadata = header.pop("__metadata__", None) or {}
    assert found[1] == metadata
    assert found[0].keys() == header.keys()
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        assert found[0][name].tobytes() == body[start:stop]
        assert list(found[0][name].shape) == entry["shape"]


def _load_model(path: Path) -> Any:
    model = nn.Sequential(nn.Conv2d(3, 2, 2, bias=False), nn.BatchNorm2d(2))
    io.load_model(model, path)
    return model.state_dict()


def _model_files() -> list[bytes]:
    model = nn.Sequential(nn.Conv2d(3, 2, 2, bias=False), nn.BatchNorm2d(2))
    state = dict(model.state_dict())
    return [_file(lambda path: io.save_model(model, path)), _file(lambda path: io.save_state(path, {"model": state}))]


def _check_model(found: dict[str, np.ndarray], content: bytes) -> None:
    header, _ = _split(content)
    assert found["0.weight"].shape == (2, 3, 2, 2)
    assert any(name.endswith("0.weight") for name in header) or "numbanet.state" in header["__metadata__"]


# ---------------------------------------------------------------------------------------------------- states


def _state_files() -> list[bytes]:
    state = {
        "model": {"weight": np.ones((2, 2), np.float32)}, "steps": [1, 2.5, None, True], "pair": (1, "a"),
        "big": 2**80, "keys": {1: "one", (2, 3): "two"}, "deep": [[[{"a": []}]]],
    }  # fmt: skip
    return [_file(lambda path: io.save_state(path, state))]


def _mutated_state(rng: Random, content: bytes) -> bytes:
    if rng.randrange(4) == 0:
        return _mutated_tensors(rng, content)
    header, body = _split(content)
    text = header.get("__metadata__", {}).get("numbanet.state")
    if text is None:
        return _mutated_tensors(rng, content)
    header["__metadata__"]["numbanet.state"] = mutated_json(rng, json.loads(text))
    return _joined(json.dumps(header), body)


def _run(folder: Path | None) -> Run:
    random.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    images = data.Dataset(np.zeros((6, 1, 2, 2), np.uint8), np.array([0, 1] * 3), ("a", "b"))
    loader = data.DataLoader(images, 2, shuffle=True, generator=np.random.default_rng(0), workers=0)
    return Run(model, optimizer, schedule, loader, epochs=3, out=folder)


_EPOCH = EpochRecord(1, 3, 0.1, 0.5, 0.75, None, None, 1.5, 100.0)


def _run_files() -> list[bytes]:
    run = _run(None)
    run.history = History([_EPOCH])
    run.optimizer.load_state_dict({
        **run.optimizer.state_dict(),
        "state": {i: {"step": 3, "exp_avg": np.zeros(p.shape, np.float32), "exp_avg_sq": np.ones(p.shape, np.float32)}
                  for i, p in enumerate(run.model.parameters())},
    })  # fmt: skip
    return [_file(lambda path: io.save_state(path, run.state_dict()))]


def _resume(path: Path) -> Any:
    run = _run(path.parent)
    run.load()
    next(iter(run.loader), None)
    _file(lambda other: io.save_state(other, run.state_dict()))
    return run


def _check_run(run: Run, content: bytes) -> None:
    assert 0 <= run.batch <= len(run.loader)
    assert run.step >= 0
    assert all(isinstance(record, EpochRecord) for record in run.history)


_FACTS = {
    "model": "lenet5", "data": "mnist", "data_dir": "datasets", "classes": ["a", "b"], "image_shape": [1, 12, 12],
    "mean": [0.5], "std": [0.25],
}  # fmt: skip


def _checkpoint_files() -> list[bytes]:
    model = task.build_model(_FACTS)
    settings = task.Task("mnist", "datasets", "lenet5", 0, Recipe(2, 4, "sgd", 0.1, 0.0)).to_dict()
    state = {
        "model": dict(model.state_dict()), "history": [asdict(_EPOCH)], "metadata": {"facts": _FACTS, "task": settings}
    }  # fmt: skip
    return [_file(lambda path: io.save_state(path, state))]


def _restore(path: Path) -> Any:
    state = task.read_checkpoint(path)
    data.Normalize(state["metadata"]["facts"]["mean"], state["metadata"]["facts"]["std"])
    return task.trained_model(path, state), state


def _check_restored(found: tuple[nn.Module, Any], content: bytes) -> None:
    model, state = found
    shape = state["metadata"]["facts"]["image_shape"]
    assert math.prod(shape) <= 1 << 22
    assert sum(p.numel() for p in model.parameters()) * 4 <= len(content)


# ---------------------------------------------------------------------------------------------------- logs and choices


def _log_files() -> list[bytes]:
    lines = [asdict(_EPOCH), {**asdict(_EPOCH), "epoch": 2, "test_loss": 0.25, "test_accuracy": 1}]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def _mutated_lines(rng: Random, content: bytes) -> bytes:
    if rng.randrange(3) == 0:
        return mutated_bytes(rng, content)
    lines: list[Any] = content.decode().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = mutated_json(rng, json.loads(lines[at]))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _check_log(history: History, content: bytes) -> None:
    rows = [json.loads(line) for line in content.splitlines()]
    assert repr(history.to_list()) == repr([{key: row[key] for key in asdict(_EPOCH)} for row in rows])


def _tuned_files() -> list[bytes]:
    from numbanet.cpu.cache import source_hash

    table = {"cpu float32 problem": {"cpu.direct": 0.001, "cpu.winograd": 2}}
    return [json.dumps({"cpu": "this", "kernels": source_hash(), "seconds": table}).encode()]


def _mutated_document(rng: Random, content: bytes) -> bytes:
    if rng.randrange(3) == 0:
        return mutated_bytes(rng, content)
    return mutated_json(rng, json.loads(content)).encode("utf-8", "surrogatepass")


def _read_tuned(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return measured.read()


def _check_tuned(table: dict[str, dict[str, float]], content: bytes) -> None:
    assert repr(table) == repr({
        name: {kernel: float(seconds) for kernel, seconds in found.items()}
        for name, found in json.loads(content)["seconds"].items()
    })  # fmt: skip


# ---------------------------------------------------------------------------------------------------- data sets


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def _idx_files() -> list[bytes]:
    images = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    plain = [_idx(images), _idx(images[0, 0]), _idx(images[:0])]
    return [*plain, *(gzip.compress(content, 6, mtime=0) for content in plain)]


def _check_idx(found: np.ndarray, content: bytes) -> None:
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert _idx(found) == plain


def _cifar_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    records = [bytes([label]) + rng.integers(0, 256, cifar.PIXELS, np.uint8).tobytes() for label in (0, 9, 4)]
    return [b"".join(records)]


def _read_cifar(path: Path) -> data.Dataset:
    return cifar._read([path], records=3, label_bytes=1, label=0, classes=cifar.CIFAR10_CLASSES)


def _check_cifar(found: data.Dataset, content: bytes) -> None:
    records = np.frombuffer(content, np.uint8).reshape(3, -1)
    np.testing.assert_array_equal(found.labels, records[:, 0])
    np.testing.assert_array_equal(found.images.reshape(3, -1), records[:, 1:])


def _image_files() -> list[bytes]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    picture, grey = Image.fromarray(pixels), Image.fromarray(pixels[:, :, 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (picture, "PNG", {"exif": exif}), (picture, "JPEG", {"exif": exif}), (picture, "WEBP", {"exif": exif}),
        (picture, "BMP", {}), (picture.quantize(16), "GIF", {}), (picture, "PPM", {}), (picture, "TIFF", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}), (picture, "TIFF", {"compression": "tiff_deflate"}),
        (grey.convert("I;16"), "PNG", {}), (grey.convert("1"), "PNG", {}), (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}), (picture.convert("RGBA"), "PNG", {}),
    ]  # fmt: skip
    found = []
    for image, kind, options in kinds:
        stream = streams.BytesIO()
        image.save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


def _check_image(found: np.ndarray, content: bytes) -> None:
    assert found.shape == (3, 8, 6)
    assert found.dtype == np.uint8


# ---------------------------------------------------------------------------------------------------- ONNX


def _onnx_files() -> list[bytes]:
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.standard_normal((4, 3, 3, 3)), "a.bias": np.zeros(4), "n.weight": np.ones(4),
        "n.bias": np.zeros(4), "n.running_mean": np.zeros(4), "n.running_var": np.ones(4),
        "f.weight": rng.standard_normal((2, 4)), "slope": np.ones((4, 1, 1)),
    }  # fmt: skip
    constants = {
        "shape": np.array([0, -1]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "axes": np.array([2, 3]),
        "scales": np.array([1, 1, 2, 2], np.float32), "one": np.array([1]), "low": np.float32(0).reshape(()),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    tensors += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    outside = numpy_helper.from_array(np.ones(4, np.float32), "outside")
    outside.ClearField("raw_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "data"), ("offset", "16"), ("length", "16")):
        entry = outside.external_data.add()
        entry.key, entry.value = key, value
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "a.weight", "a.bias"], ["1"], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        make("BatchNormalization", ["1", *(name for name in arrays if name.startswith("n."))], ["2"]),
        make("Clip", ["2", "low"], ["3"]), make("PRelu", ["3", "slope"], ["4"]),
        make("MaxPool", ["4"], ["5"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Pad", ["5", "pads"], ["6"], mode="reflect"),
        make("Resize", ["6", "", "scales"], ["7"], mode="linear"), make("Concat", ["7", "7"], ["8"], axis=1),
        make("Split", ["8"], ["9", "10"], axis=1), make("Add", ["9", "10"], ["11"]),
        make("Slice", ["11", "one", "one", "one"], ["12"]), make("Transpose", ["11"], ["13"], perm=[0, 1, 3, 2]),
        make("Unsqueeze", ["13", "one"], ["14"]), make("Squeeze", ["14", "one"], ["15"]),
        make("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5).reshape(()))),
        make("Mul", ["15", "half"], ["16"]), make("ReduceMean", ["16"], ["17"], axes=[2, 3], keepdims=1),
        make("Reshape", ["17", "shape"], ["18"]), make("Add", ["18", "outside"], ["19"]),
        make("Dropout", ["19"], ["20"]), make("Gemm", ["20", "f.weight"], ["21"], transB=1),
        make("Softmax", ["21"], ["y"], axis=-1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", 1, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, None)], [*tensors, outside],
    )  # fmt: skip
    return [helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()]


def _mutated_onnx(rng: Random, content: bytes) -> bytes:
    """Change bytes, or fields of the messages, whatever they are."""
    if rng.randrange(4) == 0:
        return mutated_bytes(rng, content)
    import onnx

    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        message: Any = model
        while True:
            # Down to a message, which is mostly a node, a tensor or an attribute, then one of its fields.
            fields = [field for field, _ in message.ListFields()]
            field = rng.choice(fields) if fields else None
            if field is None:
                break
            value = getattr(message, field.name)
            items = value if hasattr(value, "extend") else [value]
            if field.message_type is not None and len(items) and rng.randrange(8):
                message = rng.choice(items)
                continue
            _change_field(rng, message, field)
            break
    return model.SerializeToString()


def _change_field(rng: Random, message: Any, field: Any) -> None:
    number = rng.choice(NUMBERS) * rng.choice((1, 1, -1))
    options: dict[str, Any] = {
        "str": rng.choice(("", "x", "Conv", "Relu", "../data", "/etc/passwd", "a.weight", "y", "axes", "A" * 5000)),
        "bytes": rng.choice((b"", b"SAME_UPPER", b"SAME_LOWER", b"cubic", rng.randbytes(16), b"\xff")),
        "float": rng.choice((0.0, -1.0, 1e30, math.inf, math.nan)), "int": (number + 2**63) % 2**64 - 2**63,
    }  # fmt: skip
    value = getattr(message, field.name)
    if hasattr(value, "extend"):
        at = rng.randrange(len(value)) if len(value) else 0
        how = rng.randrange(4)
        if how == 0 or not len(value):
            message.ClearField(field.name)
        elif how == 1:
            del value[at]
        elif field.message_type is not None:
            value.add().CopyFrom(value[at])
        elif how == 2:
            value.append(value[at])
        else:
            value[at] = options.get(type(value[at]).__name__, value[at])
    elif field.message_type is not None or rng.randrange(6) == 0:
        message.ClearField(field.name)
    else:
        wanted = options.get(type(value).__name__, value)
        with contextlib.suppress(ValueError):  # a number that the field has no room for
            setattr(message, field.name, wanted if not isinstance(value, int) else rng.choice((number, number % 32)))


def _load_onnx(path: Path) -> Any:
    (path.parent / "data").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    return io.load_onnx(path)


def _check_onnx(found: Any, content: bytes) -> None:
    import onnx

    proto = onnx.ModelProto.FromString(content)
    assert found.outputs == tuple(value.name for value in proto.graph.output)
    assert sum(p.numel() for p in found.parameters()) * 4 <= len(content) + 2 * 32
    assert len(found.steps) <= 2 * len(proto.graph.node)


READERS = {
    "safetensors": Reader("a.safetensors", _tensor_files, _mutated_tensors, io.load_with_metadata, _check_tensors),
    "state": Reader("a.safetensors", _state_files, _mutated_state, io.load_state, lambda state, _: dict.keys(state)),
    "model": Reader("a.safetensors", _model_files, _mutated_state, _load_model, _check_model,
                    (ValueError, OSError, RuntimeError)),
    "resume": Reader(LAST_NAME, _run_files, _mutated_state, _resume, _check_run),
    "checkpoint": Reader("a.safetensors", _checkpoint_files, _mutated_state, _restore, _check_restored),
    "log": Reader("log.jsonl", _log_files, _mutated_lines, lambda path: History.read(path.parent), _check_log),
    "tuned": Reader("tuned", _tuned_files, _mutated_document, _read_tuned, _check_tuned, (RuntimeWarning,)),
    "idx": Reader("a.idx", _idx_files, mutated_gzip(mutated_bytes), data.read_idx, _check_idx),
    "cifar": Reader("a.bin", _cifar_files, mutated_bytes, _read_cifar, _check_cifar),
    "image": Reader("a.png", _image_files, mutated_bytes, lambda path: predict.read_image(path, [3, 8, 6]),
                    _check_image),
    "onnx": Reader("a.onnx", _onnx_files, _mutated_onnx, _load_onnx, _check_onnx),
}  # fmt: skip
"""By the name that the table and the command line use."""

