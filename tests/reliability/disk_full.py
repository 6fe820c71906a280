"""Fill a small file system while a training saves to it: the checkpoint before the failure is whole, and goes on.

::

    python -m tests.reliability.disk_full              # as root, who may mount; needs Linux
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numbanet import io
from tests.tiny import final_state, make

_EPOCHS = 12


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Within a ``with`` block, a folder on a file system of its own."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def main() -> None:
    """Let the disk be full at the end of each epoch in turn, with no page or one left, and print what was found."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder, small_disk("256k") as disk:
        whole, ballast = Path(folder) / "whole", disk / "ballast"
        make(_EPOCHS).fit(whole, epochs=_EPOCHS)
        parts = disk / "parts"
        for epoch in range(1, _EPOCHS):

            def fill(record: object, model: object, epoch: int = epoch) -> None:
                if record.epoch == epoch:  # type: ignore[attr-defined]
                    free = os.statvfs(disk)
                    ballast.write_bytes(bytes(free.f_bfree * free.f_bsize - epoch % 2 * 4096))

            try:
                make(_EPOCHS).fit(parts, epochs=_EPOCHS, resume=epoch > 1, callbacks=[fill])
            except OSError as error:
                assert error.errno == errno.ENOSPC and "not saved" in str(error), error
                failures += 1
            ballast.unlink(missing_ok=True)
            for path in parts.glob("*.safetensors"):
                assert io.load_state(path)["batch"] == 0
            assert not list(parts.glob(".*")), "temporary files remain"
        make(_EPOCHS).fit(parts, epochs=_EPOCHS, resume=True)
        assert final_state(parts) == final_state(whole)
    print(f"{failures} saves failed on a full disk; each said so, and the training ended with the same weights")


if __name__ == "__main__":
    main()
