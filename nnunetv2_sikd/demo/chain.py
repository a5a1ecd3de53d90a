"""The commands of the demonstration, in their order, and how to tell that each is done."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_sikd.demo.dataset import NUM_TEST, NUM_TRAINING, SOURCE, TARGET
from nnunetv2_sikd.steps import Step, cases_predicted, epochs_done

EPOCHS, ITERATIONS = 10, 60
CONFIGURATION = "2d_small"
_SCHEDULE = f"{EPOCHS}epochs_{ITERATIONS}iterations"
TRAINERS = {
    "stock": f"nnUNetTrainer_{_SCHEDULE}",
    "teacher": f"nnUNetTrainer_SIKDTeacher_{_SCHEDULE}",
    "student": f"nnUNetTrainer_SIKDStudent_{_SCHEDULE}",
}
MODELS = ("stock", "student")
DOMAINS = {"source": SOURCE, "target": TARGET}

_PLANS = "nnUNetPlans"
_FEATURES = [12, 24, 48]
_BATCH_SIZE = 8
_PATCH_SIZE = [64, 64]
_DATASET_ID = SOURCE[len("Dataset") :].split("_")[0]


def model_folder(folder: Path, trainer: str) -> Path:
    """Where nnU-Net puts a trained model."""
    return folder / "nnUNet_results" / SOURCE / f"{trainer}__{_PLANS}__{CONFIGURATION}"


def prediction_folder(folder: Path, model: str, domain: str) -> Path:
    """Where the predictions of a model (one of ``MODELS``) for a data set (key of ``DOMAINS``) go."""
    return folder / "predictions" / f"{model}_on_{domain}"


def planning_step(folder: Path) -> Step:
    """Plan and preprocess the source data set."""
    preprocessed = folder / "nnUNet_preprocessed" / SOURCE
    cases = preprocessed / f"{_PLANS}_2d"
    command = f"nnUNetv2_plan_and_preprocess -d {_DATASET_ID} -c 2d -npfp 1 -np 1"
    return Step(
        name="plan_and_preprocess",
        title="Plan and preprocess the source data set",
        command=command.split(),
        is_done=lambda: (preprocessed / f"{_PLANS}.json").is_file() and len(list(cases.glob("*.pkl"))) == NUM_TRAINING,
    )


def add_small_configuration(folder: Path) -> Path:
    """Add a configuration to the plans that a CPU trains in minutes: small network and patch, batch of 8.

    It inherits everything else from the planned ``2d``, the preprocessed cases included, and stays as it is
    once it is there.

    Returns:
        The plans file.
    """
    file = folder / "nnUNet_preprocessed" / SOURCE / f"{_PLANS}.json"
    # Imported here: nnU-Net takes seconds.
    from nnunetv2_sikd.preprocessing.prepare import derive_configuration

    derive_configuration(
        file, CONFIGURATION, "2d", patch_size=_PATCH_SIZE, batch_size=_BATCH_SIZE, features_per_stage=_FEATURES
    )
    return file


def training_steps(folder: Path, device: str) -> list[Step]:
    """Train stock network, teacher and student."""
    titles = {
        "stock": "Train the stock network",
        "teacher": "Train the teacher: no skip connections, class-averaged images (made first)",
        "student": "Train the student: the stock network, which also learns the teacher's features",
    }
    return [_training_step(folder, role, title, device) for role, title in titles.items()]


def _training_step(folder: Path, role: str, title: str, device: str) -> Step:
    trainer = TRAINERS[role]
    fold = model_folder(folder, trainer) / "fold_0"
    command = f"nnUNetv2_train {_DATASET_ID} {CONFIGURATION} 0 -tr {trainer} -device {device}"
    if (fold / "checkpoint_final.pth").is_file():
        command += " --val"
    elif (fold / "checkpoint_latest.pth").is_file():
        command += " --c"
    return Step(
        name=f"train_{role}",
        title=title,
        command=command.split(),
        is_done=(fold / "validation" / "summary.json").is_file,
        total=EPOCHS,
        unit="epochs, then validation",
        progress=epochs_done,
    )


def prediction_steps(folder: Path, device: str) -> list[Step]:
    """Predict the test cases of both data sets with stock network and student."""
    return [_prediction_step(folder, model, domain, device) for domain in DOMAINS for model in MODELS]


def _prediction_step(folder: Path, model: str, domain: str, device: str) -> Step:
    output = prediction_folder(folder, model, domain)
    images = folder / "nnUNet_raw" / DOMAINS[domain] / "imagesTs"
    command = f"nnUNetv2_predict -d {_DATASET_ID} -c {CONFIGURATION} -f 0 -tr {TRAINERS[model]} -npp 1 -nps 1"
    return Step(
        name=f"predict_{output.name}",
        title=f"Predict the {domain} test cases with the {model} network",
        command=[
            *command.split(),
            "-device",
            device,
            "-i",
            str(images.relative_to(folder)),
            "-o",
            str(output.relative_to(folder)),
        ],
        is_done=lambda: len(list(output.glob("*.nii.gz"))) == NUM_TEST,
        total=NUM_TEST,
        unit="cases",
        progress=cases_predicted,
    )
