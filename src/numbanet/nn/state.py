"""Copy a state dictionary into tensors: all faults are found first, and reported together."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
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
        file = isinstance(state_dict, (str, PathLike))
        hint = f": numbanet.io.load_model(model, {str(state_dict)!r}) reads a file" if file else ""
        if hasattr(state_dict, "state_dict") and not isinstance(state_dict, type):
            hint = ": its state_dict() is one"
        raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}{hint}")
    missing, unexpected = _names(targets, state_dict)
    values, faults = _values(targets, state_dict)
    if strict:
        remedy = _remedy(targets, state_dict, missing, unexpected) if missing and unexpected else []
        most = 4 if remedy else max(len(missing), len(unexpected))  # a remedy needs some only
        faults = [*remedy, *_listed("missing", missing, most), *_listed("unexpected", unexpected, most), *faults]
    if faults:
        raise RuntimeError(f"state_dict does not fit {owner}, nothing was loaded:\n  " + "\n  ".join(faults))
    for name, value in values.items():
        target = targets[name]
        if isinstance(target, UninitializedParameter):
            target.materialize(value.shape)
        memory.assign(target.data, value)
        target.bump_version()
    return LoadResult(missing, unexpected)


def _names(targets: Mapping[str, Tensor], state_dict: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the missing and the unexpected names."""
    # Files older than the counter of batches are complete without it, as in torch: it then stays as it is.
    missing = [name for name in targets if name not in state_dict and name.split(".")[-1] != "num_batches_tracked"]
    return missing, [name for name in state_dict if name not in targets]


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
        try:
            array = as_array(value.data if isinstance(value, Tensor) else value)
        except Exception as error:  # of somebody's kind of array
            faults.append(f"{name}: can't be read as an array: {error}")
            continue
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


def _remedy(
    targets: Mapping[str, Tensor], state_dict: Mapping[str, Any], missing: list[str], unexpected: list[str]
) -> list[str]:
    """Return the line that tells what to load instead, if something simple loads completely."""
    for name in unexpected:
        if _loads(targets, state_dict[name]):
            return [f"the values are one level deeper: load state_dict[{name!r}]"]
    if any(not isinstance(name, str) for name in unexpected):
        return []
    first = missing[0]
    for name in unexpected:
        if name.endswith(f".{first}"):
            prefix = name.removesuffix(first)
            renamed = {name.removeprefix(prefix): value for name, value in state_dict.items()}
            text = f"the names begin with {prefix!r}, those of the model do not"
            how = f"{{name.removeprefix({prefix!r}): value for name, value in state_dict.items()}}"
        elif first.endswith(f".{name}"):
            prefix = first.removesuffix(name)
            renamed = {prefix + name: value for name, value in state_dict.items()}
            text = f"the names of the model begin with {prefix!r}, those of state_dict do not"
            how = f"{{{prefix!r} + name: value for name, value in state_dict.items()}}"
        else:
            continue
        if len(renamed) == len(state_dict) and _loads(targets, renamed):
            return [f"{text}: load {how}"]
    return []


def _loads(targets: Mapping[str, Tensor], state_dict: Any) -> bool:
    """Return whether a state has all names of the model, no others, and values that fit."""
    if not isinstance(state_dict, Mapping) or any(_names(targets, state_dict)):
        return False
    return not _values(targets, state_dict)[1]


def _listed(kind: str, names: list[str], most: int) -> list[str]:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{kind}: {', '.join(map(str, names[:most]))}{more}"] if names else []
