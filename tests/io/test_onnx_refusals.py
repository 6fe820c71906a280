"""ONNX files that are not supported, damaged or lie: each is refused with the name of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from numbanet import io
from tests.io.onnx_models import NEWEST, NORM, ints, load, model_of, node, residual_model, values

REFUSED: list[tuple[Any, dict[str, np.ndarray], str]] = [
    (node("Einsum", equation="i->i"), {}, "Einsum): this operator is not supported"),
    (node("Relu", domain="com.microsoft"), {}, "the domain 'com.microsoft'"),
    (node("Relu", alpha=1.0), {}, "the attribute 'alpha' is not supported"),
    (node("LeakyRelu", alpha=[1.0]), {}, "the attribute 'alpha' is of kind floats, expected float"),
    (node("Relu", "c"), {"c": values(1)}, "has 2 inputs, expected 1"),
    (node("Relu", outputs=()), {}, "has no output"),
    (node("Conv", "w"), {"w": values(2, 3, 1, 1, 1)}, "only one- and two-dimensional"),
    (node("Conv", "w", kernel_shape=[2, 2]), {"w": values(2, 3, 1, 1)}, "kernel_shape=(2, 2) does not fit"),
    (node("Conv", "w", group=3), {"w": values(2, 3, 1, 1)}, "group=3 does not divide the 2 filters"),
    (node("Conv", "w", group=10**12), {"w": values(2, 3, 1, 1)}, "does not divide the 2 filters"),
    (node("Conv", "w", pads=[-1, 0, 0, 0]), {"w": values(2, 3, 1, 1)}, "pads=(-1, 0, 0, 0)"),
    (node("Conv", "w", strides=[0, 1]), {"w": values(2, 3, 1, 1)}, "strides=(0, 1)"),
    (node("Conv", "w", auto_pad="MIDDLE"), {"w": values(2, 3, 1, 1)}, "auto_pad='MIDDLE'"),
    (node("Conv", "w", "b"), {"w": values(2, 3, 1, 1), "b": values(3)}, "'b' must be float32 of shape (2,)"),
    (node("Conv", "w"), {"w": np.zeros((2, 3, 1, 1), np.int64)}, "its input 'w' holds int64"),
    (node("Conv", "x"), {}, "its input 'x' is computed"),
    (node("Conv"), {}, "has no input number 2"),
    (node("ConvTranspose", "w", output_shape=[9, 9]), {"w": values(3, 2, 2, 2)}, "the attribute 'output_shape'"),
    (node("BatchNormalization", *"sbmv", training_mode=1), NORM, "training_mode=1 is not supported, only 0"),
    (node("BatchNormalization", *"sbmv"), {**NORM, "m": values(3)}, "'m' must be float32 of shape (4,)"),
    (node("MaxPool", kernel_shape=[2, 2], outputs=("y", "z")), {}, "the positions of the maxima"),
    (node("MaxPool", kernel_shape=[2]), {}, "kernel_shape=(2,) for 4 dimensions"),
    (node("MaxPool"), {}, "the attribute 'kernel_shape' is missing"),
    (node("LRN", size=4), {}, "size=4 is not supported, only odd"),
    (node("Cast", to=7), {}, "to=7 is not supported"),
    (node("Dropout", outputs=("y", "mask")), {}, "its mask"),
    (node("Reshape", "s"), {"s": ints(-1, -1)}, "shape (-1, -1) makes no sense"),
    (node("Reshape", "x"), {}, "its input 'x' is computed"),
    (node("Flatten", axis=5), {}, "axis 5 for 4 dimensions"),
    (node("Transpose", perm=[0, 1, 2, 2]), {}, "perm=(0, 1, 2, 2)"),
    (node("Unsqueeze", "a"), {"a": ints(1, 1)}, "axes=(1, 1)"),
    (node("Slice", "a", "b", "c", "d"), {"a": ints(0), "b": ints(1), "c": ints(0), "d": ints(-1)}, "a step of -1"),
    (node("Concat", "missing", axis=1), {}, "its input 'missing' is not there"),
    (node("Relu", outputs=("x",)), {}, "its output 'x' is there already"),
    (node("Add", "c"), {"c": np.zeros(3, np.int64)}, "only floats can be computed with"),
    (node("Resize", "", "s", coordinate_transformation_mode="tf_crop_and_resize"), {"s": values(4)}, "resize"),
]


@pytest.mark.parametrize(("made", "constants", "message"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_what_is_not_supported_is_refused_by_name(
    made: Any, constants: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as caught:
        load(model_of([made], constants), tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'model.onnx'}: node 'it' (")
    assert message in text


@pytest.mark.parametrize("opset", [1, 6, NEWEST + 1, 10**6])
def test_other_versions_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"opset {opset} is not supported, only 7 to {NEWEST}"):
        load(model_of([node("Relu")], {}, opset=opset), tmp_path)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for content in (b"", b"text, and no model", b"\x80\x04N.", residual_model().SerializeToString()[:-100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.onnx: "):
            io.load_onnx(path)
    with pytest.raises(FileNotFoundError, match="nothing: no such file"):
        io.load_onnx(tmp_path / "nothing")


# ---------------------------------------------------------------------------------------------------- tensors


def with_tensor(**changes: Any) -> Any:
    """A model whose only initializer lies."""
    proto = model_of([node("Add", "c")], {"c": values(4, 1, 1)})
    tensor = proto.graph.initializer[0]
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return proto


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": [10**6, 10**6]}, "holds 16 bytes, shape (1000000, 1000000)"),
        ({"dims": [-1, 4]}, "has shape (-1, 4)"),
        ({"dims": [0, 2**62, 2**62], "raw_data": b""}, "which NumPy lacks"),
        ({"dims": [1] * 33}, "has shape"),
        ({"data_type": 8}, "data type 8 is not supported"),
        ({"data_type": 10}, "data type 10 is not supported"),
        ({"raw_data": b"1234"}, "holds 4 bytes"),
    ],
)
def test_tensors_that_lie_about_their_size(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        load(with_tensor(**changes), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'}: initializer 'c': ")
    assert message in str(caught.value)


def external(location: str, offset: Any = 0, length: Any = 16) -> Any:
    proto = with_tensor(data_location=onnx.TensorProto.EXTERNAL)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return proto


def test_external_data(tmp_path: Path) -> None:
    weights = values(8)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_bytes(weights.tobytes())
    model = load(external("folder/data", 16), tmp_path)
    np.testing.assert_array_equal(model.state_dict()["c"].reshape(-1), weights[4:])


def test_external_data_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    (folder / "link").symlink_to(secret)
    (folder / "loop").symlink_to(folder / "loop")
    (tmp_path / "model-other").mkdir()
    (tmp_path / "model-other" / "data").write_bytes(bytes(64))
    (folder / "short").write_bytes(bytes(20))
    for location, message in (
        ("../secret", "outside of the model's folder"),
        (str(secret), "outside of the model's folder"),
        ("link", "outside of the model's folder"),
        ("../model-other/data", "outside of the model's folder"),
        ("/dev/zero", "outside of the model's folder"),
        ("", "outside of the model's folder"),
        ("a\0b", "can't be found"),
        ("loop", "(can't be found|are no file)"),
        ("nothing", "are no file"),
    ):
        with pytest.raises(ValueError, match=f"initializer 'c': .*{message}"):
            load(external(location), folder)
    for offset, length in ((5, 16), (-1, 16), (10**12, 16), (0, 15), (0, 10**12), ("x", 16), (0, "")):
        with pytest.raises(ValueError, match=r"initializer 'c': (bytes .* of 'short'|.*can't be found)"):
            load(external("short", offset, length), folder)


def test_external_data_are_not_read_over_and_over(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(16))
    proto = external("data")
    for number in range(10):
        again = proto.graph.initializer.add()
        again.CopyFrom(proto.graph.initializer[0])
        again.name = f"c{number}"
    with pytest.raises(ValueError, match="hold several times its 16 bytes"):
        load(proto, tmp_path)
