"""Everything that was computed for a report, before it is put into words and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.specification import Specification, TestSet
from nnunetv2_sikd.report.pairing import MEAN_LABEL, labels_of
from nnunetv2_sikd.report.scores import Scores
from nnunetv2_sikd.report.tables import PRIMARY, difference_table, summary_table


@dataclass(frozen=True)
class Results:
    """Scores and statistics of a benchmark.

    Attributes:
        layout: The benchmark's files.
        scores: What was measured.
    """

    layout: Layout
    scores: Scores

    @property
    def specification(self) -> Specification:
        """The benchmark."""
        return self.layout.specification

    @property
    def frame(self) -> pd.DataFrame:
        """All scores, tidy."""
        return self.scores.frame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Mean and standard deviations of every arm."""
        return summary_table(self.frame)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Differences from the baseline."""
        source = [test.key for test in self.tests if self.specification.is_source(test)]
        margin = self.specification.non_inferiority_margin
        return difference_table(self.frame, self.specification.baseline, self.others, source, margin)

    @cached_property
    def tests(self) -> list[TestSet]:
        """Test sets with results, in the benchmark's order."""
        there = set(self.frame["test"])
        return [test for test in self.specification.tests if test.key in there]

    @cached_property
    def arms(self) -> list[str]:
        """Arms with results, the baseline first."""
        there = set(self.frame["arm"])
        baseline = self.specification.baseline
        return [arm for arm in sorted(self.specification.arms, key=lambda arm: arm != baseline) if arm in there]

    @property
    def others(self) -> list[str]:
        """Arms that are compared with the baseline."""
        return [arm for arm in self.arms if arm != self.specification.baseline]

    @property
    def shown(self) -> str | None:
        """The arm that pictures show beside the baseline: the first compared one, whatever came out."""
        compared = set(self.differences["arm"])
        return next((arm for arm in self.others if arm in compared), None)

    def title(self, test: str) -> str:
        """A test set's name for people."""
        found = next(each for each in self.specification.tests if each.key == test)
        return found.title or found.key

    def unit(self, test: str) -> str:
        """Unit of a test set's distances."""
        return str(self.frame.loc[self.frame["test"] == test, "unit"].iloc[0])

    def labels(self, test: str) -> list[str]:
        """Labels of a test set, and the mean over them if there are several."""
        return labels_of(self.frame, test)

    def overall(self, test: str) -> str:
        """The one label that stands for a test set: the mean, or its only label."""
        labels = self.labels(test)
        return MEAN_LABEL if MEAN_LABEL in labels else labels[0]

    def compared(self, arm: str | None = None, test: str | None = None, metric: str = PRIMARY) -> pd.DataFrame:
        """Rows of ``differences``."""
        rows = self.differences[self.differences["metric"] == metric]
        rows = rows if arm is None else rows[rows["arm"] == arm]
        return rows if test is None else rows[rows["test"] == test]
