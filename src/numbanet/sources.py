"""The files that kernels are compiled from, as they were when the package was imported.

Machine code on disk is named by a hash of these files, which is taken when it is first needed, and modules of kernels
are imported when they are: an edit in between would put code of the one text under the hash of the other. So the files'
sizes and times are noted before any of them is imported, and whoever uses the hash asks whether they still hold.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path


class Sources:
    """The Python files of some folders.

    Parameters
    ----------
    *folders : Path
    """

    def __init__(self, *folders: Path):
        self._folders = folders
        self._noted = self._look()

    def _look(self) -> list[tuple[str, int, int]]:
        """Return what an edit changes: of each file the size and the time; [] if unknown."""
        found = []
        try:
            for folder in self._folders:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py"):
                            state = entry.stat()
                            found.append((entry.path, state.st_size, state.st_mtime_ns))
        except OSError:  # in an archive; or just being removed, or exchanged
            return []
        return sorted(found)

    @property
    def seen(self) -> bool:
        """Whether there were files: in an archive there are none."""
        return bool(self._noted)

    def unchanged(self) -> bool:
        """Return whether every file is the one that was there when this was made: then what was imported is theirs."""
        return self.seen and self._look() == self._noted

    @cached_property
    def hash(self) -> str:
        """The hash of all files; one that no files have where they changed before it was taken."""
        digest = hashlib.sha256()
        for path, *_ in self._noted:
            with suppress(OSError):
                digest.update(Path(path).name.encode() + b"\0" + Path(path).read_bytes())
        return digest.hexdigest() if self.unchanged() else f"{digest.hexdigest()}, edited"


_PACKAGE = Path(__file__).parent
CPU = Sources(_PACKAGE / "cpu")
CUDA = Sources(_PACKAGE / "cuda", _PACKAGE / "cuda" / "ptx", _PACKAGE / "problem")  # problems have constants
