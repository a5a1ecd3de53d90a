"""``nnUNetv2_sikd demo``: the whole chain on synthetic images, through nnU-Net's own commands."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from tqdm import tqdm

from nnunetv2_sikd import __version__
from nnunetv2_sikd.demo.chain import (
    DOMAINS,
    MODELS,
    TRAINERS,
    add_small_configuration,
    model_folder,
    planning_step,
    prediction_folder,
    prediction_steps,
    training_steps,
)
from nnunetv2_sikd.demo.dataset import NUM_TEST, NUM_TRAINING, write_datasets
from nnunetv2_sikd.environment import FOLDER_VARIABLES, TRAINER_VARIABLE, with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.steps import run_step

_MARKER = "nnunetv2_sikd_demo.txt"
_MARK = f"Made by nnUNetv2_sikd demo {__version__}. Everything here can be deleted.\n"
_TITLES = {"source": "Source scanner", "target": "Unseen scanner"}


def run_demo(folder: Path, device: str) -> None:
    """Make data, train stock network, teacher and student, predict for both scanners, compare.

    A second run continues where the first one ended.

    Args:
        folder: Where everything goes: new, empty, or of an earlier demo.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        SIKDError: The folder holds something else, or a command failed.
    """
    start = time.monotonic()
    folder = folder.resolve()
    _claim(folder)
    environment = _environment(folder)
    print("The demo runs these commands; to repeat one of them by hand, first type")
    for line in _shell_lines(folder, environment):
        print(f"  {line}")

    planning = planning_step(folder)
    steps = [planning, *training_steps(folder, device), *prediction_steps(folder, device)]
    _write_data(folder)
    for number, step in enumerate(steps, 1):
        run_step(step, number, len(steps), folder, environment)
        if step is planning:
            print(f"  small configuration added to {add_small_configuration(folder).relative_to(folder)}")

    _show_results(folder)
    print(f"Took {(time.monotonic() - start) / 60:.1f} minutes.")


def _claim(folder: Path) -> None:
    """Make the folder, or recognise it as a demo's; leave anything else alone."""
    marker = folder / _MARKER
    if folder.exists() and not folder.is_dir():
        raise SIKDError(f"{folder}: is a file; name a folder for the demo with -o")
    if folder.is_dir() and any(folder.iterdir()):
        if not marker.is_file():
            raise SIKDError(f"{folder}: is not empty and not of an earlier demo; name a new folder with -o")
        if marker.read_text(encoding="utf-8") != _MARK:
            raise SIKDError(f"{folder}: holds the demo of another version; delete it or name a new folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(_MARK, encoding="utf-8")
        for name in (*FOLDER_VARIABLES, "logs", "pictures", "predictions"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise SIKDError(f"{folder}: cannot be written ({error.strerror}); name another folder with -o") from error


def _environment(folder: Path) -> dict[str, str]:
    """Environment of the commands: the demo's folders, and few processes for small data."""
    environment = with_trainers()
    environment.update({variable: str(folder / variable) for variable in FOLDER_VARIABLES})
    environment.update(nnUNet_def_n_proc="1", nnUNet_n_proc_DA="2", PYTHONUNBUFFERED="1")
    # Threads that sleep while they wait: on a busy CPU the default trains up to eight times slower.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def _shell_lines(folder: Path, environment: dict[str, str]) -> list[str]:
    variables = (*FOLDER_VARIABLES, TRAINER_VARIABLE)
    return [
        f"cd {shlex.quote(str(folder))}",
        *(f"export {name}={shlex.quote(environment[name])}" for name in variables),
    ]


def _write_data(folder: Path) -> None:
    print("\nSynthetic images of a source scanner and of one unseen in training")
    if all((folder / "nnUNet_raw" / dataset / "dataset.json").is_file() for dataset in DOMAINS.values()):
        print("  done before, skipped")
        return
    with tqdm(total=NUM_TRAINING + 2 * NUM_TEST, desc="  draw", unit="case", file=sys.stdout) as progress:
        write_datasets(folder / "nnUNet_raw", progress.update)


def _show_results(folder: Path) -> None:
    # Imported here: nnU-Net and matplotlib take seconds.
    from nnunetv2_sikd.demo.pictures import draw_comparison, draw_scanners, load_example
    from nnunetv2_sikd.demo.results import DomainDice, mean_dice, report

    dice, examples = [], []
    for domain, dataset in DOMAINS.items():
        raw = folder / "nnUNet_raw" / dataset
        predictions = {model: prediction_folder(folder, model, domain) for model in MODELS}
        means = {model: mean_dice(raw / "labelsTs", where) for model, where in predictions.items()}
        dice.append(DomainDice(_TITLES[domain], **means))
        examples.append(load_example(_TITLES[domain], raw, predictions))
    text = report(dice)
    (folder / "results.md").write_text(text, encoding="utf-8")
    draw_scanners(examples, folder / "pictures" / "scanners.png")
    draw_comparison(examples, folder / "pictures" / "predictions.png")
    print(f"\n{text}")
    print(f"In {folder}:")
    for what, where in (
        ("this table", "results.md"),
        ("pictures", "pictures/scanners.png, pictures/predictions.png"),
        ("what each command wrote", "logs"),
        *(
            (f"{model} model", str(model_folder(folder, trainer).relative_to(folder)))
            for model, trainer in TRAINERS.items()
        ),
    ):
        print(f"  {what + ':':<26}{where}")
