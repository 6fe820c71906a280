"""Mutations: of bytes, of JSON, of gzip streams."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

# What breaks readers: where signs, words, doubles and memory end.
NUMBERS = (
    0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 10**12, 2**40,
    2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
JSON_TEXTS = (
    "null", "true", "-1", "0", "1", "3", "0.5", "-0.0", "1e999", "-1e999", "NaN", "Infinity", '"x"', '""', "[]", "{}",
    "[null]", "[0, 1000000000000]", "[1, 2, 3]", '{"a": 1}', '"\\ud800"', '"\\u0000"', '"' + "A" * 10_000 + '"',
    "1" * 5000, "[" * 500 + "]" * 500, "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 900 + "1" + "}" * 900,
    '{"$tensor": "model.weight"}', '{"$tensor": []}', '{"$tuple": "ab"}', '{"$items": [[[], 1]]}', '{"$items": 3}',
    *map(str, NUMBERS), *(f"-{number}" for number in NUMBERS), "1" + "0" * 400,
)  # fmt: skip


def mutated_bytes(rng: Random, content: bytes) -> bytes:
    """Return the bytes after one to four changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_CHANGES)(rng, data)
    return bytes(data)


def _flip(rng: Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _number(rng: Random, data: bytearray) -> None:
    width = rng.choice((1, 2, 4, 8))
    if len(data) >= width:
        start = rng.randrange(len(data) - width + 1)
        value = rng.choice(NUMBERS) % (1 << 8 * width)
        data[start : start + width] = value.to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]


def _truncate(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _delete(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 8, 64))]


def _repeat(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 16, 64))]
    data[start:start] = piece * rng.choice((1, 1, 2, 100))


def _insert(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice((1, 4, 16)))


def _move(rng: Random, data: bytearray) -> None:
    """Copy a piece of the file over another place of it."""
    source, target = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    piece = data[source : source + rng.choice((4, 16, 64))]
    data[target : target + len(piece)] = piece


_CHANGES = (_flip, _flip, _set, _number, _number, _truncate, _delete, _repeat, _insert, _move)


def mutated_json(rng: Random, value: Any) -> str:
    """Return the JSON text of a value in which one or two places were exchanged, doubled, removed or renamed."""
    text = json.dumps(value)
    for _ in range(rng.choice((1, 1, 2))):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            break
        text = _changed(rng, value)
    return text


def _changed(rng: Random, value: Any) -> str:
    holders: list[Any] = []
    _collect(value, holders)
    if not holders:
        return rng.choice(JSON_TEXTS)
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    own, mark = json.dumps(holder[key]), "@mark@"
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "$tensor", "$tuple", "$items", "__metadata__", "a" * 300))] = holder.pop(key)
    else:
        holder[key] = mark
    texts = [rng.choice(JSON_TEXTS)] * 4
    if isinstance(holder, dict):
        texts.append(f"{rng.choice(JSON_TEXTS)}, {json.dumps(key)}: {own}")  # the same key twice
    else:
        texts.append(f"{own}, {own}")
    return json.dumps(value).replace(f'"{mark}"', rng.choice(texts))


def _collect(value: Any, holders: list[Any]) -> None:
    """Gather the dictionaries and lists that hold something."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if items:
        holders.append(value)
    for item in items:
        _collect(item, holders)


def mutated_gzip(mutation: Mutation) -> Mutation:
    """Return a mutation of compressed files: of what they hold, or of the stream itself."""

    def mutate(rng: Random, content: bytes) -> bytes:
        if content[:2] != b"\x1f\x8b":
            return mutation(rng, content)
        how = rng.randrange(4)
        if how == 0:
            return mutated_bytes(rng, content)
        plain = gzip.decompress(content)
        if how == 1:  # what follows the declared end inflates to megabytes
            return gzip.compress(mutation(rng, plain) + bytes(rng.choice((1, 1000, 1 << 20, 1 << 24))), 1, mtime=0)
        return gzip.compress(mutation(rng, plain), 1, mtime=0)

    return mutate
