"""The steps of a benchmark: their order, what each needs, and their commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep, Machine, needed_steps, plan_steps, show_steps, without_machine
from nnunetv2_sikd.commands.main import build_parser
from nnunetv2_sikd.errors import SIKDError
from tests.benchmark.helpers import SPECIFICATION, layout_of, write_benchmark, write_both

TEACHER = "train_nnUNetTrainer_SIKDTeacher_seed0_2epochs_3iterations_fold0"


@pytest.fixture
def folder(nnunet_folders: Path) -> Path:
    write_both(nnunet_folders)
    return nnunet_folders


def steps_of(folder: Path, **changes: object) -> list[BenchmarkStep]:
    return plan_steps(layout_of(folder, **changes), "tiny.yaml", Machine("cpu"))


def step_of(steps: list[BenchmarkStep], start: str) -> BenchmarkStep:
    return next(step for step in steps if step.name.startswith(start))


def test_every_step_comes_once_and_after_what_it_needs(folder: Path) -> None:
    steps = steps_of(folder, folds=[0, 1], seeds=[0, 1])
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    made: set[Path] = {folder / "raw" / "Dataset901_Source" / "dataset.json"}
    for step in steps:
        assert set(step.inputs) <= made, step.name
        made |= set(step.outputs)
    assert names[0] == "prepare"
    assert names[-1] == "report"


def test_arms_of_another_alpha_share_a_teacher(folder: Path) -> None:
    steps = steps_of(folder)
    assert [step.name for step in steps if "Teacher" in step.name] == [TEACHER]
    for student in ("train_nnUNetTrainer_SIKDStudent_seed0", "train_nnUNetTrainer_SIKDStudent_alpha1_seed0"):
        needed = {step.name for step in needed_steps(step_of(steps, student), steps)}
        assert needed == {"prepare", "copies", TEACHER}
    stock = needed_steps(step_of(steps, "train_nnUNetTrainer_seed0"), steps)
    assert [step.name for step in stock] == ["prepare"]


def test_each_seed_and_fold_has_its_teacher(folder: Path) -> None:
    steps = steps_of(folder, folds=[0, 1], seeds=[0, 1], arms={"stock": "nnUNetTrainer", **_only("sikd")})
    assert sum("Teacher" in step.name for step in steps) == 4
    student = step_of(steps, "train_nnUNetTrainer_SIKDStudent_seed1_2epochs_3iterations_fold1")
    teachers = [step.name for step in needed_steps(student, steps) if "Teacher" in step.name]
    assert teachers == ["train_nnUNetTrainer_SIKDTeacher_seed1_2epochs_3iterations_fold1"]


@pytest.mark.parametrize(
    ("trainer", "copies"),
    [
        ("nnUNetTrainer_SIKDStudent", True),
        ("nnUNetTrainer_SIKDStudent_copyView", True),
        ("nnUNetTrainer_SIKDStudent_teacherOnImages", False),
        ("nnUNetTrainer_SIKDStudent_teacherOnLabelMaps", False),
        ("nnUNetTrainerDA5", False),
    ],
)
def test_copies_are_made_only_where_a_teacher_sees_them(folder: Path, trainer: str, copies: bool) -> None:
    steps = steps_of(folder, arms={"stock": "nnUNetTrainer", "other": trainer})
    assert ("copies" in [step.name for step in steps]) is copies


def test_a_chain_from_training_to_report(folder: Path) -> None:
    steps = steps_of(folder)
    predict, evaluate = (step_of(steps, f"{what}_other_sikd") for what in ("predict", "evaluate"))
    assert [step.name for step in needed_steps(evaluate, steps)] == [predict.name]
    assert [step.name for step in needed_steps(predict, steps)] == [
        "train_nnUNetTrainer_SIKDStudent_seed0_2epochs_3iterations_fold0"
    ]
    assert {step.name for step in needed_steps(steps[-1], steps)} == {
        f"evaluate_{test}_{arm}_seed0_fold0" for test in ("own", "other") for arm in SPECIFICATION["arms"]
    }


def test_commands_are_understood_by_the_command_line(folder: Path) -> None:
    derive = {"from": "2d", "spacing": [2.0, 1.5], "patch_size": [64, 32], "features_per_stage": [4, 8, 8]}
    steps = steps_of(folder, source={"dataset": 901, "configuration": "2d_small", "derive": derive})
    parsed = {}
    for step in steps:
        assert step.command[0] == "nnUNetv2_sikd"
        if step.name != "report":
            parsed[step.name] = build_parser().parse_args(step.command[1:])
    assert parsed["prepare"].base == "2d"
    assert parsed["prepare"].spacing == [2.0, 1.5]
    assert parsed["prepare"].features_per_stage == [4, 8, 8]
    evaluate = parsed["evaluate_other_sikd_seed0_fold0"]
    assert evaluate.labels == ["core=inner"]
    assert evaluate.slices
    assert not parsed["evaluate_own_sikd_seed0_fold0"].slices
    train = step_of(steps, "train_nnUNetTrainer_seed0")
    assert train.epochs == 2
    assert parsed[train.name].f == [0]
    assert parsed[train.name].device == "cpu"


def test_the_chosen_part_goes_to_the_report(folder: Path) -> None:
    layout = Layout.of(write_benchmark(folder), folder / "output", arms=["sikd"], folds=[1], seeds=[2, 3])
    command = plan_steps(layout, "tiny.yaml", Machine())[-1].command
    chosen = ("--arms", "stock", "sikd", "--folds", "1", "--seeds", "2", "3")
    assert command == ("nnUNetv2_sikd", "report", "tiny.yaml", "-o", str(layout.output), *chosen)


def test_plan_is_the_same_from_everywhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", name)  # relative to here
    here = plan_steps(Layout.of(write_benchmark(folder), Path("output")), "f", Machine())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    there = plan_steps(Layout.of(folder / "tiny.yaml", folder / "output"), "f", Machine())
    assert here == there
    assert all(path.is_absolute() for step in here for path in (*step.inputs, *step.outputs))


def test_gpu_and_memory(folder: Path) -> None:
    layout = layout_of(folder)
    on_gpu = {step.name: step.resources for step in plan_steps(layout, "f", Machine("cuda", 8, 32000))}
    assert on_gpu[TEACHER].gpus == 1
    assert (on_gpu[TEACHER].memory_mb, on_gpu[TEACHER].cpus) == (32000, 8)
    # They read images too, several at once.
    assert {on_gpu[name].memory_mb for name in ("prepare", "copies", "evaluate_own_stock_seed0_fold0")} == {32000}
    assert {on_gpu[name].cpus for name in ("prepare", "copies", "evaluate_own_stock_seed0_fold0")} == {8}
    assert on_gpu["prepare"].gpus == on_gpu["copies"].gpus == on_gpu["report"].gpus == 0
    assert {step.resources.gpus for step in plan_steps(layout, "f", Machine("cpu"))} == {0}


def test_machines_differ_in_nothing_that_a_step_makes(folder: Path) -> None:
    layout = layout_of(folder)
    here, there = (plan_steps(layout, "f", machine) for machine in (Machine("cpu", 2), Machine("cuda", 8, 32000)))
    assert {step.name for one, step in zip(here, there, strict=True) if one.command == step.command} == {"report"}
    for one, step in zip(here, there, strict=True):
        kept = without_machine(step.command)
        assert kept == without_machine(one.command)
        assert set(step.command) - set(kept) <= {"-device", "cuda", "-np", "8", "--overwrite"}


def test_predictions_of_a_training_that_was_repeated_are_replaced(folder: Path) -> None:
    steps = plan_steps(layout_of(folder), "f", Machine("cpu"))
    predictions = [step for step in steps if step.name.startswith("predict_")]
    assert len(predictions) == 6
    assert all("--overwrite" in step.command for step in predictions)


def test_output_is_named_like_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert Layout.of(write_benchmark(folder)).output == folder / "tiny"
    assert Layout.of("cardiac_small").output == folder / "cardiac_small"


def test_missing_data_set(folder: Path) -> None:
    with pytest.raises(SIKDError, match="Dataset903_None: not there; a benchmark needs the raw data set"):
        steps_of(folder, tests=[{"key": "a", "dataset": "Dataset903_None"}])
    with pytest.raises(SIKDError, match="data set 903 is in none of"):
        steps_of(folder, source={"dataset": 903})


def test_steps_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [replace(step, title=step.name) for step in steps_of(folder)]
    show_steps(steps, done=["prepare"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"[1/{len(steps)}] prepare (done)"
    assert lines[1].startswith("  $ nnUNetv2_sikd prepare -d Dataset901_Source -c 2d -p nnUNetPlans -np 2")
    assert f"  step {TEACHER}, after prepare, copies" in lines


def _only(arm: str) -> dict[str, object]:
    return {arm: SPECIFICATION["arms"][arm]}


def test_what_each_step_watches(folder: Path) -> None:
    steps, raw = steps_of(folder), folder / "raw"
    predicted, evaluated = step_of(steps, "predict_other"), step_of(steps, "evaluate_other")
    assert predicted.watched[0].parent.parent == evaluated.watched[0].parent.parent == raw
    assert [predicted.watched[0].name, predicted.watched[1].name] == ["imagesTs", "checkpoint_final.pth"]
    assert [path.name for path in evaluated.watched] == ["labelsTs", "dataset.json", "dataset.json"]
    # What the report alone depends on is in no command.
    other = steps_of(folder, non_inferiority_margin=0.05)
    changed = [a.name for a, b in zip(steps, other, strict=True) if a != b]
    assert changed == ["report"]
