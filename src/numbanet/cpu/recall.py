"""Find what is done for operands of a kind: in machine code, by what their headers in memory say.

In Python, asking two arrays for their shapes, strides and dtypes and looking that up takes longer than a product of
small matrices. Here a table of addresses leads to what is known, as in any hash table: to an entry of the words that
two operands of a kind have in common, so nothing is found but by comparing all of them.

Everything is written and read by threads that hold Python's lock.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import Any, NamedTuple

import numpy as np

from numbanet.cpu.atomic import put
from numbanet.cpu.compile import device
from numbanet.cpu.objects import address_of, in_context, object_at, reference, same_integer
from numbanet.cpu.parallel import driver, place
from numbanet.cpu.task import DATA, ITEMS, word
from numbanet.prepared import PreparedWeight

# Where objects keep what is read here, in bytes from their address. See `numbanet.cpu.task`.
_HEAD = object.__basicsize__
_TYPE, _SIZE = _HEAD - 8, _HEAD
_NDIM, _SHAPE, _STRIDES, _DTYPE = (_HEAD + field for field in (8, 16, 24, 40))
_KIND = _HEAD + 8  # of a dtype: the letters of its kind, type and byte order, its flags and its number
_VALUE = _HEAD  # of a float
_WEIGHT = _HEAD + 8 * sorted(PreparedWeight.__slots__).index("array")

_FEW = 64  # slots at first
_MOST = 256  # words of the operands of a call
_DIMENSIONS = 8
_NUMBERS = frozenset("?bhilqpBHILQPefdg")  # the dtypes that those words tell apart from all others
_FACTOR = 0x2545F4914F6CDD1D
# Words that machine code is given, since they differ from process to process.
_FACTS = (None, np.ndarray, PreparedWeight, tuple, int, float)
_NONE, _ARRAY, _PREPARED, _TUPLE, _INT, _FLOAT = (8 * number for number in range(len(_FACTS)))


class Table(NamedTuple):
    """What is known of one function's operands. Whoever has it keeps alive what may be found in it.

    Attributes
    ----------
    slots : numpy.ndarray
        Pairs of a hash and the address of an entry, which is 0 where there is none; a power of two of them. An entry is
        the address of what is found, that of the options, the number of words that follow, and these words.
    guards : numpy.ndarray
        An address, and the word that must be there; and how many context variables follow, with the addresses of the
        variable and of the value that it must have.
    facts, scratch : numpy.ndarray
        The addresses of `_FACTS`; and where the number of words of operands, their hash, and these words are written.
    kept : list
        Of each entry its hash, its words, its options, and what is found; and first of all what the guards belong to.
        Nothing is taken away: several threads may be at it.
    """

    slots: np.ndarray
    guards: np.ndarray
    facts: np.ndarray
    scratch: np.ndarray
    kept: list[tuple[Any, ...]]


@device
def _describe(facts, operands, found):
    """Write what decides about a call of a tuple of operands, values apart; return the number of words, 0 if unknown.

    An operand is an array, None, or a prepared weight.
    """
    n = 0
    for number in range(word(operands, _SIZE)):
        x = word(operands, ITEMS + 8 * number)
        if x == word(facts, _NONE):
            put(found, n, x)
            n += 1
            continue
        kind = word(x, _TYPE)
        array = word(x, _WEIGHT) if kind == word(facts, _PREPARED) else x
        if array == 0 or word(array, _TYPE) != word(facts, _ARRAY):
            return 0
        dims = word(array, _NDIM) & 0xFFFFFFFF
        if dims > _DIMENSIONS or n + 3 + 2 * dims > _MOST:
            return 0
        put(found, n, kind)
        put(found, n + 1, word(word(array, _DTYPE), _KIND))
        put(found, n + 2, dims)
        n += 3
        shape, strides = word(array, _SHAPE), word(array, _STRIDES)
        for axis in range(dims):
            put(found, n, word(shape, 8 * axis))
            put(found, n + 1, word(strides, 8 * axis))
            n += 2
    return n


@device
def _hash(words, n):
    h = n
    for i in range(n):
        h = (h ^ word(words, 8 * i)) * _FACTOR
        h ^= h >> 29
    return h


@device
def _alike(facts, a, b):
    """Return whether two options have one meaning: 1.0 and True are no 1, and -0.0 is no 0.0."""
    if a == b:
        return True
    kind = word(a, _TYPE)
    if kind != word(b, _TYPE):
        return False
    if kind == word(facts, _FLOAT):
        return word(a, _VALUE) == word(b, _VALUE)
    return kind == word(facts, _INT) and same_integer(a, b)


@device
def _all_alike(facts, a, b):
    """Return whether the options in two tuples are alike; where they are tuples of their own, those in them."""
    if word(a, _SIZE) != word(b, _SIZE):
        return False
    for i in range(word(a, _SIZE)):
        x, y = word(a, ITEMS + 8 * i), word(b, ITEMS + 8 * i)
        if _alike(facts, x, y):
            continue
        pair = word(x, _TYPE) == word(facts, _TUPLE) == word(y, _TYPE)
        if not pair or word(x, _SIZE) != word(y, _SIZE):
            return False
        for j in range(word(x, _SIZE)):
            if not _alike(facts, word(x, ITEMS + 8 * j), word(y, ITEMS + 8 * j)):
                return False
    return True


@device
def _guarded(guards):
    """Return whether all is as it was when the table was made."""
    if word(word(guards, 0), 0) != word(guards, 8):
        return False
    for i in range(word(guards, 16)):
        if in_context(word(guards, 24 + 16 * i)) != word(guards, 32 + 16 * i):
            return False
    return True


@device
def _item(table, number):
    """Return the address of the first element of an array in a tuple."""
    return word(word(table, ITEMS + 8 * number), DATA)


def _find(table, operands, options):
    table, operands, options = address_of(table), address_of(operands), address_of(options)
    slots, facts, scratch = _item(table, 0), _item(table, 2), _item(table, 3)
    nothing, words = word(facts, _NONE), scratch + 16
    n = _describe(facts, operands, words)
    h = _hash(words, n)
    put(scratch, 0, n)
    put(scratch, 1, h)
    if n == 0 or not _guarded(_item(table, 1)):
        return object_at(nothing)
    last = word(word(word(table, ITEMS), _SHAPE), 0) - 1  # of the slots
    at = h & last
    while True:
        entry = word(slots, 16 * at + 8)
        if entry == 0:
            return object_at(nothing)
        if word(slots, 16 * at) == h and word(entry, 16) == n:
            i = 0
            while i < n and word(entry, 24 + 8 * i) == word(words, 8 * i):
                i += 1
            if i == n and _all_alike(facts, word(entry, 8), options):
                return object_at(word(entry, 0))
        at = (at + 1) & last


class _State:
    """What `prepare` sets up."""

    find: Any = None
    facts = np.array([id(fact) for fact in _FACTS], np.int64)


def prepare() -> None:
    """Compile what looks for operands."""
    _State.find = driver(_find, 3, reference, reference, nogil=False)


def finder() -> Any:
    """Return the function of a table, operands and options that returns what is known of them, or None."""
    return _State.find


def new_table(changes: np.ndarray, count: int, variables: tuple[ContextVar[Any], ...]) -> Table:
    """Return an empty table, in which something is found as long as there are `count` changes.

    Parameters
    ----------
    changes : numpy.ndarray
        One word.
    variables : tuple of ContextVar
        Nothing is found where one of them has been set to another object than its default.
    """
    usual = Context().run(lambda: [variable.get() for variable in variables])
    pairs = [id(x) for pair in zip(variables, usual) for x in pair]
    guards = np.array([place(changes), count, len(variables), *pairs], np.int64)
    kept: list[tuple[Any, ...]] = [(changes, variables, usual)]
    return Table(np.zeros((_FEW, 2), np.int64), guards, _State.facts, _scratch(), kept)


def added(table: Table, operands: tuple[Any, ...], options: tuple[Any, ...], found: Any) -> Table:
    """Return the table, or a larger one that takes its place, where `found` is found for operands and options.

    What was found for them before is not any more. Operands of which machine code knows too little are left out.
    """
    described = table._replace(scratch=_scratch())  # where nobody else writes
    before = _State.find(described, operands, options)
    if before is not None:
        words = next(entry[1] for entry in table.kept[1:] if entry[3] is before)
        table.kept.append((0, words, options, found))
        words[0] = id(found)
        return table
    count, code = map(int, described.scratch[:2])
    arrays = [x.array if type(x) is PreparedWeight else x for x in operands]
    if count == 0 or not all(x is None or x.dtype.char in _NUMBERS for x in arrays):
        return table
    words = np.array([id(found), id(options), count, *described.scratch[2 : 2 + count]], np.int64)
    table.kept.append((code, words, options, found))
    if 2 * len(table.kept) <= len(table.slots):
        _enter(table.slots, code, place(words))
        return table
    larger = np.zeros((1 << (4 * len(table.kept)).bit_length(), 2), np.int64)
    for address, code in {place(entry[1]): entry[0] for entry in table.kept[1:] if entry[0]}.items():
        _enter(larger, code, address)
    return table._replace(slots=larger)


def _scratch() -> np.ndarray:
    return np.empty(2 + _MOST, np.int64)


def _enter(slots: np.ndarray, code: int, address: int) -> None:
    """Put the address of an entry into a free slot."""
    last = len(slots) - 1
    at = code & last
    while slots[at, 1] != 0:
        at = (at + 1) & last
    slots[at, 0] = code
    slots[at, 1] = address  # last: until then nobody looks at the rest
