"""Where a benchmark's files are: nnU-Net's own folders, and the output folder of the benchmark."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_sikd.benchmark.file import load_specification, select_part
from nnunetv2_sikd.benchmark.specification import Specification, TestSet, Training
from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.json_files import read_json
from nnunetv2_sikd.preprocessing.planned import find_dataset
from nnunetv2_sikd.untrusted import check_ending, check_names


@dataclass(frozen=True)
class Layout:
    """Places of a benchmark's inputs and outputs.

    Attributes:
        specification: The benchmark.
        output: Its output folder.
        file: The benchmark file, for messages.
    """

    specification: Specification
    output: Path
    file: str = "the benchmark file"

    @classmethod
    def of(
        cls,
        benchmark: str | Path,
        output: Path | None = None,
        *,
        arms: list[str] | None = None,
        folds: list[int] | None = None,
        seeds: list[int] | None = None,
        baseline: str | None = None,
    ) -> Layout:
        """Layout of a benchmark file or a part of it.

        Args:
            benchmark: A YAML file, or the name of a shipped one.
            output: Its output folder; None for one named like the file, in the current folder.
            arms: Only these, and the baseline.
            folds: Instead of the file's.
            seeds: Instead of the file's.
            baseline: Instead of the file's.

        Raises:
            SIKDError: The file is not as it should be, or nnU-Net's folders are not set.
        """
        specification = select_part(load_specification(benchmark), arms, folds, seeds, baseline)
        return cls(specification, Path(os.path.realpath(output or Path(benchmark).stem)), str(benchmark))

    def __post_init__(self) -> None:
        require_folders("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

    def choice(self) -> list[str]:
        """The part of the benchmark file that is run, as options of its commands."""
        chosen = self.specification
        seeds = ["--seeds", *map(str, chosen.seeds)] if chosen.seeds else []
        return ["--arms", *chosen.arms, "--folds", *map(str, chosen.folds), *seeds]

    @property
    def source(self) -> str:
        """Full name of the data set that is trained on."""
        return find_dataset(self.specification.source.dataset)

    def raw(self, dataset: str | int) -> Path:
        """A data set's folder in ``nnUNet_raw``.

        Raises:
            SIKDError: It is not there.
        """
        folder = _absolute("nnUNet_raw") / find_dataset(dataset)
        if not folder.is_dir():
            raise SIKDError(f"{folder}: not there; a benchmark needs the raw data set")
        return folder

    def dataset_json(self, dataset: str | int) -> dict[str, Any]:
        """Content of a raw data set's ``dataset.json``.

        Raises:
            SIKDError: It is missing or damaged.
        """
        file = self.raw(dataset) / "dataset.json"
        content = read_json(file, "mend it: nnU-Net needs it")
        if not isinstance(content, dict):
            raise SIKDError(f"{file}: must hold a JSON object")
        check_ending(content, file)
        if isinstance(content.get("dataset"), dict):  # nnU-Net's other way to name images: its keys become file names
            check_names(content["dataset"], file, "case")
        return content

    def preprocessed(self) -> Path:
        """The source's folder in ``nnUNet_preprocessed``."""
        return _absolute("nnUNet_preprocessed") / self.source

    def fold(self, trainer: str, fold: int) -> Path:
        """nnU-Net's results folder of one training."""
        source = self.specification.source
        folder = Path(get_output_folder(self.source, trainer, source.plans, source.configuration, fold))
        return Path(os.path.abspath(folder))

    def images(self, test: TestSet) -> Path:
        """Folder of a test set's images (``<case>_0000<ending>``)."""
        return self.raw(test.dataset) / test.images

    def references(self, test: TestSet) -> Path:
        """Folder of a test set's reference labels (``<case><ending>``)."""
        return self.raw(test.dataset) / test.references

    def predictions(self, test: TestSet, training: Training) -> Path:
        """Folder of the predictions for a test set."""
        return self.output / "predictions" / test.key / training.key

    def evaluation(self, test: TestSet, training: Training) -> Path:
        """Folder of ``metrics.csv`` and ``summary.json``."""
        return self.output / "evaluation" / test.key / training.key

    def record(self, step: str) -> Path:
        """What is kept of a finished step."""
        return self.output / "steps" / f"{step}.json"

    def report(self) -> Path:
        """Folder of the report."""
        return self.output / "report"


def _absolute(variable: str) -> Path:
    """A folder of nnU-Net's: commands may run elsewhere."""
    return Path(os.path.abspath(os.environ[variable]))
