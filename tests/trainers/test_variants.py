from __future__ import annotations

import inspect
import pickle

import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.cost import CostRecord
from nnunetv2_sikd.trainers.regimes import ClassJitter
from nnunetv2_sikd.trainers.seeded import Seeded
from nnunetv2_sikd.trainers.settings import Schedule, SIKDSettings
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent
from nnunetv2_sikd.trainers.teacher import nnUNetTrainer_SIKDTeacher
from nnunetv2_sikd.transforms.class_jitter import WithOwnRandomness
from nnunetv2_sikd.transforms.noise import RelativeGaussianNoiseTransform
from tests.helpers import make_dataset_json, make_plans

STUDENT = "nnUNetTrainer_SIKDStudent"
TEACHER = "nnUNetTrainer_SIKDTeacher"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (STUDENT, SIKDSettings(alpha=2.0, teacher_input="class_average", teacher_view="patch")),
        (f"{STUDENT}_alpha1", SIKDSettings(alpha=1.0)),
        (f"{STUDENT}_alpha0p5", SIKDSettings(alpha=0.5)),
        (f"{STUDENT}_alpha0", SIKDSettings(alpha=0.0)),
        (f"{STUDENT}_alpha12p25", SIKDSettings(alpha=12.25)),
        (f"{STUDENT}_copyView", SIKDSettings(teacher_view="copy")),
        (f"{STUDENT}_teacherOnImages", SIKDSettings(teacher_input="image")),
        (f"{STUDENT}_teacherOnLabelMaps", SIKDSettings(teacher_input="label_map")),
        (f"{STUDENT}_alpha3_copyView_20epochs", SIKDSettings(alpha=3.0, teacher_view="copy")),
        (f"{TEACHER}_onImages", SIKDSettings(teacher_input="image")),
        (f"{TEACHER}_onLabelMaps_5epochs", SIKDSettings(teacher_input="label_map")),
        (TEACHER, SIKDSettings(teacher_input="class_average")),
        (f"{STUDENT}_alpha1_copyView_DA5_seed0_20epochs", SIKDSettings(alpha=1.0, teacher_view="copy")),
        (f"{TEACHER}_onImages_DA5_seed12", SIKDSettings(teacher_input="image")),
        (f"{STUDENT}_classJitter", SIKDSettings(class_jitter=0.25)),
        (f"{STUDENT}_alpha1_alphaDecay_cosine", SIKDSettings(alpha=1.0, alpha_decay=True, feature_loss="cosine")),
        (f"{STUDENT}_alphaWarmup", SIKDSettings(alpha_warmup=True)),
        (f"{STUDENT}_alphaWarmup_alphaDecay", SIKDSettings(alpha_warmup=True, alpha_decay=True)),
        (f"{STUDENT}_classContrast", SIKDSettings(class_jitter=0.1, jitter_levels="redrawn")),
        (
            f"{STUDENT}_classContrastBoth0p25",
            SIKDSettings(class_jitter=0.25, jitter_levels="redrawn", jitter_target="jittered"),
        ),
        (f"{STUDENT}_classVariation", SIKDSettings(class_jitter=0.25, jitter_levels="either")),
        (
            f"{STUDENT}_classVariationBoth0p5",
            SIKDSettings(class_jitter=0.5, jitter_levels="either", jitter_target="jittered"),
        ),
        (
            f"{TEACHER}_classContrast0p25",
            SIKDSettings(class_jitter=0.25, jitter_levels="redrawn", jitter_target="jittered"),
        ),
        (f"{STUDENT}_linear_classJitter", SIKDSettings(feature_loss="linear", class_jitter=0.25)),
        (
            f"{STUDENT}_copyView_deepSkips_linear",
            SIKDSettings(teacher_view="copy", deep_skips=True, feature_loss="linear"),
        ),
        (f"{TEACHER}_onImages_deepSkips_5epochs", SIKDSettings(teacher_input="image", deep_skips=True)),
        (
            f"{STUDENT}_copyView_normalised_classBalanced",
            SIKDSettings(teacher_view="copy", feature_loss="normalised", class_balanced=True),
        ),
        (
            f"{STUDENT}_alpha1_classBalanced_classJitter0p75_DA5_seed0_20epochs",
            SIKDSettings(alpha=1.0, class_balanced=True, class_jitter=0.75),
        ),
        (f"{STUDENT}_classJitterBoth1", SIKDSettings(class_jitter=1.0, jitter_target="jittered")),
        (f"{STUDENT}_copyView_geometricCE", SIKDSettings(teacher_view="copy")),
        (f"{TEACHER}_classJitter0p75_seed1", SIKDSettings(class_jitter=0.75, jitter_target="jittered")),
    ],
)
def test_names_mean_settings(name: str, settings: SIKDSettings) -> None:
    assert getattr(variants, name).sikd == settings


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (STUDENT, TEACHER),
        (f"{STUDENT}_alpha3", TEACHER),
        (f"{STUDENT}_copyView_20epochs", f"{TEACHER}_20epochs"),
        (f"{STUDENT}_alpha1_20epochs_150iterations", f"{TEACHER}_20epochs_150iterations"),
        (f"{STUDENT}_teacherOnImages_5epochs", f"{TEACHER}_onImages_5epochs"),
        (f"{STUDENT}_teacherOnLabelMaps", f"{TEACHER}_onLabelMaps"),
        (f"{STUDENT}_seed3", f"{TEACHER}_seed3"),
        (f"{STUDENT}_alpha1_seed0_15epochs_100iterations", f"{TEACHER}_seed0_15epochs_100iterations"),
        (f"{STUDENT}_DA5", f"{TEACHER}_DA5"),
        (f"{STUDENT}_copyView_DA5_seed1_20epochs", f"{TEACHER}_DA5_seed1_20epochs"),
        (f"{STUDENT}_teacherOnImages_DA5_seed1", f"{TEACHER}_onImages_DA5_seed1"),
        (f"{STUDENT}_classBalanced_classJitter0p25_seed1", f"{TEACHER}_seed1"),
        (f"{STUDENT}_deepSkips_linear_classJitterBoth_seed1", f"{TEACHER}_deepSkips_classJitter_seed1"),
        (f"{STUDENT}_teacherOnImages_deepSkips", f"{TEACHER}_onImages_deepSkips"),
        (f"{STUDENT}_classContrastBoth_seed1", f"{TEACHER}_classContrast_seed1"),
        (f"{STUDENT}_classContrast_seed1", f"{TEACHER}_seed1"),
        (f"{STUDENT}_classVariationBoth_seed1", f"{TEACHER}_classVariation_seed1"),
        (f"{STUDENT}_classJitterBoth0p25_DA5_seed1", f"{TEACHER}_classJitter0p25_DA5_seed1"),
        (f"{STUDENT}_teacher40epochs_seed1_20epochs_150iterations", f"{TEACHER}_seed1_40epochs_150iterations"),
        (f"{STUDENT}_teacherOnImages_teacher5epochs_deepSkips", f"{TEACHER}_onImages_deepSkips_5epochs"),
        (f"{STUDENT}_geometricCE_5epochs", f"{TEACHER}_geometricCE_5epochs"),
    ],
)
def test_student_has_the_teacher_of_its_input_and_schedule(student: str, teacher: str) -> None:
    trainer = getattr(variants, student)
    assert trainer.teacher_class is getattr(variants, teacher)
    assert trainer.teacher_class.sikd.teacher_input == trainer.sikd.teacher_input


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        (f"{STUDENT}_20epochs", Schedule(20, 250)),
        (f"{TEACHER}_20epochs_150iterations", Schedule(20, 150)),
        ("nnUNetTrainer_15epochs_100iterations", Schedule(15, 100)),
    ],
)
def test_names_mean_schedules(name: str, schedule: Schedule) -> None:
    assert getattr(variants, name).schedule == schedule


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("nnUNetTrainer_seed0", 0),
        ("nnUNetTrainerDA5_seed7_20epochs", 7),
        (f"{TEACHER}_seed10", 10),
        (f"{STUDENT}_DA5_seed3_15epochs_100iterations", 3),
    ],
)
def test_names_mean_seeds(name: str, seed: int) -> None:
    assert issubclass(getattr(variants, name), Seeded)
    assert getattr(variants, name).seed == seed


