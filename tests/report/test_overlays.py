"""Pictures of cases: which case, which slice, and the right labels in the right colours."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.report.canvas import LABEL_COLOURS
from nnunetv2_sikd.report.examples import choose_examples
from nnunetv2_sikd.report.overlays import Overlay, draw_overlay
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.scores import read_scores
from tests.report.helpers import FakeBenchmark, make_benchmark, write_image


def results_of(benchmark: FakeBenchmark) -> Results:
    return Results(benchmark.layout, read_scores(benchmark.layout))


def set_dice(benchmark: FakeBenchmark, training: str, values: dict[str, float]) -> None:
    """Give cases of the unseen test set a Dice."""
    file = benchmark.metrics("Unseen", training)
    lines = [line.split(",") for line in file.read_text().splitlines()]
    for line in lines[1:]:
        line[4] = str(values[line[0]])
    file.write_text("\n".join(",".join(line) for line in lines) + "\n")


class TestChoice:
    def test_worst_median_and_best(self, nnunet_folders: Path) -> None:
        benchmark = make_benchmark(nnunet_folders, patients=5)
        cases = [f"p{i:02d}_v0" for i in range(5)]
        set_dice(benchmark, "stock_seed0_fold0", dict.fromkeys(cases, 0.5))
        set_dice(benchmark, "sikd_seed0_fold0", dict(zip(cases, (0.6, 0.2, 0.5, 0.9, 0.4), strict=True)))
        chosen = {
            example.rank: example for example in choose_examples(results_of(benchmark)) if example.test.key == "Unseen"
        }
        assert {rank: example.case for rank, example in chosen.items()} == {
            "worst": "p01_v0",
            "median": "p02_v0",
            "best": "p03_v0",
        }
        assert chosen["best"].dice == (0.5, 0.9)
        assert chosen["best"].arm.key == "sikd_seed0_fold0"

    def test_one_case_is_shown_once(self, nnunet_folders: Path) -> None:
        benchmark = make_benchmark(nnunet_folders, patients=1)
        examples = [example for example in choose_examples(results_of(benchmark)) if example.test.key == "Unseen"]
        assert len(examples) == 1


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
class TestDrawing:
    def overlay(self, folder: Path, ending: str, test: str) -> Overlay:
        benchmark = make_benchmark(folder, patients=2, ending=ending)
        example = next(each for each in choose_examples(results_of(benchmark)) if each.test.key == test)
        return draw_overlay(benchmark.layout, example)

    def test_four_panels_at_the_largest_slice(self, nnunet_folders: Path, ending: str) -> None:
        overlay = self.overlay(nnunet_folders, ending, "Source")
        assert [picture.caption.split(":")[0] for picture in overlay.pictures] == [
            "Image",
            "Reference",
            "stock nnU-Net",
            "SIKD student",
        ]
        assert ("slice 3 of 4" in overlay.title) == ("slice" in overlay.title) == (ending == ".nii.gz")
        assert overlay.legend == (("wall", LABEL_COLOURS[0]), ("cavity", LABEL_COLOURS[1]))
        shares = [self.share_of_orange(picture.data) for picture in overlay.pictures]
        assert shares[0] == 0
        assert min(shares[1:]) > 0.05

    def test_labels_of_another_name_and_value(self, nnunet_folders: Path, ending: str) -> None:
        """``cavity`` is 2 in the predictions and ``blood``, 1, in the references; the ring is not annotated there."""
        overlay = self.overlay(nnunet_folders, ending, "Unseen")
        assert overlay.legend == (("blood", LABEL_COLOURS[0]),)
        image, reference, stock, student = (self.share_of_orange(picture.data) for picture in overlay.pictures)
        assert image == 0
        assert stock == pytest.approx(reference, rel=0.5)
        assert student == pytest.approx(reference, rel=0.5)

    @staticmethod
    def share_of_orange(data: bytes) -> float:
        with Image.open(BytesIO(data)) as picture:
            red, _, blue = np.moveaxis(np.asarray(picture.convert("RGB"), dtype=int), -1, 0)
        return float((red - blue > 60).mean())


def test_missing_and_unfit_files_are_named(nnunet_folders: Path) -> None:
    benchmark = make_benchmark(nnunet_folders, patients=2)
    example = next(each for each in choose_examples(results_of(benchmark)) if each.test.key == "Unseen")
    prediction = benchmark.layout.predictions(example.test, example.arm) / f"{example.case}.nii.gz"
    write_image(prediction, np.zeros((2, 5, 5), dtype=np.uint8))
    with pytest.raises(SIKDError, match="another shape"):
        draw_overlay(benchmark.layout, example)
    prediction.unlink()
    with pytest.raises(SIKDError, match=f"{prediction.name}: not there"):
        draw_overlay(benchmark.layout, example)
