"""One true run through nnU-Net's own commands, from raw images to predictions on another data set."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import stock_command, with_trainers
from tests.helpers import make_case, make_dataset_json

pytestmark = pytest.mark.slow

SOURCE, TARGET = "Dataset901_Source", "Dataset902_Target"
SCHEDULE = "1epochs_2iterations"
TEACHER, STUDENT = f"nnUNetTrainer_SIKDTeacher_{SCHEDULE}", f"nnUNetTrainer_SIKDStudent_{SCHEDULE}"
WITHOUT_TEACHER = f"nnUNetTrainer_classVariation_noise_onTop_{SCHEDULE}"

Run = Callable[..., str]


def write_raw_dataset(folder: Path, part: str, cases: int, seed: int) -> None:
    """Write images and labels of a raw data set; ``part`` is Tr or Ts."""
    for kind in ("images", "labels"):
        (folder / f"{kind}{part}").mkdir(parents=True)
    for number in range(cases):
        image, label = make_case(2, seed=seed + number)
        for array, file in (
            (image[0], f"images{part}/case_{number:02d}_0000"),
            (label, f"labels{part}/case_{number:02d}"),
        ):
            written = SimpleITK.GetImageFromArray(array)
            written.SetSpacing((1.0, 1.0, 5.0))
            SimpleITK.WriteImage(written, str(folder / f"{file}.nii.gz"))
    content = make_dataset_json(regions=False, ignore=False, channels=1, num_cases=cases)
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnU-Net's three folders, with a source data set to train on and a target data set to predict."""
    folder = tmp_path_factory.mktemp("nnunet")
    for name in ("raw", "preprocessed", "results", "installed"):
        (folder / name).mkdir()
    write_raw_dataset(folder / "raw" / SOURCE, "Tr", cases=5, seed=0)
    write_raw_dataset(folder / "raw" / TARGET, "Ts", cases=2, seed=100)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Run a command as a user does; returns what it printed."""
    environment = {
        **with_trainers(),
        **{f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")},
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": "1",
        "nnUNet_SIKD_force_teacher": "1",  # this teacher trains for two iterations
    }

    def run(command: str, *arguments: str | Path, status: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [stock_command(command), *map(str, arguments)],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="module")
def trained(run: Run, folder: Path) -> Path:
    """Results of the source data set after planning, preprocessing, copies, teacher and student."""
    # nnU-Net cannot plan with 0.
    run("nnUNetv2_plan_and_preprocess", "-d", "901", "-c", "2d", "-np", "1", "-npfp", "1", nnUNet_n_proc_DA="1")
    run("nnUNetv2_sikd", "preprocess", "-d", "901", "--preview", "2")
    run("nnUNetv2_train", "901", "2d", "0", "-tr", TEACHER, "-device", "cpu")
    run("nnUNetv2_train", "901", "2d", "0", "-tr", STUDENT, "-device", "cpu", "--npz")
    return folder / "results" / SOURCE


@pytest.fixture(scope="module")
def predicted(run: Run, folder: Path, trained: Path) -> Path:
    """The student's predictions on the target data set."""
    predict(run, folder, folder / "raw" / TARGET / "imagesTs", "by_student", STUDENT)
    return folder / "by_student"


def predict(run: Run, folder: Path, images: Path, output: str, trainer: str, **variables: str) -> None:
    arguments = ("-d", "901", "-c", "2d", "-f", "0", "-tr", trainer, "-device", "cpu", "-npp", "1", "-nps", "1")
    run("nnUNetv2_predict", "-i", images, "-o", folder / output, *arguments, **variables)


def segmentations(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.glob("*.nii.gz"))
    return {file.name: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) for file in files}


