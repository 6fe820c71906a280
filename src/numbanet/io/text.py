"""JSON from files that anyone may have written."""

from __future__ import annotations

import json
import os
from typing import Any


def parse_json(path: str | os.PathLike[str], text: str | bytes, what: str) -> Any:
    """Return what a JSON text of a file stands for.

    Raises
    ------
    ValueError
        If it is not JSON, not UTF-8, or nested too deeply; the message names the file and `what`.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: {what} is not JSON: {error}") from None
