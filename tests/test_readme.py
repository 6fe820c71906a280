"""The README says what is so: its example runs, its links lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_trains(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) <= 25
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["history"][-1].test_accuracy > 0.96
    printed = capsys.readouterr().out
    assert "It is a 5 and the label says 5" in printed and "cpu." in printed


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
