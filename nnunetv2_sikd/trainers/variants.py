"""Variants of the trainers: subclasses whose name says what they change, made from the name.

nnU-Net keeps a trainer's name and nothing else, so the name holds every setting::

    nnUNetTrainer_SIKDStudent [_alpha1] [_alphaWarmup] [_alphaDecay]
        [_copyView | _teacherOnImages | _teacherOnLabelMaps] [_teacher40epochs] [_deepSkips]
        [_normalised | _cosine | _linear] [_classBalanced] [jitter | jitterBoth] [_DA5 | _geometricCE] [seed] [schedule]
    nnUNetTrainer_SIKDTeacher [_onImages | _onLabelMaps] [_deepSkips] [jitter] [_DA5 | _geometricCE] [seed] [schedule]
    nnUNetTrainer [jitter [_noise] [_onTop]] [_geometricCE] [seed] [schedule]
    nnUNetTrainerDA5 [jitter [_noise] [_onTop]] [seed] [schedule]
    jitter: _classJitter, _classContrast or _classVariation, _classJitter0p25, ...
    jitterBoth: _classJitterBoth, _classContrastBoth or _classVariationBoth, _classJitterBoth0p25, ...
    seed: _seed0
    schedule: _20epochs or _20epochs_150iterations

in this order. A decimal point is written ``p``: ``_alpha0p5``. A student's teacher has the student's
augmentation (the jitter with ``Both`` only), loss, seed and schedule (but for the epochs of ``_teacher40epochs``);
bare, ``nnUNetTrainer`` and ``nnUNetTrainerDA5`` are nnU-Net's own.
``getattr`` on this module makes the class, once; that is how nnU-Net's look-up finds any of them.
"""

from __future__ import annotations

import re
import sys
from typing import Any, cast

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunetv2_sikd.distillation.loss import FeatureLoss
from nnunetv2_sikd.trainers.checkpoints import WholeCheckpoints
from nnunetv2_sikd.trainers.cost import CostRecord
from nnunetv2_sikd.trainers.regimes import ClassJitter, GeometricCE
from nnunetv2_sikd.trainers.seeded import Seeded
from nnunetv2_sikd.trainers.settings import Schedule, SIKDSettings, TeacherInput
from nnunetv2_sikd.trainers.splits import WholeSplit
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent
from nnunetv2_sikd.trainers.teacher import nnUNetTrainer_SIKDTeacher
from nnunetv2_sikd.transforms.class_jitter import JitterLevels

_LEVELS: dict[str, JitterLevels] = {"Jitter": "moved", "Contrast": "redrawn", "Variation": "either"}
_ANY_LEVELS = "|".join(_LEVELS)
_NUMBER = "[0-9]{1,9}(?:p[0-9]{1,9})?"
_JITTER = f"(?P<jitter>_class(?P<levels>{_ANY_LEVELS})(?P<share>{_NUMBER})?)?"
_REGIME = "(?P<regime>_DA5|_geometricCE)?"
# Numbers of at most nine digits: names come from benchmark files, and longer ones are no seed of numpy's.
_SEED = r"(?:_seed(?P<seed>0|[1-9][0-9]{0,8}))?"
_COUNT = "[1-9][0-9]{0,8}"
_SCHEDULE = f"(?:_(?P<epochs>{_COUNT})epochs(?:_(?P<iterations>{_COUNT})iterations)?)?"
_STOCK = re.compile(
    "nnUNetTrainer(?P<da5>DA5)?"
    + _JITTER
    + "(?(jitter)(?P<noise>_noise)?(?P<on_top>_onTop)?)(?(da5)|(?P<regime>_geometricCE)?)"
    + _SEED
    + _SCHEDULE
)
_TEACHER = re.compile(
    "nnUNetTrainer_SIKDTeacher(?:_on(?P<control>Images|LabelMaps))?(?P<deep>_deepSkips)?"
    + _JITTER
    + _REGIME
    + _SEED
    + _SCHEDULE
)
_STUDENT = re.compile(
    f"nnUNetTrainer_SIKDStudent(?:_alpha(?P<alpha>{_NUMBER}))?(?P<warmup>_alphaWarmup)?(?P<decay>_alphaDecay)?"
    "(?:(?P<copy>_copyView)|_teacherOn(?P<control>Images|LabelMaps))?"
    f"(?:_teacher(?P<teacher_epochs>{_COUNT})epochs)?(?P<deep>_deepSkips)?"
    "(?:_(?P<loss>normalised|cosine|linear))?(?P<balanced>_classBalanced)?"
    f"(?P<jitter>_class(?P<levels>{_ANY_LEVELS})(?P<both>Both)?(?P<share>{_NUMBER})?)?" + _REGIME + _SEED + _SCHEDULE
)
_CONTROLS: dict[str | None, TeacherInput] = {
    None: "class_average",
    "Images": "image",
    "LabelMaps": "label_map",
}
_REGIMES: dict[str, tuple[type[nnUNetTrainer], ...]] = {
    "": (),
    "DA5": (nnUNetTrainerDA5,),
    "geometricCE": (GeometricCE,),
}
_SHARES: dict[JitterLevels, str] = {"moved": "0p25", "redrawn": "0p1", "either": "0p25"}
_ALPHAS = ("0p5", "1", "3", "4", "5")
_EPOCHS = (5, 20, 50, 100, 250)
# Short ones that two CPU cores finish in minutes.
_SHORT = ("10epochs_60iterations", "15epochs_100iterations", "20epochs_150iterations")


