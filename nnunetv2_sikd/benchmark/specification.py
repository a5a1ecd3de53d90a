"""A benchmark file: what is trained, on what, and what it is tested on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import check_name
from nnunetv2_sikd.patients import patient_of, patient_pattern
from nnunetv2_sikd.untrusted import check_folder, check_part

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


Name = Annotated[str, AfterValidator(check_part)]
Folder = Annotated[str, AfterValidator(check_folder)]
# Far more than makes sense, and few enough digits for names of trainers.
Count = Annotated[int, Field(gt=0, le=10**6)]


class Part(BaseModel):
    """A part of a benchmark file: no other keys, no other types, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DerivedConfiguration(Part):
    """A configuration made from a planned one, where the plans do not have it yet.

    Attributes:
        base: Name of the planned configuration (``from`` in the file).
        spacing: Voxel spacing in mm, in the plans' order of axes; None for the base's.
        patch_size: In voxels; None for the base's.
        batch_size: None for the base's.
        features_per_stage: Number of features of each stage; None for the base's. Fewer make a shallower network.
    """

    base: Name = Field(alias="from")
    spacing: list[Annotated[float, Field(gt=0)]] | None = None
    patch_size: list[Annotated[int, Field(gt=0)]] | None = None
    batch_size: int | None = Field(default=None, gt=0)
    features_per_stage: list[Annotated[int, Field(gt=0)]] | None = None


class Source(Part):
    """The data set that everything is trained on.

    Attributes:
        dataset: Name or id.
        configuration: nnU-Net's configuration.
        plans: Plans identifier.
        derive: How to make the configuration if the plans lack it.
    """

    dataset: str | int
    configuration: Name = "2d"
    plans: Name = "nnUNetPlans"
    derive: DerivedConfiguration | None = None

    @field_validator("dataset")
    @classmethod
    def _check_dataset(cls, dataset: str | int) -> str | int:
        return _checked_dataset(dataset)

    @model_validator(mode="after")
    def _check_derived(self) -> Source:
        if self.derive is not None and self.derive.base == self.configuration:
            raise ValueError(f"configuration {self.configuration!r} is derived from itself: give it a name of its own")
        return self


