"""docs/networks.md alone leads from nothing to a network that was trained, saved and loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", TEXT, re.DOTALL | re.MULTILINE)


def comparable(printed: str) -> str:
    """Return what a block printed; of what depends on the machine's rounding and speed only the words."""
    if not re.search("loss|right: ", printed):
        return printed
    return re.sub(r" +", " ", re.sub(r"\d[\d.,]*", "#", re.sub(r"images/s.*", "", printed)))


def test_every_block_of_code_prints_what_stands_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == TEXT.count("```python\n") == 14
    names: dict = {}
    printed = ""
    for number, (block, expected) in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        found = capsys.readouterr().out
        assert comparable(found) == comparable(expected), f"block {number}"
        printed += found
    assert "the same scores, bit for bit: True" in printed and "the first image is a 5" in printed
    assert float(re.findall(r"right: (\S+)", printed)[0]) > 0.95
    assert float(re.findall(r"mean loss (\S+)", printed)[0]) < 0.3
    assert printed.count("accuracy 100.00%  test loss") >= 1  # of the page's own data
    assert names["history"][-1].test_accuracy > 0.9
    assert (names["folder"] / "digits-resnet.safetensors").exists()
    assert list(tmp_path.iterdir()) == []  # the reader's folder stays as it was


def test_the_error_of_the_page_is_that_of_a_missing_layer() -> None:
    (error,) = (text for _, text in BLOCKS if text.startswith("input must have shape"))
    assert "nn.Flatten() makes (2, 576)" in error and "(layer '2': Linear(" in error


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", TEXT)
    assert len(links) >= 3 and all((PAGE.parent / link).exists() for link in links), links