@pytest.mark.usefixtures("nnunet_folders")
@pytest.mark.parametrize("base", [f"{STUDENT}_DA5_seed0", "nnUNetTrainerDA5", STUDENT, TEACHER, "nnUNetTrainer"])
def test_a_schedule_is_what_the_trainer_follows(base: str) -> None:
    plans = {**make_plans("Dataset901_Tiny"), "continue_training": False}
    dataset_json = make_dataset_json(regions=False, ignore=False, channels=1, num_cases=5)
    trainer = getattr(variants, f"{base}_15epochs_100iterations")(plans, "2d", 0, dataset_json, torch.device("cpu"))
    assert trainer.num_epochs == 15
    assert trainer.num_iterations_per_epoch == 100
    assert trainer.num_val_iterations_per_epoch == 20
    assert trainer.save_every == 1


@pytest.mark.usefixtures("nnunet_folders")
@pytest.mark.parametrize(
    ("name", "epochs", "iterations", "share"),
    [
        ("nnUNetTrainer_classVariation_onTop", 1000, 333, 0.25),
        ("nnUNetTrainer_classVariation_onTop_seed0_40epochs_150iterations", 40, 200, 0.25),
        ("nnUNetTrainer_classJitter0p5_onTop_geometricCE_20epochs", 20, 500, 0.5),
        ("nnUNetTrainerDA5_classContrast_onTop_seed1", 1000, 278, 0.1),
        ("nnUNetTrainer_classVariation_noise_onTop_seed0_40epochs_150iterations", 40, 200, 0.25),
    ],
)
def test_on_top_there_are_as_many_unaltered_images_as_without(
    name: str, epochs: int, iterations: int, share: float
) -> None:
    plans = {**make_plans("Dataset901_Tiny"), "continue_training": False}
    dataset_json = make_dataset_json(regions=False, ignore=False, channels=1, num_cases=5)
    trainer = getattr(variants, name)(plans, "2d", 0, dataset_json, torch.device("cpu"))
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.class_jitter) == (epochs, iterations, share)


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("nnUNetTrainer_classVariation_noise_onTop", True),
        ("nnUNetTrainerDA5_classJitter0p5_noise_seed0", True),
        ("nnUNetTrainer_classVariation_onTop", False),
    ],
)
def test_noise_comes_with_the_jitter(name: str, noise: bool) -> None:
    geometry = ((24, 28), (-3, 3), None, (0, 1), False)
    pipeline = getattr(variants, name).get_training_transforms(*geometry, foreground_labels=[1, 2])
    (varied,) = (step.transform.transform for step in pipeline.transforms if isinstance(step, WithOwnRandomness))
    steps = varied.transforms if isinstance(varied, ComposeTransforms) else [varied]
    inner = [step.transform for step in steps if isinstance(step, RandomTransform)]
    assert any(isinstance(step, RelativeGaussianNoiseTransform) for step in inner) is noise


