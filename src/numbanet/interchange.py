"""Memory comes from other libraries, and goes to them, without a copy: DLPack and ``__cuda_array_interface__``.

NumPy speaks DLPack for memory of the host, and keeps what it got alive. For memory of a GPU it is shown the same
address as if that lay on the host: it reads no element to make an array or a capsule. So it is NumPy who checks shapes,
strides and dtypes, and who calls the owner when the last array is gone.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from numbanet import settings
from numbanet.cuda import launch, unavailable_reason
from numbanet.device_array import DeviceArray, Memory
from numbanet.tensor import Tensor
from numbanet.watch import doubt

_CPU, _CUDA, _CUDA_MANAGED = 1, 2, 13  # DLDeviceType of dlpack.h
_VERSION = (1, 0)  # the newest layout that NumPy reads
_DEVICE_AT = {b"dltensor": 8, b"dltensor_versioned": 40}  # bytes from a capsule's pointer to its device

_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Capsule:
    """A capsule as an object that NumPy and others take, said to lie on the host."""

    def __init__(self, capsule: Any):
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


class _Shown:
    """Memory as an object of which NumPy makes an array, which keeps `owner` alive."""

    def __init__(self, owner: Any, interface: dict[str, Any]):
        self._owner = owner
        self.__array_interface__ = interface


def from_dlpack(x: Any, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """Return a tensor on the memory of another library's array: a change of one is a change of both.

    Parameters
    ----------
    x : object
        Has ``__dlpack__``, such as arrays of NumPy, PyTorch, JAX and CuPy; or is a DLPack capsule; or has
        ``__cuda_array_interface__``, such as arrays of numba.cuda. Any shape and strides; booleans, integers and
        floating-point numbers that NumPy has. It is kept alive. On a GPU, what its stream was given comes first.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
        Where the tensor shall be; there where x is if None.
    copy : bool, optional
        True: copy always. False: never. None: only where x is on another device.

    Returns
    -------
    Tensor
        With the shape and the dtype of x. It can't be changed in place where x is read-only. A capsule of before
        DLPack 1.0 can't say so: as in PyTorch, it is taken for writable.

    Raises
    ------
    TypeError
        If x has no such protocol, or elements of another kind.
    ValueError
        If x lies on a device that is neither the CPU nor the GPU in use, what it tells about its memory is not valid,
        or `device` needs a copy that `copy` forbids.
    RuntimeError
        If x lies on a GPU and none can be used; the message says why.
    BufferError
        If its owner does not hand it out, as PyTorch does with tensors that require gradients.
    """
    doubt("a tensor was made of other values")
    target = None if device is None else settings.resolve_device(device)
    result = Tensor(_array(x))
    if target is not None and target != result.device:
        if copy is False:
            raise ValueError(f"copy must not be False where x is on {result.device!r} and device is {device!r}")
        return result.to(target)
    return result.clone() if copy else result


def on_gpu(x: Any) -> DeviceArray:
    """Return a device array on the memory of an object that has ``__cuda_array_interface__``."""
    interface = x.__cuda_array_interface__
    _needs_gpu(x)
    if not isinstance(interface, dict):
        raise TypeError(f"x.__cuda_array_interface__ must be a dict, got {type(interface).__name__}")
    missing = [key for key in ("shape", "typestr", "data", "version") if key not in interface]
    if missing:
        raise ValueError(f"x.__cuda_array_interface__ must have {missing[0]!r}, got the keys {sorted(interface)}")
    version, stream = interface["version"], interface.get("stream")
    if version not in range(4):
        raise ValueError(f"x.__cuda_array_interface__ must be of version 0 to 3, got version {version!r}")
    if interface.get("mask") is not None:
        raise ValueError("x.__cuda_array_interface__ must have no mask: numbanet has no masked arrays")
    if stream is not None:
        _check_stream("x.__cuda_array_interface__['stream']", stream)
    told: dict[str, Any] = {key: interface.get(key) for key in ("shape", "typestr", "data", "strides")}
    try:
        address, read_only = told["data"]
        if not address and 0 not in told["shape"]:
            raise ValueError("its address is null")
        # An empty array has no address; NumPy wants one.
        told["data"] = (int(address) or 1 << 12, bool(read_only))
        view = np.asarray(_Shown(x, {**told, "version": 3}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"x.__cuda_array_interface__ must describe an array, got {told}: {error}") from None
    array = _device_array(view)
    if stream is not None:
        ours = launch.of(array)
        ours.order(stream, ours.stream_handle())
    return array


def export(
    tensor: Tensor, stream: Any, max_version: tuple[int, int] | None, dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:  # fmt: skip
    """Return a tensor as a DLPack capsule: see `Tensor.__dlpack__`."""
    if tensor.requires_grad:
        raise BufferError("__dlpack__() of a tensor that requires a gradient: call detach() first")
    doubt("values were read")
    array: Any = tensor.data
    own = device_of(tensor)
    target = own if dl_device is None else (int(dl_device[0]), int(dl_device[1]))
    if target != own and (target != (_CPU, 0) or copy is False):
        raise BufferError(f"dl_device must be {own}, where the tensor is, got {target}: move it with to() first")
    if own[0] != _CPU:
        if stream is not None and stream != -1:
            _check_stream("stream", stream)
        if target == own:
            return _export_from_gpu(array, 1 if stream is None else stream, max_version, copy)
        return _host_capsule(array.to_host(), max_version=max_version)
    if stream is not None:
        raise ValueError(f"stream must be None for a tensor on the CPU, got {stream!r}")
    return _host_capsule(array, max_version=max_version, copy=copy)


def device_of(tensor: Tensor) -> tuple[int, int]:
    """Return DLPack's kind and number of a tensor's device."""
    return (_CPU, 0) if tensor.device == "cpu" else (_CUDA, tensor.data.memory.device)  # type: ignore[attr-defined]


def _host_capsule(array: Any, **options: Any) -> Any:
    """Return NumPy's capsule of its array; NumPy before 2.1 knows none of the options."""
    try:
        if np.lib.NumpyVersion(np.__version__) < "2.1.0":
            return (array.copy() if options.get("copy") else array).__dlpack__()
        return array.__dlpack__(**options)
    except BufferError as error:
        raise BufferError(
            f"the tensor, of dtype {array.dtype.str} and {'writable' if array.flags.writeable else 'read-only'}, can't "
            f"be handed out with max_version {options['max_version']}: {error}"
        ) from None


