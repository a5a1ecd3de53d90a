"""The command: files, numbers, and one line for whatever is not there or does not fit."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from nnunetv2_sikd.commands.main import main
from nnunetv2_sikd.figures.networks import stock_of
from nnunetv2_sikd.trainers import variants
from tests.commands.test_main import told
from tests.figures.conftest import STOCK, STUDENT, TEACHER, FinishFold
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset

FILES = ["features.csv", "features.png", "intensities.csv", "intensities.png"]


def arguments(dataset: PreprocessedDataset, output: Path, *further: str) -> list[str]:
    words = ["figures", "-d", dataset.name, "-c", dataset.configuration, "-f", "0", "-tr", STUDENT, "-o", str(output)]
    return [*words, *further]


def read_table(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("dim", "options"), [(2, {"channels": 2, "ignore": True}), (2, {"regions": True}), (3, {"residual": True})]
)
def test_files(
    dim: int, options: dict[str, bool], nnunet_folders: Path, finish_fold: FinishFold, tmp_path: Path
) -> None:
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=dim, num_cases=2, **options)
    finish_fold(dataset)
    (dataset.folder / "splits_final.json").write_text(json.dumps([{"train": [], "val": list(dataset.cases)}]))
    output = tmp_path / "new" / "figures"
    output.mkdir(parents=True)
    (output / "features.png").write_text("an earlier one")
    assert main(arguments(dataset, output)) == 0
    assert sorted(file.name for file in output.iterdir()) == FILES
    for name in FILES[1::2]:
        picture = imread(output / name)
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 0.05
    features, intensities = (read_table(output / name) for name in FILES[::2])
    assert [(row["case"], row["shown"]) for row in features[::4]] == [("case_00", "yes"), ("case_01", "no")]
    assert [(row["network"], row["region"]) for row in features[:4]] == [
        (network, region) for network in ("student", "stock") for region in ("slice", "foreground")
    ]
    assert len(intensities) == 3 * options.get("channels", 1)
    assert {row["averages"] for row in intensities} == {"8" if dim == 2 else "2"}


def test_case_and_slice_are_chosen(dataset_2d: PreprocessedDataset, finish_fold: FinishFold, tmp_path: Path) -> None:
    finish_fold(dataset_2d)
    assert main(arguments(dataset_2d, tmp_path / "out", "--case", "case_02", "--slice", "3")) == 0
    rows = read_table(tmp_path / "out" / "features.csv")
    # case_02 trained the networks: shown, and kept apart from the validation case
    assert tuple(rows[0][key] for key in ("case", "slice", "shown")) == ("case_02", "3", "yes")
    assert {row["case"] for row in rows if row["shown"] == "no"} == {"case_00"}


def test_untrained_stock_is_left_out(
    dataset_2d: PreprocessedDataset, finish_fold: FinishFold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_fold(dataset_2d, stock=False)
    assert main(arguments(dataset_2d, tmp_path / "out")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sum(f"{STOCK}__nnUNetPlans__2d" in line and "left out" in line for line in printed) == 1
    assert {row["network"] for row in read_table(tmp_path / "out" / "features.csv")} == {"student"}


def test_stock_has_augmentation_seed_and_schedule_of_the_student() -> None:
    names = {
        "nnUNetTrainer_SIKDStudent": "nnUNetTrainer",
        "nnUNetTrainer_SIKDStudent_alpha1_20epochs": "nnUNetTrainer_20epochs",
        "nnUNetTrainer_SIKDStudent_teacherOnLabelMaps_5epochs": "nnUNetTrainer_5epochs",
        "nnUNetTrainer_SIKDStudent_alpha1_DA5_seed3_20epochs": "nnUNetTrainerDA5_seed3_20epochs",
        "nnUNetTrainer_SIKDStudent_seed0": "nnUNetTrainer_seed0",
        "nnUNetTrainer_SIKDStudent_geometricCE_seed0": "nnUNetTrainer_geometricCE_seed0",
        "nnUNetTrainer_SIKDStudent_alpha1_classJitter_DA5_seed0": "nnUNetTrainerDA5_classJitter_seed0",
        "nnUNetTrainer_SIKDStudent_teacherOnImages_deepSkips_linear_5epochs": "nnUNetTrainer_5epochs",
        "nnUNetTrainer_SIKDStudent_classContrastBoth0p25_seed1": "nnUNetTrainer_classContrast0p25_seed1",
        "nnUNetTrainer_SIKDStudent_classJitterBoth0p25_geometricCE": "nnUNetTrainer_classJitter0p25_geometricCE",
        "nnUNetTrainer_SIKDStudent_classVariation0p5_DA5_seed0": "nnUNetTrainerDA5_classVariation0p5_seed0",
        "nnUNetTrainer_SIKDStudent_classVariationBoth": "nnUNetTrainer_classVariation",
        "nnUNetTrainer_SIKDStudent_teacher40epochs": "nnUNetTrainer",
        "nnUNetTrainer_SIKDStudent_teacher40epochs_DA5_seed1_20epochs": "nnUNetTrainerDA5_seed1_20epochs",
        STUDENT: STOCK,
    }
    assert {name: stock_of(getattr(variants, name)) for name in names} == names


def test_networks_that_are_missing_or_do_not_fit(
    dataset_2d: PreprocessedDataset, finish_fold: FinishFold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = arguments(dataset_2d, output)
    train = f"run nnUNetv2_sikd train -d {dataset_2d.name} -c 2d -p nnUNetPlans -f 0 -tr {STUDENT}"
    line = told(capsys, *command)
    assert "the student is not trained to its end" in line
    assert train in line

    files = finish_fold(dataset_2d)
    kept = tmp_path / "kept.pth"
    shutil.move(files["teacher"], kept)
    line = told(capsys, *command)
    assert f"{TEACHER}__nnUNetPlans__2d" in line
    assert train in line

    other = torch.load(kept, weights_only=False)
    other["network_weights"] = {name: tensor + 1 for name, tensor in other["network_weights"].items()}
    torch.save(other, files["teacher"])
    assert "was taught by another teacher" in told(capsys, *command)

    shutil.copy(kept, files["teacher"])
    shutil.copy(files["student"], kept)
    shutil.copy(files["teacher"], files["stock"])
    assert "do not fit the network of these plans" in told(capsys, *command)
    files["stock"].write_bytes(b"nothing")
    assert "damaged" in told(capsys, *command)
    assert not output.exists()


def test_wrong_arguments(
    dataset_2d: PreprocessedDataset, finish_fold: FinishFold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_fold(dataset_2d)
    output = tmp_path / "out"
    expected = {
        ("--case", "nobody"): "has no case 'nobody'; choose another with --case",
        ("--slice", "4"): "--slice 4: case_00 has slices 0 to 3",
        ("-tr", "nnUNetTrainer"): "-tr nnUNetTrainer: no student's trainer",
        ("-f", "1"): "the student is not trained to its end",
    }
    if not torch.cuda.is_available():
        expected["-device", "cuda"] = (
            "-device cuda: PyTorch finds none on this machine; name another one, such as -device cpu"
        )
    for further, message in expected.items():
        assert message in told(capsys, *arguments(dataset_2d, output, *further))
    with pytest.raises(SystemExit) as left:
        main(arguments(dataset_2d, output, "--slice", "-1"))
    assert left.value.code == 2
    assert not output.exists()

    splits = dataset_2d.folder / "splits_final.json"
    splits.write_text(json.dumps([{"train": [], "val": ["nobody"]}]))
    assert "fold 0 names nobody, no training cases of" in told(capsys, *arguments(dataset_2d, output))
    splits.write_text(json.dumps([{"train": [], "val": []}]))
    assert 'fold 0 names no case in "val"' in told(capsys, *arguments(dataset_2d, output))
    splits.write_text("[{")
    assert "not valid JSON" in told(capsys, *arguments(dataset_2d, output))
    splits.unlink()
    assert f"{splits}: not there, so fold 0 has no cases" in told(capsys, *arguments(dataset_2d, output))


def test_damaged_case_and_folder_that_is_none(
    dataset_2d: PreprocessedDataset, finish_fold: FinishFold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_fold(dataset_2d)
    (tmp_path / "file").write_text("")
    line = told(capsys, *arguments(dataset_2d, tmp_path / "file"))
    assert f"{tmp_path / 'file'}: is no folder, so nothing can be written there" in line
    (tmp_path / "taken" / "features.png").mkdir(parents=True)
    line = told(capsys, *arguments(dataset_2d, tmp_path / "taken"))
    assert "features.png: cannot be written" in line
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["features.png"]
    (dataset_2d.source / "case_00.b2nd").write_bytes(b"cut off")
    line = told(capsys, *arguments(dataset_2d, tmp_path / "out"))
    assert "case_00.b2nd: cannot be read" in line
    assert "run nnUNetv2_preprocess again" in line