def shipped_trainers() -> list[str]:
    """Names of the trainers this package documents and checks; the grammar makes many more."""
    student, teacher = "nnUNetTrainer_SIKDStudent", "nnUNetTrainer_SIKDTeacher"
    schedules = [*(f"{epochs}epochs" for epochs in _EPOCHS), *_SHORT]
    return [
        teacher,
        student,
        *(f"{student}_alpha{alpha}" for alpha in _ALPHAS),
        f"{student}_copyView",
        *(f"{teacher}_on{control}" for control in ("Images", "LabelMaps")),
        f"{teacher}_deepSkips",
        f"{student}_teacher40epochs_20epochs",
        *(f"{student}_teacherOn{control}" for control in ("Images", "LabelMaps")),
        *(f"{trainer}_{schedule}" for schedule in schedules for trainer in (teacher, student)),
        # nnU-Net itself has the stock trainer for whole-epoch schedules.
        *(f"nnUNetTrainer_{schedule}" for schedule in _SHORT),
        *(f"{trainer}_DA5" for trainer in (teacher, student)),
        *(
            f"{trainer}_class{levels}"
            for levels in _LEVELS
            for trainer in (teacher, student, "nnUNetTrainer", "nnUNetTrainerDA5")
        ),
        *(
            f"{student}_{setting}"
            for setting in (
                "alphaWarmup",
                "alphaDecay",
                "normalised",
                "cosine",
                "linear",
                "deepSkips",
                "classBalanced",
                "classJitterBoth",
                "alphaDecay_classJitter",
                "classBalanced_classJitter",
            )
        ),
        "nnUNetTrainer_classVariation_onTop",
        "nnUNetTrainer_classVariation_noise_onTop",
        *(f"{trainer}_geometricCE" for trainer in (teacher, student, "nnUNetTrainer")),
        *(
            f"{trainer}_seed0{schedule}"
            for schedule in ("", f"_{_SHORT[1]}")
            for trainer in (teacher, student, "nnUNetTrainer", f"{teacher}_DA5", f"{student}_DA5", "nnUNetTrainerDA5")
        ),
    ]


class _Scheduled(nnUNetTrainer):
    """A trainer of another length. First among the bases, so that its values are the last word."""

    schedule = Schedule()

    # nnU-Net reads this signature, and refuses *args and **kwargs.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.schedule.epochs
        self.num_iterations_per_epoch = self.schedule.iterations
        self.num_val_iterations_per_epoch = self.schedule.validation_iterations
        self.save_every = self.schedule.save_every