def _export_from_gpu(array: DeviceArray, stream: int, max_version: Any, copy: bool | None) -> Any:
    array = array.copy() if copy else array
    interface = {
        "shape": array.shape, "typestr": array.dtype.str, "strides": array.strides, "version": 3,
        "data": (array.pointer, not array.writeable),
    }  # fmt: skip
    capsule = _host_capsule(np.asarray(_Shown(array.memory, interface)), max_version=max_version)
    ours = launch.of(array)
    _device_field(capsule)[:] = _CUDA, ours.ordinal
    if stream != -1:
        ours.order(ours.stream_handle(), stream)
    return capsule


def _array(x: Any) -> Any:
    """Return a NumPy array or a device array on the memory of x."""
    if type(x).__name__ == "PyCapsule":
        if _name(x) not in _DEVICE_AT:
            raise ValueError(f"x must be a DLPack capsule that nobody took yet, got {x!r}")
        return _taken(x, x)
    if not hasattr(x, "__dlpack__"):
        if hasattr(x, "__cuda_array_interface__"):
            return on_gpu(x)
        raise TypeError(f"x must have __dlpack__ or __cuda_array_interface__, got {type(x).__name__}")
    kind, number = x.__dlpack_device__()
    if kind not in (_CUDA, _CUDA_MANAGED):
        return _taken(x, _asked(x))
    _needs_gpu(x)
    _check_ordinal(int(number))
    return _taken(x, _asked(x, stream=launch.numbered(int(number)).stream_handle()))


