"""Names from others are text in the report: no markup, no links, no formulas, no mathematics."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.report.page import _fenced, _markdown
from nnunetv2_sikd.report.scores import read_scores
from nnunetv2_sikd.report.write import write_report
from tests.report.conftest import folders  # noqa: F401
from tests.report.helpers import FakeBenchmark, make_benchmark

MARKUP = '<script>alert(1)</script><img src=x onerror=alert(2)>"\'><a href="javascript:alert(3)">'
LINKS = "[x](javascript:alert(4)) ![y](http://tracker.example/z.png) `code` <b>"
FENCE = "title\n```\n<script>alert(5)</script>\n```"
MATH = r"$\frac{$ and $\undefined$"
FORMULA = '=HYPERLINK("http://tracker.example";"x")'
# What every report of this package consists of.
TAGS = {"html", "head", "meta", "title", "link", "style", "body", "header", "main", "section", "nav", "p", "a", "div"}
TAGS |= {"h1", "h2", "h3", "table", "thead", "tbody", "tr", "th", "td", "span", "wbr", "dl", "dt", "dd", "pre"}
TAGS |= {"figure", "figcaption", "img"}


class Page(HTMLParser):
    """Tags, attributes and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {str(value)[:5] for name, value in attrs if name in ("href", "src")}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(folders: Path) -> FakeBenchmark:  # noqa: F811
    benchmark = make_benchmark(folders, patients=6)
    content = yaml.safe_load(benchmark.file.read_text(encoding="utf-8"))
    content["title"] = MARKUP + FENCE
    content["arms"]["stock"]["title"] = LINKS
    content["arms"]["sikd"]["title"] = MARKUP + MATH
    content["tests"][0]["title"] = MARKUP + LINKS
    benchmark.file.write_text(yaml.safe_dump(content), encoding="utf-8")
    for file in (benchmark.layout.output / "evaluation").rglob("metrics.csv"):
        rows = list(csv.reader(file.open(newline="")))
        for row in rows[1:]:
            row[1] = {"wall": FORMULA, "cavity": MATH, "blood": MARKUP}[row[1]]
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    layout = Layout.of(str(benchmark.file), benchmark.layout.output)
    write_report(layout)
    return FakeBenchmark(benchmark.file, layout)


def test_html(hostile: FakeBenchmark) -> None:
    page = Page((hostile.layout.report() / "report.html").read_text(encoding="utf-8"))
    assert page.tags <= TAGS
    assert not {name for name in page.attributes if name.startswith("on")}
    assert {address for address in page.addresses if not address.startswith("#")} == {"data:"}
    assert "<script>alert(1)</script>" in page.text  # as text


def test_html_would_load_and_run_nothing_all_the_same(hostile: FakeBenchmark) -> None:
    text = (hostile.layout.report() / "report.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


def test_markdown(hostile: FakeBenchmark) -> None:
    text = (hostile.layout.report() / "report.md").read_text(encoding="utf-8")
    prose, fence = text, re.search(r"^(`{4,})yaml$", text, re.MULTILINE)
    assert fence is not None
    begin = text.index(fence[0])
    end = text.index(f"\n{fence[1]}\n", begin + len(fence[0]))
    assert "<script>alert(5)" in text[begin:end].replace("\n", "")
    prose = text[:begin] + text[end:]
    assert not re.search(r"(?<!\\)(?:\\\\)*<", prose)
    links = re.findall(r"(?<!\\)\]\(([^)]*)\)", prose)
    assert links
    assert all(link.startswith("pictures/") for link in links)


def test_pictures_show_names_as_they_are(hostile: FakeBenchmark) -> None:
    pictures = list((hostile.layout.report() / "pictures").glob("*.svg"))
    assert pictures
    for file in pictures:
        assert "<script" not in file.read_text(encoding="utf-8")


def test_tables(hostile: FakeBenchmark) -> None:
    files = list(hostile.layout.report().glob("*.csv"))
    assert len(files) == 4
    for file in files:
        for row in csv.reader(file.open(newline="", encoding="utf-8")):
            assert not [cell for cell in row if re.match(r"[=+@\t\r]|-(?![\d.]|inf)", cell)]
    assert f"'{FORMULA}" in {row[5] for row in csv.reader((hostile.layout.report() / "scores.csv").open(newline=""))}


@pytest.mark.parametrize("number", ["1.01", "-0.1", "inf", "-inf", "1e999"])
def test_scores_that_cannot_be(number: str, hostile: FakeBenchmark) -> None:
    file = next((hostile.layout.output / "evaluation").rglob("metrics.csv"))
    kept = file.read_text()
    rows = list(csv.reader(kept.splitlines()))
    rows[1][4] = number
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    try:
        with pytest.raises(SIKDError, match="column dice holds a number that cannot be"):
            read_scores(hostile.layout)
    finally:
        file.write_text(kept)


@pytest.mark.parametrize("text", [LINKS, MARKUP, "a\nb", "\\<b>", "[", "a\\"])
def test_what_markdown_would_take_for_markup(text: str) -> None:
    told = str(_markdown(text))
    assert "\n" not in told
    assert not re.search(r"(?<!\\)(?:\\\\)*[<\[\]`]", told)
    assert re.sub(r"\\([\\`<&\[\]])", r"\1", told) == " ".join(text.splitlines())


@pytest.mark.parametrize("text", ["a: b\n", "```\n", "````` x\n``\n"])
def test_code_cannot_end_its_block(text: str) -> None:
    fence = str(_fenced(text)).partition("yaml")[0]
    assert fence not in text
    assert len(fence) >= 3
