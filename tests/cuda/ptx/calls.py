"""Put the bodies of functions where a program calls them: the interpreter then knows a single piece of code."""

from __future__ import annotations

import re

_FUNCTION = re.compile(r"\.func\s+\(\.param \.\w+ \w+\)\s+(\w+)\s*\((.*?)\)\s*(?:\.\w+\s*)*(;|\n\{\n(.*?)\n\})", re.S)
_CALL = re.compile(r"\{ // callseq (\d+),.*?\} // callseq \1", re.S)


def expand(text: str) -> str:
    """Return a PTX text whose calls are replaced by the functions' code, each with registers and labels of its own."""
    bodies = {match[1]: match[4] for match in _FUNCTION.finditer(text) if match[4]}
    if not bodies:
        return text
    return _CALL.sub(lambda call: _expanded(call[0], int(call[1]), bodies), _FUNCTION.sub("", text))


def _expanded(call: str, number: int, bodies: dict[str, str]) -> str:
    target = re.search(r"call\.uni\s+\(retval0\),\s*(\w+),", call)
    result = re.search(r"ld\.param\.\w+\s+(\S+),\s*\[retval0\+0\];", call)
    if target is None or result is None or target[1] not in bodies:
        raise NotImplementedError(f"PTX call: {call}")
    given = dict(re.findall(r"st\.param\.\w+\s+\[param(\d+)\+0\],\s*(\S+);", call))
    prefix = f"call{number}_"
    body = re.sub(r"%(\w+)", rf"%{prefix}\1", bodies[target[1]])
    body = re.sub(r"\$(\w+)", rf"${prefix}\1", body)

    def argument(match: re.Match[str]) -> str:
        return f"mov.{match[1]} {match[2]}, {given[match[3]]};"

    body = re.sub(rf"ld\.param\.(\w+)\s+(\S+),\s*\[{target[1]}_param_(\d+)\];", argument, body)
    body = re.sub(r"st\.param\.(\w+)\s+\[func_retval0\+0\],\s*(\S+);", rf"mov.\1 {result[1]}, \2;", body)
    body = re.sub(r"\bret;", f"bra.uni ${prefix}end;", body)
    return f"{body}\n${prefix}end:\n"
