"""The memory that an interpreted kernel sees: buffers with guards between them, and shared memory with its history."""

from __future__ import annotations

from typing import Any

import numpy as np

_BASE = 0x7F0000000000  # a global address is no small number, so that confusing it with an offset shows
_GUARD = 256
_READS, _HAS_READ = -1, -2


class Fault(Exception):
    """What the interpreted program did wrong."""


class GlobalMemory:
    """Buffers in one address space, each aligned to 256 bytes, with guards between them."""

    def __init__(self, buffers: list[np.ndarray]):
        self._buffers = buffers
        starts, end = [], _GUARD
        for buffer in buffers:
            if not buffer.flags.c_contiguous:
                raise ValueError("a buffer must be C-contiguous")
            starts.append(end)
            end += -(-(buffer.nbytes + _GUARD) // _GUARD) * _GUARD
        self.bytes = np.zeros(end, np.uint8)
        self._owner = np.full(end, -1, np.int32)
        self._starts = starts
        self.maps: dict[int, tuple[Any, int]] = {}  # of each tensor map's address, its form and its tensor's address
        for number, (start, buffer) in enumerate(zip(starts, buffers)):
            self.bytes[start : start + buffer.nbytes] = buffer.reshape(-1).view(np.uint8)
            self._owner[start : start + buffer.nbytes] = number
        self._written = np.zeros(end, bool)

    def address(self, number: int) -> int:
        """Return the address of a buffer."""
        return _BASE + self._starts[number]

    def fill(self, number: int, addresses: list[int]) -> None:
        """Set the content of a buffer of int64."""
        start = self._starts[number]
        self.bytes[start : start + 8 * len(addresses)] = np.array(addresses, np.int64).view(np.uint8)

    def index(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """Return where `size` bytes from each address on lie in `bytes`; check alignment and bounds."""
        if np.any(addresses % size):
            raise Fault(f"misaligned global access of {size} bytes")
        at = addresses.astype(np.int64) - _BASE
        if np.any((at < 0) | (at + size > len(self.bytes))):
            raise Fault("global access outside of all buffers")
        first, last = self._owner[at], self._owner[at + size - 1]
        if np.any((first < 0) | (first != last)):
            raise Fault("global access outside of all buffers")
        return at

    def mark(self, at: np.ndarray, size: int) -> None:
        """Remember that the program wrote there."""
        self._written[at[:, None] + np.arange(size)] = True

    def write_back(self) -> None:
        """Copy what the program wrote into the buffers.

        Raises
        ------
        Fault
            If it wrote into a read-only buffer.
        """
        for start, buffer in zip(self._starts, self._buffers):
            part = slice(start, start + buffer.nbytes)
            if not self._written[part].any():
                continue
            if not buffer.flags.writeable:
                raise Fault("a read-only buffer was written")
            buffer.reshape(-1).view(np.uint8)[:] = self.bytes[part]


class SharedMemory:
    """Shared memory of every block, one after the other.

    Two threads race where both touch a cell, one of them writes, and no barrier stands between them: none of the block,
    and, within a warp, none of the warp.
    """

    _MOST = 227 << 10  # bytes of a block, on the GPU that has most
    _MOST_READS = 64  # that are remembered as they came

    def __init__(self, blocks: int, size: int, threads: int, cell: int = 2):
        if size > self._MOST:
            raise Fault(f"{size} bytes of shared memory: a block has at most {self._MOST}")
        self.size, self._cell = size, cell
        self.stride = -(-max(size, 1) // 128) * 128
        self.bytes = np.full(blocks * self.stride, 0xFB, np.uint8)
        self._threads, self._blocks = threads, blocks
        lane = np.arange(blocks * threads)
        self._block = lane // threads
        self._warp = self._block * -(-threads // 32) + lane % threads // 32
        cells = blocks * self.stride // cell
        self._known = np.zeros(cells, bool)
        # Of each cell: who wrote and who read it last (-1 nobody, -2 threads of several warps, -3 - w several threads
        # of warp w), and in which block and warp epochs.
        self._writer, self._reader = np.full(cells, -1), np.full(cells, -1)
        self._write_epoch, self._read_epoch = np.full((2, cells), -1), np.full((2, cells), -1)
        # Reads since the last barrier, of which the cells do not tell yet: most are never asked for.
        self._reads: list[tuple[np.ndarray, np.ndarray]] = []
        self._mark = np.zeros(cells, bool)
        self.block_epoch = np.zeros(blocks, np.int64)
        self.warp_epoch = np.zeros(blocks * -(-threads // 32), np.int64)
        # What the asynchronous proxy sees of each cell, and how many products that are under way read it.
        self._fenced, self._used = np.zeros(cells, bool), np.zeros(cells, np.int32)
        # Of tensor copies, once there are some: whether one is on its way to a cell, and the number of the phase with
        # which the last one landed; and for each phase which lanes know that it has ended.
        self._coming: np.ndarray | None = None
        self._phase = np.zeros(0, np.int32)
        self._seen: list[np.ndarray] = []
        # Of each warp with products: what it says of every cell of its block. That is nothing (0), that a product reads
        # or has read it (_READS, _HAS_READ), or the number of the phase in which it told others that it has.
        self._said: dict[int, np.ndarray] = {}

    def index(self, addresses: np.ndarray, size: int, lanes: np.ndarray) -> np.ndarray:
        """Return where `size` bytes from each address on lie in `bytes`; check alignment and bounds."""
        if np.any(addresses % size):
            raise Fault(f"misaligned shared access of {size} bytes")
        at = addresses.astype(np.int64)
        if np.any((at < 0) | (at + size > self.size)):
            raise Fault("shared access out of bounds")
        return at + lanes // self._threads * self.stride

    def _cells(self, at: np.ndarray, size: int) -> np.ndarray:
        return (at // self._cell)[:, None] + np.arange(max(1, size // self._cell))

    def _conflict(self, cells: np.ndarray, who: np.ndarray, epochs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Return where a cell was touched by another thread with no barrier since."""
        same_block = epochs[0][cells] == self.block_epoch[self._block[lanes]][:, None]
        if not same_block.any():
            return same_block
        other, warp = who[cells], self._warp[lanes][:, None]
        since = (self._warp_of(other) != warp) | (epochs[1][cells] == self.warp_epoch[warp])
        return (other != -1) & (other != lanes[:, None]) & same_block & since

    def _warp_of(self, who: np.ndarray) -> np.ndarray:
        """Return the warp of a cell's last user, -1 for several."""
        return np.where(who >= 0, self._warp[np.maximum(who, 0)], np.where(who <= -3, -3 - who, -1))

    def _touch(self, cells: np.ndarray, who: np.ndarray, epochs: np.ndarray, lanes: np.ndarray) -> None:
        who[cells] = lanes[:, None]
        epochs[0][cells] = self.block_epoch[self._block[lanes]][:, None]
        epochs[1][cells] = self.warp_epoch[self._warp[lanes]][:, None]

    def pass_blocks(self, blocks: np.ndarray) -> None:
        """All threads of blocks met."""
        if len(blocks) < self._blocks:
            met = np.isin(np.arange(self._blocks), blocks)
            self._reads = [(cells, lanes) for cells, lanes in self._reads if not met[self._block[lanes]].all()]
            self._settle_reads()
        self._reads.clear()
        self.block_epoch[blocks] += 1

    def pass_warps(self, warps: np.ndarray) -> None:
        """All threads of warps met."""
        self._settle_reads()
        self.warp_epoch[warps] += 1

    def read(self, at: np.ndarray, size: int, lanes: np.ndarray) -> None:
        """Check reads of `size` bytes."""
        self.check_copies(at, size, lanes)
        cells = self._cells(at, size)
        if not self._known[cells].all():
            raise Fault("shared memory was read before anybody wrote it")
        if self._conflict(cells, self._writer, self._write_epoch, lanes).any():
            raise Fault("race in shared memory: read of what another thread wrote, no barrier between")
        self._reads.append((cells, lanes))
        if len(self._reads) > self._MOST_READS:
            self._settle_reads()

    def _were_read(self, cells: np.ndarray) -> bool:
        """Return whether some cells are among those of which the reads are only remembered."""
        if not self._reads:
            return False
        self._mark[cells] = True
        found = any(self._mark[read].any() for read, _ in self._reads)
        self._mark[cells] = False
        return found

    def _settle_reads(self) -> None:
        """Let the cells tell who read them."""
        for cells, lanes in self._reads:
            self._note_readers(cells, lanes)
        self._reads.clear()

    def _note_readers(self, cells: np.ndarray, lanes: np.ndarray) -> None:
        warp = np.broadcast_to(self._warp[lanes][:, None], cells.shape)
        before = self._conflict(cells, self._reader, self._read_epoch, lanes)
        former = self._warp_of(self._reader[cells])
        self._touch(cells, self._reader, self._read_epoch, lanes)
        # Another reader in this epoch, before or in this very instruction.
        now = self._reader[cells] != lanes[:, None]
        same = (before & (former == warp)) | now
        if not same.any() and not before.any():
            return
        strange = (before & (former != warp)) | (now & (self._warp_of(self._reader[cells]) != warp))
        self._reader[cells[same]] = -3 - warp[same]
        self._reader[cells[strange]] = -2

    def write(self, at: np.ndarray, size: int, lanes: np.ndarray) -> None:
        """Check writes of `size` bytes."""
        cells = self._cells(at, size)
        if self._conflict(cells, self._writer, self._write_epoch, lanes).any():
            raise Fault("race in shared memory: two threads wrote, no barrier between")
        if self._were_read(cells):
            self._settle_reads()
        if self._conflict(cells, self._reader, self._read_epoch, lanes).any():
            raise Fault("race in shared memory: write to what another thread reads, no barrier between")
        if self._used[cells].any():
            raise Fault("race in shared memory: write to what a product that is under way reads")
        if self._coming is not None:
            if self._coming[cells].any():
                raise Fault("race in shared memory: write to where a tensor copy is on its way to")
            self._phase[cells] = 0
        self._fenced[cells] = False
        self._touch(cells, self._writer, self._write_epoch, lanes)
        if np.any(self._writer[cells] != lanes[:, None]):
            raise Fault("race in shared memory: two threads write at once")
        self._known[cells] = True

    def fence(self, lanes: np.ndarray) -> None:
        """Let the asynchronous proxy see what these threads wrote."""
        self._fenced |= np.isin(self._writer, lanes)

    def start(self, at: np.ndarray, size: int, lanes: np.ndarray) -> np.ndarray:
        """Check reads by a product of some lanes that starts; return the cells, for `end`."""
        for lane in lanes[::32]:
            self.check_copies(at, size, lane)
        self.read(at, size, np.full(len(at), lanes[0]))
        cells = self._cells(at, size)
        if not self._fenced[cells].all():
            raise Fault("a product reads what was written without a fence for the asynchronous proxy")
        self._used[cells] += 1
        for warp in np.unique(self._warp[lanes]).tolist():
            self._said_by(warp)[self._here(cells)] = _READS
        return cells

    def end(self, cells: np.ndarray, lanes: np.ndarray) -> None:
        """Lanes have waited for the product that read these cells for them."""
        self._used[cells] -= 1
        here = self._here(cells)
        for warp in np.unique(self._warp[lanes]).tolist():
            said = self._said_by(warp)
            said[here] = np.where(said[here] == _READS, _HAS_READ, said[here])

    def hand_back(self, lanes: np.ndarray, number: int) -> None:
        """Lanes arrive at a barrier, in a phase: who sees its end knows that their warps have read what they have."""
        for warp in np.unique(self._warp[lanes]).tolist():
            said = self._said_by(warp)
            said[said == _HAS_READ] = number

    def _here(self, cells: np.ndarray) -> np.ndarray:
        """Return the places of cells in the memory of their block."""
        return cells % (self.stride // self._cell)

    def _said_by(self, warp: int) -> np.ndarray:
        return self._said.setdefault(warp, np.zeros(self.stride // self._cell, np.int32))

    def _readers(self, block: int) -> list[np.ndarray]:
        """Return what the warps of a block have said."""
        warps = -(-self._threads // 32)
        return [said for warp, said in self._said.items() if warp // warps == block]

    def _overtakes(self, cells: np.ndarray, lane: int) -> bool:
        """Return whether a warp may still read cells, as far as a lane of its block knows."""
        for said in self._readers(int(self._block[lane])):
            states = np.unique(said[self._here(cells)]).tolist()
            if any(state < 0 or (state and not self._seen[state][lane]) for state in states):
                return True
        return False

    def forget(self, at: np.ndarray, size: int) -> None:
        """Mark cells as unwritten: a copy into them is under way."""
        self._known[self._cells(at, size)] = False

    # Tensor copies: their order is that of barriers' phases, not of `bar.sync` ----------------------------------------

    def phase(self) -> int:
        """Return the number of a new phase, whose end nobody has seen yet."""
        if self._coming is None:
            self._coming, self._phase = np.zeros(len(self._used), bool), np.zeros(len(self._used), np.int32)
            self._seen.append(np.ones(len(self._block), bool))  # number 0: no copy
        self._seen.append(np.zeros(len(self._block), bool))
        return len(self._seen) - 1

    def see(self, number: int, lanes: np.ndarray) -> None:
        """Remember that lanes know of the end of a phase."""
        self._seen[number][lanes] = True

    def meet(self, blocks: np.ndarray) -> None:
        """Let all threads of a block know what any of them does."""
        for seen in self._seen[1:]:
            by_block = seen.reshape(-1, self._threads)
            by_block[blocks] |= by_block[blocks].any(1, keepdims=True)
        for block in blocks.tolist():
            for said in self._readers(block):
                said[said == _HAS_READ] = 0

    def send(self, at: np.ndarray, size: int, lane: int) -> None:
        """A tensor copy is on its way."""
        cells = self._cells(at, size)
        if self._used[cells].any():
            raise Fault("race in shared memory: a tensor copy to what a product that is under way reads")
        if self._overtakes(cells, lane):
            raise Fault("race in shared memory: a tensor copy to what a warp reads that has not handed it back")
        if self._coming is None or self._coming[cells].any():
            raise Fault("race in shared memory: a tensor copy to where another is on its way to")
        if self._conflict(cells, self._writer, self._write_epoch, np.full(len(at), lane)).any():
            raise Fault("race in shared memory: a tensor copy to what another thread wrote, no barrier between")
        self._coming[cells] = True
        self.forget(at, size)

    def land(self, at: np.ndarray, size: int, content: np.ndarray, number: int) -> None:
        """A tensor copy is complete, and part of a phase."""
        cells = self._cells(at, size)
        assert self._coming is not None
        self._settle_reads()
        self._coming[cells], self._phase[cells] = False, number
        self._writer[cells], self._reader[cells], self._fenced[cells] = -1, -1, True
        for said in self._readers(int(at[0]) // self.stride):
            said[self._here(cells)] = 0
        self._known[cells], self.bytes[at[:, None] + np.arange(size)] = True, content

    def check_copies(self, at: np.ndarray, size: int, lanes: np.ndarray) -> None:
        """Check that lanes which read know of the end of what copies brought there."""
        if self._coming is None:
            return
        for number in np.unique(self._phase[self._cells(at, size)]):
            if not self._seen[number][lanes].all():
                raise Fault("race in shared memory: a read of a tensor copy by a thread that did not wait for it")