@pytest.mark.parametrize(
    ("schedule", "validation_iterations", "save_every"),
    [(Schedule(), 50, 50), (Schedule(20, 150), 30, 2), (Schedule(5, 1), 1, 1), (Schedule(600, 8), 2, 50)],
)
def test_schedule_follows_nnunet_s_proportions(schedule: Schedule, validation_iterations: int, save_every: int) -> None:
    assert (schedule.validation_iterations, schedule.save_every) == (validation_iterations, save_every)


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerSIKDStudent",
        f"{STUDENT}_",
        f"{STUDENT}_alpha",
        f"{STUDENT}_alpha-1",
        f"{STUDENT}_alpha1.5",
        f"{STUDENT}_alphap5",
        f"{STUDENT}_0epochs",
        f"{STUDENT}_20epochs_0iterations",
        f"{STUDENT}_100iterations",
        f"{STUDENT}_20epochs_copyView",  # not in this order
        f"{STUDENT}_copyView_alpha1",
        f"{STUDENT}_copyView_teacherOnImages",  # images have no copy
        f"{STUDENT}_onImages",
        f"{TEACHER}_alpha1",
        f"{TEACHER}_teacherOnImages",
        f"{TEACHER}_20epochs\n",
        "nnUNetTrainer_20epochs_",
        "nnUNetTrainer_DA5_seed0",  # nnU-Net writes it without the underscore
        f"{STUDENT}DA5",
        f"{STUDENT}_seed",
        f"{STUDENT}_seed01",  # one name per seed
        f"{STUDENT}_seed-1",
        f"{STUDENT}_20epochs_seed0",
        f"{STUDENT}_seed0_DA5",
        f"{STUDENT}_DA5_copyView",
        f"{STUDENT}_seed0_100iterations",
        "nnUNetTrainer_15epochs_seed0_100iterations",
        "nnUNetTrainer_classJitter0",  # no share of the images
        "nnUNetTrainer_classJitter1p5",
        "nnUNetTrainer_classJitterBoth",  # of what?
        "nnUNetTrainer_onTop",
        "nnUNetTrainer_noise",
        "nnUNetTrainer_classJitter_onTop_noise",
        f"{STUDENT}_classJitter_noise",
        "nnUNetTrainer_classJitter1_onTop",  # no image is left as it was
        "nnUNetTrainer_onTop_classJitter",
        f"{STUDENT}_classJitter_onTop",
        "nnUNetTrainer_classBalanced",
        "nnUNetTrainerDA5_geometricCE",
        "nnUNetTrainerDA5_classJitter_geometricCE",
        f"{TEACHER}_classJitterBoth",
        f"{TEACHER}_classBalanced",
        f"{STUDENT}_classJitter_classBalanced",
        f"{STUDENT}_cosine_alphaDecay",
        f"{STUDENT}_alphaDecay_alphaWarmup",
        f"{STUDENT}_teacher0epochs",
        f"{STUDENT}_teacher1000epochs",  # as long as without
        f"{STUDENT}_teacher20epochs_20epochs",
        f"{STUDENT}_copyView_classJitterBoth",  # a stored copy has no jitter
        f"{STUDENT}_teacherOnLabelMaps_classJitterBoth",
        f"{TEACHER}_onLabelMaps_classJitter",
        f"{STUDENT}_normalised_cosine",
        f"{STUDENT}_cosine_linear",
        f"{STUDENT}_DA5_geometricCE",
        f"{STUDENT}_classJitter0p0",
        "something",
        "__path__",
    ],
)
def test_other_names_do_not_exist(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(variants, name)


@pytest.mark.parametrize("trainer", [nnUNetTrainer, nnUNetTrainerDA5])
def test_bare_names_are_nnunet_s_own(trainer: type) -> None:
    assert getattr(variants, trainer.__name__) is trainer


def test_jitter_varies_a_quarter_of_the_images() -> None:
    # Named alone, and as the class that users derive from.
    assert variants.nnUNetTrainer_classJitter.class_jitter == ClassJitter.class_jitter == 0.25
    assert variants.nnUNetTrainer_classJitter0p5.class_jitter == 0.5


def test_variation_varies_as_many_images_as_jitter() -> None:
    assert variants.nnUNetTrainer_classVariation.class_jitter == 0.25
    assert variants.nnUNetTrainer_classVariation.jitter_levels == "either"


@pytest.mark.parametrize("name", variants.shipped_trainers())
class TestShipped:
    def test_is_made_once_under_its_name(self, name: str) -> None:
        trainer = getattr(variants, name)
        assert trainer.__name__ == name
        assert getattr(variants, name) is trainer
        assert pickle.loads(pickle.dumps(trainer)) is trainer

    def test_has_the_signature_that_nnunet_reads(self, name: str) -> None:
        ours, stock = (inspect.signature(trainer) for trainer in (getattr(variants, name), nnUNetTrainer))
        assert list(ours.parameters) == list(stock.parameters)
        assert [p.default for p in ours.parameters.values()] == [p.default for p in stock.parameters.values()]

    def test_descends_from_what_its_name_says(self, name: str) -> None:
        mro = getattr(variants, name).__mro__
        expected = {
            STUDENT: nnUNetTrainer_SIKDStudent,
            TEACHER: nnUNetTrainer_SIKDTeacher,
            "nnUNetTrainer": nnUNetTrainer,
        }["_".join(name.split("_")[:2]) if "SIKD" in name else "nnUNetTrainer"]
        assert expected in mro
        if "epochs" in name:
            # The schedule's values are set last, so nothing may come before it.
            assert mro[1] is variants._Scheduled
            assert mro.index(variants._Scheduled) < mro.index(expected)
        assert (Seeded in mro) == ("_seed" in name)
        assert (nnUNetTrainerDA5 in mro) == ("DA5" in name)
        if "DA5" in name and "SIKD" in name:
            # so that super() in teacher and student finds its augmentation
            assert mro.index(expected) < mro.index(nnUNetTrainerDA5)
        assert issubclass(getattr(variants, name), CostRecord)


def test_shipped_trainers_are_named_once() -> None:
    names = variants.shipped_trainers()
    assert len(names) == len(set(names)) > 20
