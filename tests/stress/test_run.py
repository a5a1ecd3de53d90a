"""The stress command on untrained networks: what it predicts, compares, keeps and refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from nnunetv2_sikd.commands.main import main
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.figures.forest import Group
from nnunetv2_sikd.stress import examples, predict, show
from nnunetv2_sikd.stress import run as module
from nnunetv2_sikd.stress.record import read_scores
from nnunetv2_sikd.stress.run import stress
from nnunetv2_sikd.stress.shifts import SHIFTS
from nnunetv2_sikd.stress.show import Example, draw_views
from nnunetv2_sikd.training import fold_folder
from tests.figures.conftest import load
from tests.helpers import SPACINGS, PreprocessedDataset, make_case, make_preprocessed_dataset
from tests.trainers.conftest import TEACHER, MakeTrainer, finish, make_trainer  # noqa: F401

ONE, OTHER = "nnUNetTrainer_seed0_2epochs_2iterations", "nnUNetTrainer_seed1_2epochs_2iterations"


def with_raw(folders: Path, dim: int = 2, **kind: Any) -> PreprocessedDataset:
    """A data set with its raw images, two cases of which are validated on in fold 0."""
    dataset = make_preprocessed_dataset(folders / "preprocessed", dim=dim, num_cases=4, **kind)
    splits = [{"train": list(dataset.cases[2:]), "val": list(dataset.cases[:2])}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(splits))
    raw = folders / "raw" / dataset.name
    for kind_of_file in ("imagesTr", "labelsTr"):
        (raw / kind_of_file).mkdir(parents=True)
    (raw / "dataset.json").write_text((dataset.folder / "dataset.json").read_text())
    settings = {key: value for key, value in kind.items() if key in ("channels", "ignore")}
    for number, case in enumerate(dataset.cases):
        image, label = make_case(dim, seed=number, **settings)
        files = {f"imagesTr/{case}_{c:04d}": channel for c, channel in enumerate(image)}
        for name, array in {**files, f"labelsTr/{case}": label}.items():
            written = SimpleITK.GetImageFromArray(array)
            written.SetSpacing(SPACINGS[dim][::-1])
            SimpleITK.WriteImage(written, str(raw / f"{name}.nii.gz"))
    return dataset


def train(make_trainer: MakeTrainer, dataset: PreprocessedDataset, *names: str) -> list[Any]:  # noqa: F811
    trainers = []
    for name in names:
        trainer = make_trainer(dataset, name)
        trainer.initialize()
        finish(trainer)
        trainers.append(trainer)
    return trainers


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "stress.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("dim", "kind"), [(2, {}), (2, {"regions": True, "channels": 2}), (3, {"ignore": True})], ids=str
)
def test_without_shift_it_is_nnunet_s_validation(
    nnunet_folders: Path,
    make_trainer: MakeTrainer,  # noqa: F811
    tmp_path: Path,
    dim: int,
    kind: dict[str, Any],
) -> None:
    dataset = with_raw(nnunet_folders, dim, **kind)
    (trainer,) = train(make_trainer, dataset, ONE)
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    files = stress(load(dataset), 0, [ONE], tmp_path / "out", severities=1, device="cpu")
    assert all(file.stat().st_size > 0 for file in files)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * (1 + len(SHIFTS)) * 2  # cases, images, labels
    labels = set(json.loads((dataset.folder / "dataset.json").read_text())["labels"])
    for case in summary["metric_per_case"]:
        name = Path(case["reference_file"]).name.removesuffix(".nii.gz")
        ours = [float(row["dice"] or "nan") for row in rows if row["case"] == name and not row["shift"]]
        np.testing.assert_allclose(ours, [metrics["Dice"] for metrics in case["metrics"].values()], atol=1e-4)
    assert {row["label"] for row in rows} == labels - {"background", "ignore"}


def test_the_reference_decides_which_labels_count(nnunet_folders: Path) -> None:
    planned = load(with_raw(nnunet_folders))
    reference = np.array([[1, 1, 0, 0]], np.int16)
    one, other = (name for name in planned.dataset_json["labels"] if name != "background")
    for prediction, dice in (([[1, 1, 0, 0]], 1.0), ([[1, 1, 2, 2]], 1.0), ([[0, 0, 2, 2]], 0.0)):
        found = predict.dice_by_label(planned, reference, np.array(prediction, np.int16))
        assert found[one] == dice
        assert np.isnan(found[other])


@pytest.fixture
def dataset(nnunet_folders: Path, make_trainer: MakeTrainer) -> PreprocessedDataset:  # noqa: F811
    dataset = with_raw(nnunet_folders)
    train(make_trainer, dataset, ONE, OTHER)
    return dataset


def test_command(dataset: PreprocessedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["stress", "-d", dataset.name, "-f", "0", "-tr", ONE, OTHER, "-o", str(tmp_path / "out")]
    assert main([*line, "-device", "cpu", "--severities", "1", "--cases", "1", "--disable_tta"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "stress.md").read_text() in printed
    assert {row["trainer"] for row in rows_of(tmp_path / "out")} == {ONE, OTHER}
    assert {row["case"] for row in rows_of(tmp_path / "out")} == {dataset.cases[0]}


def test_a_second_run_predicts_nothing_and_a_further_trainer_is_added(
    dataset: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, planned = tmp_path / "out", load(dataset)
    predicted: list[str] = []
    score = module.score

    def counting(planned: Any, raw: Any, networks: dict[str, Any], severities: int) -> Any:
        predicted.extend(f"{name} {raw.name}" for name in networks)
        return score(planned, raw, networks, severities)

    monkeypatch.setattr(module, "score", counting)
    stress(planned, 0, [ONE], output, severities=1, device="cpu", mirroring=False)
    first = rows_of(output)
    assert len(predicted) == 2
    (output / "stress.png").unlink()
    stress(planned, 0, [ONE], output, severities=1, device="cpu", mirroring=False)
    assert len(predicted) == 2
    assert (output / "stress.png").is_file()
    stress(planned, 0, [ONE, OTHER], output, severities=1, device="cpu", mirroring=False)
    assert predicted[2:] == [f"{OTHER} {case}" for case in dataset.cases[:2]]
    both = rows_of(output)
    assert [row for row in both if row["trainer"] == ONE] == first
    assert "2 validation cases, each counted as a patient of its own," in (output / "stress.md").read_text()
    stress(planned, 0, [ONE], output, severities=1, device="cpu", mirroring=False, patient=dataset.cases[0][:2])
    assert len(predicted) == 4
    assert "2 validation cases of 1 patients, under" in (output / "stress.md").read_text()
    assert "(2 seeds)" in (output / "stress.md").read_text()


def test_continues_after_an_interruption(
    dataset: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, score = load(dataset), module.score

    def dying(planned: Any, raw: Any, *others: Any) -> Any:
        if raw.name == dataset.cases[1]:
            raise KeyboardInterrupt
        return score(planned, raw, *others)

    monkeypatch.setattr(module, "score", dying)
    with pytest.raises(KeyboardInterrupt):
        stress(planned, 0, [ONE], tmp_path / "cut", severities=1, device="cpu", mirroring=False)
    assert {row["case"] for row in rows_of(tmp_path / "cut")} == {dataset.cases[0]}
    monkeypatch.setattr(module, "score", score)
    for folder in ("cut", "whole"):
        stress(planned, 0, [ONE], tmp_path / folder, severities=1, device="cpu", mirroring=False)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_trainers_without_all_of_the_cases_are_not_compared(dataset: PreprocessedDataset, tmp_path: Path) -> None:
    planned, options = load(dataset), {"severities": 1, "device": "cpu", "mirroring": False}
    stress(planned, 0, [OTHER], tmp_path, num_cases=1, **options)
    stress(planned, 0, [ONE], tmp_path, **options)
    assert "(2 seeds)" not in (tmp_path / "stress.md").read_text()
    stress(planned, 0, [ONE], tmp_path, num_cases=1, **options)
    assert "(2 seeds)" in (tmp_path / "stress.md").read_text()


def test_examples_are_what_was_scored(
    dataset: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Sequence[Example], str]] = []

    def noting(views: Sequence[Example], names: Any, title: str, file: Path) -> Path:
        drawn.append((views, title))
        return draw_views(views, names, title, file)

    monkeypatch.setattr(examples, "draw_views", noting)
    planned, options = load(dataset), {"severities": 2, "device": "cpu", "mirroring": False}
    files = stress(planned, 0, [ONE], tmp_path, **options)
    assert tmp_path / "differences.png" not in files
    stress(planned, 0, [ONE], tmp_path, **options)
    ((views, title),) = drawn  # once
    shifts = ["", *(shift.name for shift in SHIFTS)]
    assert [view.title for view in views] == ["no shift", *(shift.title.lower() for shift in SHIFTS)]
    case = examples.median_case(read_scores(tmp_path), dataset.cases[:2])
    assert case in title
    rows = [row for row in rows_of(tmp_path) if row["case"] == case and row["severity"] in ("0", "2")]
    for shift, view in zip(shifts, views, strict=True):
        prediction, dice = view.predictions[ONE]
        assert dice == pytest.approx(np.mean([float(row["dice"]) for row in rows if row["shift"] == shift]), abs=1e-5)
        assert prediction.shape == view.reference.shape == view.image.shape
        np.testing.assert_array_equal(view.reference, views[0].reference)
        assert (view is views[0]) == np.array_equal(view.image, views[0].image)
    (tmp_path / "examples.png").unlink()
    files = stress(planned, 0, [OTHER], tmp_path, **options)
    assert [list(views[0].predictions) for views, _ in drawn[1:]] == [[OTHER]]
    assert all(file.stat().st_size > 0 for file in files)


def test_examples_are_drawn_again_for_another_case_or_trainer_alone() -> None:
    drawn = {"case": "a", "trainers": ["one", "other"]}
    for asked, outdated in (
        ({"case": "a", "trainers": ["other", "one"]}, False),
        ({"case": "a", "trainers": ["one"]}, False),
        ({"case": "a", "trainers": ["one", "third"]}, True),
        ({"case": "b", "trainers": ["one", "other"]}, True),
    ):
        assert module._is_outdated(drawn, asked) == outdated
    assert module._is_outdated(None, drawn)


def test_differences_are_drawn_as_in_the_table(
    dataset: PreprocessedDataset,
    tmp_path: Path,
    make_trainer: MakeTrainer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longer = "nnUNetTrainer_seed0_3epochs_2iterations"
    train(make_trainer, dataset, longer)
    drawn: list[Group] = []
    monkeypatch.setattr(show, "draw_groups", lambda axes, groups: drawn.extend(groups))
    options = {"severities": 1, "device": "cpu", "mirroring": False}
    assert tmp_path / "differences.png" not in stress(load(dataset), 0, [ONE, OTHER], tmp_path, **options)
    assert not drawn
    assert tmp_path / "differences.png" in stress(load(dataset), 0, [ONE, OTHER, longer], tmp_path, **options)
    told = (tmp_path / "stress.md").read_text().splitlines()
    _, header, row = [line.strip("| ").split(" | ") for line in told if line.startswith(("| minus", f"| {longer}"))]
    assert [group.title for group in drawn] == header[1:]
    each = [line for group in drawn for line in group.rows]
    assert [f"{mean:+.3f} ({low:+.3f} to {high:+.3f})" for _, mean, low, high in each] == row[1:]
    (tmp_path / "differences.png").touch()
    lines = (tmp_path / "stress.csv").read_text().splitlines(keepends=True)
    (tmp_path / "stress.csv").write_text("".join(line for line in lines if longer not in line))
    stress(load(dataset), 0, [ONE], tmp_path, **options)
    assert not (tmp_path / "differences.png").exists()


def test_shifts_act_in_the_plane_of_the_acquisition(
    dataset: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = load(dataset)
    planned.plans_json.update(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    seen: list[tuple[int, ...]] = []
    reached: list[tuple[int, ...]] = []

    def noting(image: np.ndarray, label: np.ndarray, *others: Any) -> np.ndarray:
        assert image.shape[1:] == label.shape
        seen.append(image.shape)
        return image + 1

    def preprocessed(self: Any, data: np.ndarray, seg: np.ndarray, *others: Any) -> Any:
        reached.append(data.shape)
        assert data.shape == seg.shape
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "shifted", noting)
    monkeypatch.setattr(planned.configuration.preprocessor_class, "run_case_npy", preprocessed)
    raw = predict.load_case(planned, dataset.cases[0], *predict.raw_files(planned, dataset.cases[:1])[dataset.cases[0]])
    monkeypatch.setattr(predict, "tqdm", lambda steps, **_: steps[1:])  # begin with a shift
    with pytest.raises(KeyboardInterrupt):
        predict.score(planned, raw, {}, 1)
    assert seen == [(1, 36, 4, 40)]
    assert reached == [(1, 4, 40, 36)]


class TestRefuses:
    def refusal(self, dataset: PreprocessedDataset, output: Path, *trainers: str, fold: Any = 0, **options: Any) -> str:
        with pytest.raises(SIKDError) as caught:
            stress(load(dataset), fold, trainers or [ONE], output, **{"severities": 1, "device": "cpu", **options})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_trainer_that_is_not_trained(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        told = self.refusal(dataset, tmp_path / "out", "nnUNetTrainer")
        assert f"nnUNetv2_sikd train -d {dataset.name} -c 2d -p nnUNetPlans -f 0 -tr nnUNetTrainer" in told
        assert not (tmp_path / "out").exists()

    def test_the_second_stage_of_a_cascade(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        dataset.become_second_stage()
        assert "second stage of a cascade" in self.refusal(dataset, tmp_path / "out")

    def test_a_teacher(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        assert "is a teacher" in self.refusal(dataset, tmp_path / "out", TEACHER)

    def test_a_training_of_another_split(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        validation = fold_folder(load(dataset), OTHER, 0) / "validation"
        validation.mkdir(exist_ok=True)
        cases = [{"prediction_file": f"{case}.nii.gz"} for case in dataset.cases[1:3]]
        (validation / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
        assert "the split was changed after this training" in self.refusal(dataset, tmp_path / "out", ONE, OTHER)
        assert not (tmp_path / "out").exists()

    def test_fold_all(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        assert "name a fold's number" in self.refusal(dataset, tmp_path / "out", fold="all")

    def test_a_name_without_patient(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        said = self.refusal(dataset, tmp_path / "out", patient="^nobody")
        assert f"--patient '^nobody': finds none in the case {dataset.cases[0]}" in said

    def test_missing_raw_images(self, dataset: PreprocessedDataset, tmp_path: Path, nnunet_folders: Path) -> None:
        (nnunet_folders / "raw" / dataset.name / "labelsTr" / f"{dataset.cases[0]}.nii.gz").unlink()
        assert f"validation case {dataset.cases[0]}" in self.refusal(dataset, tmp_path / "out")

    def test_scores_of_other_settings_or_weights(
        self,
        dataset: PreprocessedDataset,
        tmp_path: Path,
        make_trainer: MakeTrainer,  # noqa: F811
    ) -> None:
        output = tmp_path / "out"
        stress(load(dataset), 0, [ONE], output, severities=1, device="cpu", mirroring=False)
        assert "severities, mirroring" in self.refusal(dataset, output, severities=2)
        (trainer,) = train(make_trainer, dataset, ONE)
        with torch.no_grad():
            next(trainer.network.parameters()).add_(1)
        finish(trainer)
        assert f"weights of {ONE}" in self.refusal(dataset, output, mirroring=False)

    @pytest.mark.parametrize("changed", ["imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz", None])
    def test_scores_of_other_inputs(
        self, dataset: PreprocessedDataset, tmp_path: Path, nnunet_folders: Path, changed: str | None
    ) -> None:
        options: dict[str, Any] = {"severities": 1, "device": "cpu", "mirroring": False}
        stress(load(dataset), 0, [ONE], tmp_path, num_cases=1, **options)
        if changed is None:
            plans = json.loads((dataset.folder / "nnUNetPlans.json").read_text())
            plans["foreground_intensity_properties_per_channel"] = {"0": {"mean": 7.0}}
            (dataset.folder / "nnUNetPlans.json").write_text(json.dumps(plans))
            assert "holds scores of others (plans)" in self.refusal(dataset, tmp_path, ONE, OTHER, **options)
            return
        first, second = (nnunet_folders / "raw" / dataset.name / changed.format(case) for case in dataset.cases[:2])
        for file in (second, first):
            image = SimpleITK.ReadImage(str(file))
            SimpleITK.WriteImage(SimpleITK.Flip(image, (True, False, False)), str(file))
            if file == second:  # of which there are no scores yet
                stress(load(dataset), 0, [ONE], tmp_path, **options)
        told = self.refusal(dataset, tmp_path, ONE, OTHER, **options)
        assert f"holds scores of others (images or label of {dataset.cases[0]})" in told

    def test_a_record_of_an_earlier_version(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        options: dict[str, Any] = {"severities": 1, "num_cases": 1, "device": "cpu", "mirroring": False}
        stress(load(dataset), 0, [ONE], tmp_path, **options)
        record = json.loads((tmp_path / "stress.json").read_text())
        earlier = {key: value for key, value in record.items() if key not in ("plans_sha256", "cases_sha256")}
        (tmp_path / "stress.json").write_text(json.dumps(earlier))
        stress(load(dataset), 0, [ONE, OTHER], tmp_path, **options)
        again = json.loads((tmp_path / "stress.json").read_text())
        assert again["plans_sha256"] == record["plans_sha256"]
        assert again["cases_sha256"] == record["cases_sha256"]
        assert list(record["cases_sha256"]) == [dataset.cases[0]]

    @pytest.mark.parametrize("content", ["[]", "{", '{"settings": 1}'])
    def test_a_damaged_record(self, dataset: PreprocessedDataset, tmp_path: Path, content: str) -> None:
        (tmp_path / "stress.json").write_text(content)
        assert "damaged" in self.refusal(dataset, tmp_path)

    def test_damaged_scores(self, dataset: PreprocessedDataset, tmp_path: Path) -> None:
        (tmp_path / "stress.csv").write_text("a,b\n1,2\n")
        assert "belongs to no stress.json" in self.refusal(dataset, tmp_path)
        planned = load(dataset)
        stress(planned, 0, [ONE], tmp_path / "out", severities=1, device="cpu", mirroring=False)
        (tmp_path / "out" / "stress.csv").write_text("a,b\n1,2\n")
        assert "is no table of scores" in self.refusal(dataset, tmp_path / "out", mirroring=False)
