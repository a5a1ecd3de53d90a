"""Variants of the trainers: subclasses whose name says what they change, made from the name.

nnU-Net keeps a trainer's name and nothing else, so the name holds every setting::

    nnUNetTrainer_SIKDStudent [_alpha1] [_copyView | _teacherOnImages | _teacherOnLabelMaps] [_DA5] [seed] [schedule]
    nnUNetTrainer_SIKDTeacher [_onImages | _onLabelMaps] [_DA5] [seed] [schedule]
    nnUNetTrainer [seed] [schedule]
    nnUNetTrainerDA5 [seed] [schedule]
    seed: _seed0
    schedule: _20epochs or _20epochs_150iterations

in this order. A decimal point is written ``p``: ``_alpha0p5``. A student's teacher has the student's
augmentation, seed and schedule; nnU-Net's own trainers have a seed or schedule (bare, they are its own).
``getattr`` on this module makes the class, once; that is how nnU-Net's look-up finds any of them.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunetv2_sikd.trainers.checkpoints import WholeCheckpoints
from nnunetv2_sikd.trainers.cost import CostRecord
from nnunetv2_sikd.trainers.seeded import Seeded
from nnunetv2_sikd.trainers.settings import Schedule, SIKDSettings, TeacherInput
from nnunetv2_sikd.trainers.splits import WholeSplit
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent
from nnunetv2_sikd.trainers.teacher import nnUNetTrainer_SIKDTeacher

_DA5 = "(?P<da5>_DA5)?"
# Numbers of at most nine digits: names come from benchmark files, and longer ones are no seed of numpy's.
_SEED = r"(?:_seed(?P<seed>0|[1-9][0-9]{0,8}))?"
_SCHEDULE = r"(?:_(?P<epochs>[1-9][0-9]{0,8})epochs(?:_(?P<iterations>[1-9][0-9]{0,8})iterations)?)?"
_STOCK = re.compile("nnUNetTrainer(?P<da5>DA5)?" + _SEED + _SCHEDULE)
_TEACHER = re.compile(r"nnUNetTrainer_SIKDTeacher(?:_on(?P<control>Images|LabelMaps))?" + _DA5 + _SEED + _SCHEDULE)
_STUDENT = re.compile(
    r"nnUNetTrainer_SIKDStudent(?:_alpha(?P<alpha>[0-9]{1,9}(?:p[0-9]{1,9})?))?"
    r"(?:(?P<copy>_copyView)|_teacherOn(?P<control>Images|LabelMaps))?" + _DA5 + _SEED + _SCHEDULE
)
_CONTROLS: dict[str | None, TeacherInput] = {
    None: "class_average",
    "Images": "image",
    "LabelMaps": "label_map",
}
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
        *(f"{student}_teacherOn{control}" for control in ("Images", "LabelMaps")),
        *(f"{trainer}_{schedule}" for schedule in schedules for trainer in (teacher, student)),
        # nnU-Net itself has the stock trainer for whole-epoch schedules.
        *(f"nnUNetTrainer_{schedule}" for schedule in _SHORT),
        *(f"{trainer}_DA5" for trainer in (teacher, student)),
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
    if match is None or not (match["seed"] or match["epochs"]):
        return None
    return _subclass(name, (CostRecord, WholeCheckpoints, WholeSplit), match, {})


def _teacher(name: str) -> type[nnUNetTrainer] | None:
    match = _TEACHER.fullmatch(name)
    if match is None:
        return None
    settings = SIKDSettings(teacher_input=_CONTROLS[match["control"]])
    return _subclass(name, (nnUNetTrainer_SIKDTeacher,), match, {"sikd": settings})


def _student(name: str) -> type[nnUNetTrainer] | None:
    match = _STUDENT.fullmatch(name)
    if match is None:
        return None
    settings = SIKDSettings(
        alpha=float((match["alpha"] or "2").replace("p", ".")),
        teacher_view="copy" if match["copy"] else "patch",
        teacher_input=_CONTROLS[match["control"]],
    )
    teacher = (
        "nnUNetTrainer_SIKDTeacher"
        + (f"_on{match['control']}" if match["control"] else "")
        + (match["da5"] or "")
        + (f"_seed{match['seed']}" if match["seed"] else "")
        + (f"_{match['epochs']}epochs" if match["epochs"] else "")
        + (f"_{match['iterations']}iterations" if match["iterations"] else "")
    )
    teacher_class = getattr(sys.modules[__name__], teacher)
    return _subclass(name, (nnUNetTrainer_SIKDStudent,), match, {"sikd": settings, "teacher_class": teacher_class})


def _subclass(
    name: str, bases: tuple[type[nnUNetTrainer], ...], match: re.Match[str], attributes: dict[str, Any]
) -> type[nnUNetTrainer]:
    """A subclass that lives in this module, where pickle and nnU-Net find it by name."""
    attributes = {"__module__": __name__, "__doc__": "A trainer as its name says.", **attributes}
    if match["da5"]:
        bases = (*bases, nnUNetTrainerDA5)
    if match["seed"]:
        bases = (Seeded, *bases)
        attributes["seed"] = int(match["seed"])
    if match["epochs"]:
        bases = (_Scheduled, *bases)
        attributes["schedule"] = Schedule(int(match["epochs"]), int(match["iterations"] or Schedule.iterations))
    return type(name, bases, attributes)
