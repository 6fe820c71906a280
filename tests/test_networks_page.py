"""docs/networks.md alone leads from nothing to a network that was trained, saved and loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_block_of_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 9
    names: dict = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    for text in re.findall(r"print\(.*\).*# (.*)", TEXT):  # what the page says beside a print
        assert text in printed
    assert "the same scores, bit for bit: True" in printed and "the first image is a 5" in printed
    assert float(re.findall(r"right: (\S+)", printed)[0]) > 0.95
    assert names["history"][-1].test_accuracy > 0.9
    assert (tmp_path / "digits-resnet.safetensors").exists()


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", TEXT)
    assert len(links) >= 3 and all((PAGE.parent / link).exists() for link in links), links