def __getattr__(name: str) -> Any:
    trainer = _stock(name) or _teacher(name) or _student(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = trainer
    return trainer


def _stock(name: str) -> type[nnUNetTrainer] | None:
    match = _STOCK.fullmatch(name)
    if match is None or name in ("nnUNetTrainer", "nnUNetTrainerDA5"):
        return None
    share = _share(match)
    # On top of no unaltered image at all there is no end.
    if share is None or (match["on_top"] and share == 1):
        return None
    bases = (*((ClassJitter,) if share else ()), CostRecord, WholeCheckpoints, WholeSplit)
    jitter = {"class_jitter": share, "jitter_levels": _levels(match), "jitter_noise": match["noise"] is not None}
    return _subclass(name, bases, match, jitter if share else {}, on_top=share if match["on_top"] else 0.0)


def _teacher(name: str) -> type[nnUNetTrainer] | None:
    match = _TEACHER.fullmatch(name)
    share = match and _share(match)
    # A label map is the same, whatever the image's levels.
    if match is None or share is None or (share and match["control"] == "LabelMaps"):
        return None
    settings = SIKDSettings(
        teacher_input=_CONTROLS[match["control"]],
        class_jitter=share,
        jitter_levels=_levels(match),
        jitter_target="jittered" if share else "clean",
        deep_skips=match["deep"] is not None,
    )
    return _subclass(name, (nnUNetTrainer_SIKDTeacher,), match, {"sikd": settings})


def _student(name: str) -> type[nnUNetTrainer] | None:
    match = _STUDENT.fullmatch(name)
    share = match and _share(match)
    # Neither a stored copy nor a label map has the levels that the student sees.
    if match is None or share is None or (match["both"] and (match["copy"] or match["control"] == "LabelMaps")):
        return None
    settings = SIKDSettings(
        alpha=_number(match["alpha"] or "2"),
        teacher_view="copy" if match["copy"] else "patch",
        teacher_input=_CONTROLS[match["control"]],
        class_jitter=share,
        jitter_levels=_levels(match),
        jitter_target="jittered" if match["both"] else "clean",
        class_balanced=match["balanced"] is not None,
        feature_loss=cast(FeatureLoss, match["loss"] or "mse"),
        alpha_warmup=match["warmup"] is not None,
        alpha_decay=match["decay"] is not None,
        deep_skips=match["deep"] is not None,
    )
    epochs = match["teacher_epochs"] or match["epochs"]
    if match["teacher_epochs"] == (match["epochs"] or str(Schedule.epochs)):
        return None  # another name for the student, and without a schedule for its teacher, too
    teacher = (
        "nnUNetTrainer_SIKDTeacher"
        + (f"_on{match['control']}" if match["control"] else "")
        + (match["deep"] or "")
        + (f"_class{match['levels']}{match['share'] or ''}" if match["both"] else "")
        + (match["regime"] or "")
        + (f"_seed{match['seed']}" if match["seed"] else "")
        + (f"_{epochs}epochs" if epochs else "")
        + (f"_{match['iterations']}iterations" if match["iterations"] else "")
    )
    teacher_class = getattr(sys.modules[__name__], teacher)
    return _subclass(name, (nnUNetTrainer_SIKDStudent,), match, {"sikd": settings, "teacher_class": teacher_class})


def _share(match: re.Match[str]) -> float | None:
    """Share of the images with jitter; None where the name asks for what is no share."""
    if not match["jitter"]:
        return 0.0
    share = _number(match["share"] or _SHARES[_levels(match)])
    return share if 0 < share <= 1 else None


def _levels(match: re.Match[str]) -> JitterLevels:
    return _LEVELS[match["levels"]] if match["jitter"] else "moved"


def _number(text: str) -> float:
    return float(text.replace("p", "."))


def _subclass(
    name: str,
    bases: tuple[type[nnUNetTrainer], ...],
    match: re.Match[str],
    attributes: dict[str, Any],
    on_top: float = 0.0,
) -> type[nnUNetTrainer]:
    """A subclass that lives in this module, where pickle and nnU-Net find it by name."""
    attributes = {"__module__": __name__, "__doc__": "A trainer as its name says.", **attributes}
    regime = "DA5" if match.groupdict().get("da5") else (match["regime"] or "").strip("_")
    bases = (*bases, *_REGIMES[regime])
    if match["seed"]:
        bases = (Seeded, *bases)
        attributes["seed"] = int(match["seed"])
    if match["epochs"] or on_top:
        bases = (_Scheduled, *bases)
        schedule = Schedule(int(match["epochs"] or Schedule.epochs), int(match["iterations"] or Schedule.iterations))
        attributes["schedule"] = schedule.on_top(on_top)
    return type(name, bases, attributes)
