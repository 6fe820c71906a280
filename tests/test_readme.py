"""The README says what is so: its example runs, its links lead somewhere."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks import readme, report
from benchmarks.report import Mean, Row

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


def cells(line: str) -> list[str]:
    return [cell.strip(" ~") for cell in line.strip("|").split("|")]


def lines_of(page: str, titles: tuple[tuple[str, int], ...]) -> Iterator[dict[str, str]]:
    """Yield the lines of all tables of a page with such a head."""
    head = cells(report.header(titles).split("\n")[0])
    inside = False
    for line in page.splitlines():
        if not line.startswith("|"):
            inside = False
        elif cells(line) == head:
            inside = True
        elif inside and not line.startswith("|--"):
            yield dict(zip(head, cells(line)))


def test_speed_is_that_of_its_page():
    """Whatever a table of the README says about speed is what `benchmarks.readme` makes of docs/performance.md."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    nan = math.nan
    means = [
        Mean(found["section"], found["pass"], int(found["thr"]), float(found["ratio"]), nan, nan, nan,
             float(found["control"]))
        for found in lines_of(page, report.MEAN_TITLES)
    ]  # fmt: skip
    rows = [
        Row("training" if found["pass"] == "training" else "inference", found["layer"], found["pass"],
            int(found["thr"]), "", 1.0, float(found["ratio"]), "", float(found["control"]), *[nan] * 5, False)
        for found in lines_of(page, report.ROW_TITLES) if " batch " in found["layer"]
    ]  # fmt: skip
    assert means and rows
    made = [*readme.layers_table(means), *readme.networks_table(rows)]
    speed = README.partition("\n## Speed\n")[2].partition("\n## ")[0]
    table = [line for line in speed.splitlines() if line.startswith("|")]
    assert len(table) >= 8 and [line for line in table if line not in made] == []