class TestSet(Part):
    """Cases that no training has seen.

    Attributes:
        key: Short name, for folders and tables.
        dataset: Name or id; the source's own for its test cases.
        title: For people; the key if empty.
        images: Folder in the raw data set.
        references: Folder of the reference labels in the raw data set.
        labels: Names of structures in the source, each with its name in this data set, where they differ.
        patient: Regular expression that finds the patient in a case's name (its first group, or all of it);
            None if each case is another patient.
        slices: Whether the files are stacks of slices that form no volume, so that surfaces are compared slice
            by slice.
    """

    key: str
    dataset: str | int
    title: str = ""
    images: Folder = "imagesTs"
    references: Folder = "labelsTs"
    labels: dict[str, str] = {}
    patient: str | None = None
    slices: bool = False

    __test__: ClassVar[bool] = False  # pytest takes classes of this name for tests

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        return _checked_key(key)

    @field_validator("dataset")
    @classmethod
    def _check_dataset(cls, dataset: str | int) -> str | int:
        return _checked_dataset(dataset)

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if name.startswith("-") or "=" in name:
                raise ValueError(f"{name!r}: a name with a hyphen in front or with '=' cannot be given to a command")
        return labels

    @field_validator("patient")
    @classmethod
    def _check_patient(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else patient_pattern(pattern)

    def patient_of(self, case: str) -> str:
        """The patient of a case.

        Raises:
            SIKDError: The pattern does not find one.
        """
        found = patient_of(case, self.patient)
        if found is None:
            raise SIKDError(f"patient {self.patient!r} of {self.key} finds none in the case {case}: mend the pattern")
        return found


class Schedule(Part):
    """Length of every training.

    Attributes:
        epochs: Number of epochs.
        iterations: Training steps per epoch; None for nnU-Net's 250.
    """

    epochs: Count
    iterations: Count | None = None


class Arm(Part):
    """One way to train.

    Attributes:
        trainer: Trainer's name without seed and schedule.
        title: For people.
        epochs: Where they differ from the schedule's (equal compute).
        iterations: Training steps per epoch, where they differ from the schedule's.
    """

    trainer: str
    title: str = ""
    epochs: Count | None = None
    iterations: Count | None = None

    @field_validator("trainer")
    @classmethod
    def _check_trainer(cls, name: str) -> str:
        if not (name.isascii() and name.isidentifier()):
            raise ValueError(f"{name!r}: a trainer is a class of Python, named with letters, digits and underscores")
        if re.search(r"_seed\d+|_\d+epochs", name):
            raise ValueError(f"{name!r}: leave seed and schedule out, 'seeds' and 'schedule' add them")
        return name


def _arm(value: Any) -> Any:
    return {"trainer": value} if isinstance(value, str) else value


class Training(Part):
    """One training of one arm.

    Attributes:
        arm: Key of the arm.
        trainer: Full name of the trainer.
        seed: None if not seeded.
        fold: nnU-Net's fold.
    """

    arm: str
    trainer: str
    seed: int | None
    fold: int

    @property
    def key(self) -> str:
        """Name for folders and steps, such as ``stock_seed0_fold0``."""
        return f"{self.arm}{'' if self.seed is None else f'_seed{self.seed}'}_fold{self.fold}"


class Specification(Part):
    """A whole benchmark.

    Attributes:
        title: For people.
        source: What is trained on.
        tests: What is tested on: the source's own test cases and data sets never seen.
        arms: Ways to train, by key.
        baseline: Key of the arm that the others are compared with.
        schedule: Length of every training; None for the trainers' own.
        folds: nnU-Net's folds.
        seeds: Seeds of the trainings; empty for one training each without a seed.
        surface_tolerance: Tolerance of the surface Dice in mm (pixels where there is no spacing).
        non_inferiority_margin: Loss of Dice on the source's own test cases that is still called no loss.
    """

    title: str
    source: Source
    tests: list[TestSet] = Field(min_length=1)
    arms: dict[str, Annotated[Arm, BeforeValidator(_arm)]] = Field(min_length=1)
    baseline: str = "stock"
    schedule: Schedule | None = None
    folds: list[int] = Field(default=[0], min_length=1)
    seeds: list[int] = []
    surface_tolerance: float = Field(default=2.0, gt=0)
    non_inferiority_margin: float = Field(default=0.02, gt=0, lt=1)

    @field_validator("arms")
    @classmethod
    def _check_arms(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        for key in arms:
            if _checked_key(key).lower() in ("image", "reference"):
                raise ValueError(f"key {key!r}: the report calls something else so; choose another one")
        return arms

    @field_validator("folds", "seeds")
    @classmethod
    def _check_numbers(cls, numbers: list[int]) -> list[int]:
        if min(numbers, default=0) < 0 or len(set(numbers)) < len(numbers):
            raise ValueError(f"{numbers} must be different whole numbers from 0")
        if max(numbers, default=0) >= 10**9:
            raise ValueError("must be numbers of at most nine digits")
        return numbers

    @model_validator(mode="after")
    def _check_whole(self) -> Specification:
        if self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is none of the arms ({', '.join(self.arms)})")
        keys = [test.key for test in self.tests]
        # They name folders, and not every system tells 'A' from 'a'.
        if len({key.lower() for key in keys}) < len(keys):
            raise ValueError(f"tests: two have the same key ({', '.join(keys)})")
        if len({key.lower() for key in self.arms}) < len(self.arms):
            raise ValueError(f"arms: two have the same key but for capitals ({', '.join(self.arms)})")
        named: dict[str, str] = {}
        for key, arm in self.arms.items():
            if arm.iterations and not (arm.epochs or self.schedule):
                raise ValueError(f"arms.{key}: iterations need epochs, here or in 'schedule'")
            other = named.setdefault(self.trainer_name(arm, None), key)
            if other != key:
                raise ValueError(f"arms: {other} and {key} are the same trainer and schedule; leave one out")
        return self

    def trainer_name(self, arm: Arm, seed: int | None) -> str:
        """Full name of an arm's trainer, as the trainers' grammar has it."""
        name = arm.trainer if seed is None else f"{arm.trainer}_seed{seed}"
        epochs = arm.epochs or (self.schedule.epochs if self.schedule else None)
        if epochs is None:
            return name
        iterations = arm.iterations or (self.schedule.iterations if self.schedule else None)
        return f"{name}_{epochs}epochs" + (f"_{iterations}iterations" if iterations else "")

    def trainings(self) -> Iterator[Training]:
        """All trainings: for each fold and seed, each arm."""
        seeds: list[int | None] = [*self.seeds] or [None]
        for fold in self.folds:
            for seed in seeds:
                for key, arm in self.arms.items():
                    yield Training(arm=key, trainer=self.trainer_name(arm, seed), seed=seed, fold=fold)

    def is_source(self, test: TestSet) -> bool:
        """Whether a test set is the training data set's own."""
        return _dataset_key(test.dataset) == _dataset_key(self.source.dataset)

    def arm_title(self, key: str) -> str:
        """An arm's name for people."""
        return self.arms[key].title or key


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"key {key!r}: use letters, digits and hyphens only, it names folders")
    return check_name(key)


def _checked_dataset(dataset: str | int) -> str | int:
    if isinstance(dataset, str):
        return check_part(dataset)
    if not 0 < dataset < 1000:
        raise ValueError(f"{str(dataset)[:20]}: data sets of nnU-Net are numbered from 1 to 999")
    return dataset


def _dataset_key(dataset: str | int) -> str:
    text = str(dataset)
    match = re.match(r"Dataset([0-9]{3})_", text)
    return str(int(match.group(1))) if match else text.lstrip("0") if re.fullmatch("[0-9]+", text) else text
