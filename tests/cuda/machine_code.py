"""Assemble kernels and read what came out: registers, spills, opcodes. No GPU is needed."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from numbanet.cuda.compile import Capability, Kernel


@dataclass(frozen=True)
class Report:
    """What ptxas and nvdisasm say of a kernel.

    Attributes
    ----------
    registers : int
        Of a thread.
    local_bytes : int
        Stack frame and spills of a thread: memory that registers did not suffice for.
    shared_bytes : int
        Static shared memory of a block.
    opcodes : Counter
        How often each instruction stands in the code.
    loop : Counter
        The same for the innermost loop with the most multiplications.
    warnings : tuple of str
        ptxas's: that it ignores setmaxnreg, for example, or lets products wait for each other.
    """

    registers: int
    local_bytes: int
    shared_bytes: int
    opcodes: Counter[str]
    loop: Counter[str]
    warnings: tuple[str, ...] = ()

    def share(self, *names: str) -> float:
        """Return the share of the main loop's instructions whose opcode begins with one of the names."""
        return sum(count for opcode, count in self.loop.items() if opcode.startswith(names)) / sum(self.loop.values())


def _tool(name: str) -> str:
    found = sorted(Path(sysconfig.get_paths()["purelib"]).glob(f"nvidia/**/bin/{name}"))
    if not found:
        raise FileNotFoundError(f"{name} is not installed: pip install 'numbanet[testcuda]'")
    return str(found[0])


_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Za-z0-9_.]*)(?:.*`\((\.L_x_\d+)\))?")
_MATH = ("FFMA", "HMMA", "HGMMA", "DFMA")


def _main_loop(lines: list[str]) -> Counter[str]:
    """Return the opcodes between the target of a backward branch and the branch: of the loop with the most products."""
    place: dict[str, int] = {}
    opcodes: list[str] = []
    best: Counter[str] = Counter()
    for line in lines:
        label = re.match(r"\s*(\.L_x_\d+):", line)
        instruction = _INSTRUCTION.search(line)
        if label:
            place[label[1]] = len(opcodes)
        elif instruction:
            opcodes.append(instruction[1])
            if instruction[1].startswith("BRA") and instruction[2] in place:
                body = Counter(opcodes[place[instruction[2]] :])
                key = [(sum(n for o, n in c.items() if o.startswith(_MATH)), -sum(c.values())) for c in (body, best)]
                if key[0] > key[1]:
                    best = body
    return best or Counter(opcodes)


def report(kernel: Kernel, dtype: str, capability: Capability, code_too: bool = True) -> Report:
    """Assemble a kernel for a compute capability and read the machine code, or only what ptxas says of it."""
    with tempfile.TemporaryDirectory() as folder:
        source, code = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(kernel.ptx(dtype, capability))
        arch = "sm_" + "".join(map(str, capability))
        command = [_tool("ptxas"), "-v", f"-arch={arch}", str(source), "-o", str(code)]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        text = ""
        if code_too:
            disassemble = [_tool("nvdisasm"), "-c", str(code)]
            text = subprocess.run(disassemble, capture_output=True, text=True, check=True).stdout

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, log)))

    lines = text.splitlines()
    local = number(r"(\d+) bytes (?:stack frame|spill stores|spill loads)")
    return Report(
        number(r"Used (\d+) registers"), local, number(r"(\d+) bytes smem"),
        Counter(match[1] for match in map(_INSTRUCTION.search, lines) if match), _main_loop(lines),
        tuple(line for line in log.splitlines() if re.search("warning|performance loss", line, re.IGNORECASE)),
    )  # fmt: skip