def test_trainings_leave_what_stock_leaves(trained: Path, folder: Path) -> None:
    for trainer in (TEACHER, STUDENT):
        fold = trained / f"{trainer}__nnUNetPlans__2d" / "fold_0"
        left = {path.name for path in fold.iterdir()}
        assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "debug.json", "validation"} <= left
        assert (fold / "validation" / "summary.json").is_file()
    assert list((fold / "validation").glob("*.npz"))
    assert (fold / "progress_sikd.png").is_file()
    copies = folder / "preprocessed" / SOURCE / "nnUNetPlans_2d_SIKD_per_slice"
    assert copies.with_name(f"{copies.name}_preview.png").stat().st_size > 10_000


def test_student_predicts_another_data_set(predicted: Path, folder: Path) -> None:
    found = segmentations(predicted)
    reference = segmentations(folder / "raw" / TARGET / "labelsTs")
    assert found.keys() == reference.keys()
    assert all(found[name].shape == reference[name].shape for name in reference)


def exported(run: Run, folder: Path, trainer: str, zipped: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Predictions of an exported model where this package cannot be imported, and the provenance of its fold."""
    archive = zipped / f"{trainer}.zip"
    run("nnUNetv2_sikd", "export", "-d", "901", "-tr", trainer, "-f", "0", "-o", archive)
    # Whoever imports this package finds an error in its place.
    (zipped / "shadow" / "nnunetv2_sikd").mkdir(parents=True)
    (zipped / "shadow" / "nnunetv2_sikd" / "__init__.py").write_text("raise ImportError('not here')")
    elsewhere = {
        "nnUNet_results": str(folder / "installed"),
        "nnUNet_extTrainer": "",
        "PYTHONPATH": str(zipped / "shadow"),
    }
    run("nnUNetv2_install_pretrained_model_from_zip", archive, **elsewhere)
    output = f"by_exported_{trainer}"
    predict(run, folder, folder / "raw" / TARGET / "imagesTs", output, trainer, **elsewhere)
    with zipfile.ZipFile(archive) as members:
        provenance = json.loads(members.read(f"{SOURCE}/{trainer}__nnUNetPlans__2d/sikd_provenance.json"))
    return segmentations(folder / output), provenance["fold_0"]


def assert_equal(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> None:
    assert some.keys() == others.keys()
    assert all(np.array_equal(some[name], others[name]) for name in some)


def test_an_exported_student_predicts_bit_identically_without_this_package(
    run: Run, folder: Path, trained: Path, predicted: Path, tmp_path: Path
) -> None:
    found, provenance = exported(run, folder, STUDENT, tmp_path)
    assert_equal(found, segmentations(predicted))
    assert provenance["trainer"] == STUDENT
    assert provenance["teacher_trainer"] == TEACHER

    refused = run("nnUNetv2_sikd", "export", "-d", "901", "-tr", TEACHER, "-f", "0", "-o", tmp_path / "t.zip", status=1)
    assert "holds a teacher" in refused
    assert not (tmp_path / "t.zip").exists()


def test_so_does_an_exported_network_that_had_no_teacher(run: Run, folder: Path, trained: Path, tmp_path: Path) -> None:
    run("nnUNetv2_train", "901", "2d", "0", "-tr", WITHOUT_TEACHER, "-device", "cpu")
    predict(run, folder, folder / "raw" / TARGET / "imagesTs", "without_teacher", WITHOUT_TEACHER)
    found, provenance = exported(run, folder, WITHOUT_TEACHER, tmp_path)
    assert_equal(found, segmentations(folder / "without_teacher"))
    assert provenance["trainer"] == WITHOUT_TEACHER


def test_teacher_predicts_averaged_images(run: Run, folder: Path, trained: Path) -> None:
    target = folder / "raw" / TARGET
    run(
        "nnUNetv2_sikd",
        "average",
        "-d",
        "901",
        "-i",
        target / "imagesTs",
        "-l",
        target / "labelsTs",
        "-o",
        folder / "flat",
    )
    for name, image in segmentations(folder / "flat").items():
        assert max(len(np.unique(section)) for section in image) <= 3, name
    predict(run, folder, folder / "flat", "by_teacher", TEACHER)
    assert len(segmentations(folder / "by_teacher")) == 2


def test_stock_options_of_the_teacher(run: Run, trained: Path) -> None:
    model = trained / f"{TEACHER}__nnUNetPlans__2d"
    shutil.rmtree(model / "fold_0" / "validation")
    run("nnUNetv2_train", "901", "2d", "0", "-tr", TEACHER, "-device", "cpu", "--val")
    assert (model / "fold_0" / "validation" / "summary.json").is_file()
    weights = model / "fold_0" / "checkpoint_final.pth"
    trained_weights = weights_hash(read_checkpoint(weights)["network_weights"])
    weights.rename(weights.with_name("checkpoint_latest.pth"))
    run("nnUNetv2_train", "901", "2d", "0", "-tr", TEACHER, "-device", "cpu", "--c", "--npz")
    # The student's record of its teacher stays true: nnU-Net has rewritten the file, and the weights are the same.
    assert weights_hash(read_checkpoint(weights)["network_weights"]) == trained_weights
    assert list((model / "fold_0" / "validation").glob("*.npz"))
    run("nnUNetv2_train", "901", "2d", "all", "-tr", TEACHER, "-device", "cpu", "-pretrained_weights", weights)
    assert (model / "fold_all" / "validation" / "summary.json").is_file()


def test_train_command_skips_what_is_done_and_continues_what_is_not(run: Run, trained: Path) -> None:
    fold = trained / f"{STUDENT}__nnUNetPlans__2d" / "fold_0"
    final = (fold / "checkpoint_final.pth").stat().st_mtime_ns
    arguments = ("train", "-d", "901", "-f", "0", "-tr", STUDENT, "-device", "cpu")
    assert run("nnUNetv2_sikd", *arguments).count("already trained") == 2
    assert (fold / "checkpoint_final.pth").stat().st_mtime_ns == final

    shutil.rmtree(fold / "validation")
    assert "--val" in run("nnUNetv2_sikd", *arguments, nnUNet_extTrainer="")
    assert (fold / "validation" / "summary.json").is_file()


def test_errors_of_a_started_training_are_one_clear_line(run: Run, trained: Path) -> None:
    printed = run("nnUNetv2_train", "901", "2d", "1", "-tr", STUDENT, "-device", "cpu", status=1)
    assert "Traceback" not in printed
    assert printed.strip().splitlines()[-1].startswith("Error: ")
    assert f"nnUNetv2_train {SOURCE} 2d 1 -tr {TEACHER}" in printed.strip().splitlines()[-1]


def test_benchmark_uses_what_is_trained_and_ends_in_a_report(run: Run, folder: Path, trained: Path) -> None:
    file, output = folder / "tiny.yaml", folder / "benchmark"
    file.write_text(
        f"title: Tiny\nsource: {{dataset: {SOURCE}}}\ntests: [{{key: target, dataset: {TARGET}}}]\n"
        "arms: {stock: nnUNetTrainer, sikd: nnUNetTrainer_SIKDStudent}\nschedule: {epochs: 1, iterations: 2}\n"
    )
    command = ("nnUNetv2_sikd", "benchmark", file, "-o", output, "-device", "cpu", "-np", "1")
    first = run(*command)
    assert first.count("nnUNetv2_sikd train") == 3
    assert (output / "logs" / f"train_{STUDENT}_fold0.log").read_text().count("already trained") == 2
    for arm in ("stock", "sikd"):
        result = output / "evaluation" / "target" / f"{arm}_fold0"
        rows = (result / "metrics.csv").read_text().splitlines()
        summary = json.loads((result / "summary.json").read_text())
        assert len(rows) == 1 + 2 * 2  # cases and labels
        assert len(summary["metric_per_case"]) == 2
    assert "<html" in (output / "report" / "report.html").read_text()
    assert run(*command).count("done before, skipped") == first.count("\n[")
