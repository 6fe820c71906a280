"""Copy a state dictionary into tensors: all faults are found first, and reported together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numbanet import memory
from numbanet.nn.uninitialized import UninitializedParameter
from numbanet.problem.base import as_array
from numbanet.tensor import Tensor


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` did not find, and did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_state(owner: str, targets: Mapping[str, Tensor], state_dict: Any, strict: bool) -> LoadResult:
    """Copy values into tensors of the same names, in place; see `Module.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}")
    # Files older than the counter of batches are complete without it, as in torch: it then stays as it is.
    missing = [name for name in targets if name not in state_dict and name.split(".")[-1] != "num_batches_tracked"]
    unexpected = [name for name in state_dict if name not in targets]
    values, faults = _values(targets, state_dict)
    if strict:
        faults = [*_listed("missing", missing), *_listed("unexpected", unexpected), *faults]
    if faults:
        raise RuntimeError(f"state_dict does not fit {owner}, nothing was loaded:\n  " + "\n  ".join(faults))
    for name, value in values.items():
        target = targets[name]
        if isinstance(target, UninitializedParameter):
            target.materialize(value.shape)
        memory.assign(target.data, value)
        target.bump_version()
    return LoadResult(missing, unexpected)


def _values(targets: Mapping[str, Tensor], state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values, faults = {}, []
    for name, tensor in targets.items():
        if name not in state_dict:
            continue
        value = state_dict[name]
        if isinstance(value, UninitializedParameter):
            if not isinstance(tensor, UninitializedParameter):
                faults.append(f"{name}: is not initialized, the model needs values of shape {tensor.shape}")
            continue
        array = as_array(value.data if isinstance(value, Tensor) else value)
        if isinstance(tensor, UninitializedParameter):
            fits, expected = tensor.fits(array.shape), tensor.expected()
        else:
            if tensor.shape == () and array.shape == (1,):
                array = array[0]  # files older than 0-dimensional tensors
            fits, expected = array.shape == tensor.shape, str(tensor.shape)
        if array.dtype.kind not in "biuf":
            faults.append(f"{name}: holds {array.dtype}, expected numbers")
        elif not fits:
            faults.append(f"{name}: has shape {array.shape}, the model needs {expected}")
        else:
            values[name] = array
    return values, faults


def _listed(kind: str, names: list[str]) -> list[str]:
    return [f"{kind}: {', '.join(map(str, names))}"] if names else []