def _asked(x: Any, **options: Any) -> Any:
    """Return the capsule of x, with the flag of read-only memory where x knows that."""
    try:
        return x.__dlpack__(max_version=_VERSION, **options)
    except TypeError:  # of before DLPack 1.0
        return x.__dlpack__(**options)


def _taken(x: Any, capsule: Any) -> Any:
    """Return the array of a capsule, which is used up; x is what it came from."""
    field = _device_field(capsule)
    kind, number = field
    tells_read_only = _name(capsule) == b"dltensor_versioned"
    on_device = kind in (_CUDA, _CUDA_MANAGED)
    if on_device:
        _needs_gpu(x)
        field[:] = _CPU, 0
    try:
        view = np.from_dlpack(_Capsule(capsule))
    except (BufferError, RuntimeError) as error:
        raise _refused(x, kind, error) from None
    finally:
        if on_device:  # its owner gets it back as it was
            field[:] = kind, number
    if not tells_read_only:  # which NumPy takes for read-only
        interface = view.__array_interface__
        view = np.asarray(_Shown(view, {**interface, "data": (interface["data"][0], False)}))
    if on_device:
        return _device_array(view)
    if view.dtype.kind not in "biuf":
        raise TypeError(f"x must hold real numbers, got dtype {view.dtype}")
    return view


def _refused(x: Any, kind: int, error: Exception) -> Exception:
    if kind not in (_CPU, _CUDA, _CUDA_MANAGED):
        return ValueError(f"x must lie on the CPU or on a GPU of CUDA, got a device of DLPack's kind {kind}")
    return TypeError(f"x must hold numbers of a dtype that NumPy has, got {getattr(x, 'dtype', 'another')}: {error}")


def _device_field(capsule: Any) -> Any:
    """Return the two numbers, kind and ordinal, in a capsule's memory that say on which device its array lies."""
    name = _name(capsule)
    return (ctypes.c_int32 * 2).from_address(_pointer(capsule, name) + _DEVICE_AT[name])


def _device_array(view: np.ndarray) -> DeviceArray:
    """Return a device array for what NumPy was told to lie on the host; `view` keeps the memory."""
    dtype = view.dtype
    if dtype.kind not in "biuf" or not dtype.isnative:
        raise TypeError(f"x must hold real numbers in this machine's byte order, got dtype {dtype.str}")
    pointer = view.__array_interface__["data"][0]
    ordinal = launch.current().ordinal  # of no elements, which lie anywhere
    if view.size:
        if any(place % dtype.itemsize for place in (pointer, *view.strides)):
            raise ValueError(
                f"x must lie at multiples of its elements' {dtype.itemsize} bytes, got address {pointer:#x} and "
                f"strides {view.strides}"
            )
        try:
            ordinal = launch.current().ordinal_of(pointer)
        except RuntimeError as error:
            raise ValueError(f"x must lie on a GPU, got address {pointer:#x}: {error}") from None
        _check_ordinal(ordinal)
    steps = [stride * (size - 1) for stride, size in zip(view.strides, view.shape)] if view.size else []
    before, after = (sum(step for step in steps if (step < 0) == backwards) for backwards in (True, False))
    size = after - before + (dtype.itemsize if view.size else 0)
    memory = Memory(pointer + before, size, view, ours=False, device=ordinal)
    return DeviceArray(memory, pointer, view.shape, view.strides, dtype, view.flags.writeable)


def _needs_gpu(x: Any) -> None:
    reason = unavailable_reason()
    if reason is not None:
        raise RuntimeError(f"x ({type(x).__name__}) lies on a GPU, and none can be used: {reason}")


def _check_ordinal(ordinal: int) -> None:
    reason = unavailable_reason(ordinal)
    if reason is not None:
        raise ValueError(f"x must lie on a GPU that can be used, got GPU {ordinal}: {reason}")


def _check_stream(name: str, stream: Any) -> None:
    if not isinstance(stream, int) or isinstance(stream, bool):
        raise TypeError(f"{name} must be an integer or None, got {stream!r}")
    if stream <= 0:
        raise ValueError(f"{name} must be 1, 2 or the handle of a stream, got {stream}")
