"""The whole report: what it says, what it holds, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nnunetv2_sikd.benchmark import run
from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import Machine, plan_steps
from nnunetv2_sikd.commands.main import main
from nnunetv2_sikd.report.write import write_report
from nnunetv2_sikd.steps import Step
from tests.report.helpers import FakeBenchmark, make_benchmark


@pytest.fixture(scope="module")
def html(reported: FakeBenchmark) -> str:
    return (reported.layout.report() / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(reported: FakeBenchmark) -> str:
    return (reported.layout.report() / "report.md").read_text(encoding="utf-8")


class TestPage:
    def test_needs_nothing_else(self, html: str) -> None:
        sources = re.findall(r'(?:src|href)="([^"]*)"', html)
        assert len(sources) > 10
        assert all(source.startswith(("data:", "#")) for source in sources)
        assert not re.search(r"<script|@import|url\(", html)
        assert len(html.encode()) < 3_000_000

    def test_pictures_have_alternative_texts(self, html: str) -> None:
        pictures = re.findall(r"<img [^>]*>", html)
        # A forest plot per test set, a paired plot each, and three cases of four panels each.
        assert len(pictures) == 2 + 2 + 2 * 3 * 4
        assert all(re.search(r'alt="[^"]{10,}"', picture) for picture in pictures)

    def test_links_lead_somewhere(self, html: str) -> None:
        for anchor in re.findall(r'href="#([^"]+)"', html):
            assert f'id="{anchor}"' in html

    def test_begins_with_the_answer(self, html: str, reported: FakeBenchmark) -> None:
        table = pd.read_csv(reported.layout.report() / "differences.csv")
        row = table[(table["arm"] == "sikd") & (table["test"] == "Unseen") & (table["metric"] == "dice")].iloc[0]
        answer = html[html.index('id="answer"') : html.index("<nav")]
        assert answer.index("Elsewhere, unseen") < answer.index("Source, own test patients")
        assert f"difference {row['difference']:+.3f}" in answer
        assert f"{row['low']:+.3f} to {row['high']:+.3f}".replace("-", "−") in answer
        assert "2 trainings per arm" in answer
        assert "(margin 0.02)" in answer
        assert "11 of 12 trainings × test sets have results" in answer

    def test_says_what_is_missing(self, html: str) -> None:
        section = html[html.index('<h2 id="missing"') :]
        assert section.count(">da5_seed1_fold0<") == 1

    def test_no_cell_says_nan(self, html: str, markdown: str) -> None:
        assert not re.search(r">[^<]*\bnan\b[^<]*</t[dh]>", html)
        assert not re.search(r"\| [^|]*\bnan\b", markdown)


class TestOtherFiles:
    def test_markdown_has_its_pictures(self, reported: FakeBenchmark, markdown: str) -> None:
        folder = reported.layout.report()
        named = set(re.findall(r"\]\((pictures/[^)]+)\)", markdown))
        assert named == {f"pictures/{file.name}" for file in (folder / "pictures").iterdir()}

    def test_markdown_tables_are_whole(self, markdown: str) -> None:
        lines = markdown.splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\|( ---:? \|)+$", line.strip()):
                columns = line.count("|")
                assert lines[number - 1].count("|") == columns, lines[number - 1]
                for row in lines[number + 1 :]:
                    if not row.startswith("|"):
                        break
                    assert row.count("|") == columns, row

    def test_tables_agree_with_each_other(self, reported: FakeBenchmark) -> None:
        folder = reported.layout.report()
        scores, summary, differences = (
            pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])
            for name in ("scores", "summary_table", "differences")
        )
        assert len(scores) == 8 * (6 * 4 + 5)
        stock = scores[(scores["arm"] == "stock") & (scores["test"] == "Unseen")]
        row = summary.query("arm == 'stock' and test == 'Unseen' and metric == 'dice'").iloc[0]
        assert row["mean"] == pytest.approx(stock["dice"].mean())
        row = differences.query("arm == 'da5' and test == 'Unseen' and metric == 'dice'").iloc[0]
        assert row["trainings"] == 1
        assert len(pd.read_csv(folder / "trainings.csv")) == 6

    def test_nothing_half_written_stays(self, reported: FakeBenchmark) -> None:
        assert not list(reported.layout.report().rglob(".*"))


def test_a_second_report_replaces_the_first(nnunet_folders: Path) -> None:
    benchmark = make_benchmark(nnunet_folders, patients=7)
    page = write_report(benchmark.layout)
    first = page.read_text(encoding="utf-8")
    stale = page.parent / "pictures" / "forest_Gone.svg"
    stale.write_text("old")
    assert re.sub(r"\d\d:\d\d UTC", "", write_report(benchmark.layout).read_text(encoding="utf-8")) == re.sub(
        r"\d\d:\d\d UTC", "", first
    )
    assert not stale.exists()
    assert "One training per arm" in first


def test_only_the_baseline_is_there_yet(nnunet_folders: Path) -> None:
    benchmark = make_benchmark(nnunet_folders, patients=3)
    for test in ("Source", "Unseen"):
        benchmark.metrics(test, "sikd_seed0_fold0").unlink()
    text = write_report(benchmark.layout).read_text(encoding="utf-8")
    assert "Nothing to compare yet: only stock nnU-Net has results" in text
    assert 'id="differences"' not in text


def test_pictures_that_cannot_be_drawn_are_told_without_the_folder(nnunet_folders: Path) -> None:
    benchmark = make_benchmark(nnunet_folders, patients=3)
    for file in (benchmark.layout.output / "predictions" / "Unseen").rglob("*.nii.gz"):
        file.unlink()
    text = write_report(benchmark.layout).read_text(encoding="utf-8")
    assert text.count("Not drawn: ") == 3
    assert str(nnunet_folders) not in text


@pytest.mark.filterwarnings("error::UserWarning")  # matplotlib's, of axes that have no room left
def test_long_titles_leave_room_for_the_plots(nnunet_folders: Path) -> None:
    benchmark = make_benchmark(nnunet_folders, patients=3)
    written = benchmark.file.read_text(encoding="utf-8")
    title = "stock nnU-Net, as many iterations as the other one that is recommended"
    benchmark.file.write_text(re.sub(r"(title: ).*nnU-Net.*", rf"\1{title}", written), encoding="utf-8")
    layout = Layout.of(benchmark.file, benchmark.layout.output)
    assert layout.specification.arm_title("stock") == title
    write_report(layout)


class TestCommand:
    def test_writes_the_report_of_some_arms(self, nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
        benchmark = make_benchmark(nnunet_folders, arms=("stock", "sikd", "da5"), patients=3)
        output = benchmark.layout.output
        assert main(["report", str(benchmark.file), "-o", str(output), "--arms", "da5"]) == 0
        assert str(output / "report" / "report.html") in capsys.readouterr().out
        assert set(pd.read_csv(output / "report" / "scores.csv")["arm"]) == {"stock", "da5"}

    @pytest.mark.parametrize("other", [("--arms", "da5"), ("--baseline", "sikd")])
    def test_the_benchmark_writes_its_own_again_after_another_one(
        self, nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch, other: tuple[str, str]
    ) -> None:
        benchmark = make_benchmark(nnunet_folders, arms=("stock", "sikd", "da5"), patients=3)
        layout = benchmark.layout
        step = replace(plan_steps(layout, benchmark.file, Machine("cpu"))[-1], inputs=())

        def execute(step: Step, log: Path, environment: Mapping[str, str]) -> None:
            assert main(list(step.command[1:])) == 0

        def compared() -> list[tuple[str, str]]:
            table = pd.read_csv(layout.report() / "differences.csv")
            return list(dict.fromkeys(zip(table["baseline"], table["arm"], strict=True)))

        monkeypatch.setattr(run, "execute", execute)
        run.run_benchmark([step], layout)
        own = compared()
        assert own == [("stock", "sikd"), ("stock", "da5")]
        assert run.is_done(step, [step], layout)
        assert main(["report", str(benchmark.file), "-o", str(layout.output), *other]) == 0
        assert compared() != own
        assert not run.is_done(step, [step], layout)
        run.run_benchmark([step], layout)
        assert compared() == own
        assert run.is_done(step, [step], layout)

    def test_a_report_that_cannot_be_made_leaves_the_benchmarks_own(self, nnunet_folders: Path) -> None:
        benchmark = make_benchmark(nnunet_folders, patients=3)
        record = benchmark.layout.record("report")
        record.parent.mkdir()
        record.write_text("{}")
        for file in benchmark.layout.output.rglob("metrics.csv"):
            file.unlink()
        assert main(["report", str(benchmark.file), "-o", str(benchmark.layout.output)]) == 1
        assert record.exists()

    def test_nothing_there_is_one_line(self, nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
        benchmark = make_benchmark(nnunet_folders, patients=2)
        assert main(["report", str(benchmark.file), "-o", str(nnunet_folders / "elsewhere")]) == 1
        assert capsys.readouterr().err.count("\n") == 1

    def test_a_shipped_benchmark_without_results(self, nnunet_folders: Path) -> None:
        raw = nnunet_folders / "raw"
        for name in ("Dataset101_ACDC", "Dataset102_Sunnybrook"):
            (raw / name).mkdir()
            (raw / name / "dataset.json").write_text(json.dumps({"labels": {"background": 0}}))
        assert Layout.of("cardiac_small", nnunet_folders / "out").report().name == "report"
        assert main(["report", "cardiac_small", "-o", str(nnunet_folders / "out")]) == 1
