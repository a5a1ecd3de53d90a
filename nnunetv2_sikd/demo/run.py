"""``nnUNetv2_sikd demo``: the whole chain on synthetic images, as a benchmark of its own."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nnunetv2_sikd import __version__
from nnunetv2_sikd.demo.dataset import NUM_TEST, NUM_TRAINING, SOURCE, TARGET, write_datasets
from nnunetv2_sikd.environment import FOLDER_VARIABLES, TRAINER_VARIABLE, with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.folders import cannot_write, check_output

if TYPE_CHECKING:
    from nnunetv2_sikd.benchmark.layout import Layout

_MARKER = "nnunetv2_sikd_demo.txt"
_MARK = f"Made by nnUNetv2_sikd demo {__version__}. Everything here can be deleted.\n"
_REMARK = """\
One fold, one training of each network, minutes long, on synthetic images: this shows that the whole chain works
on this machine. It cannot show which of the two is better in general; whatever came out is what stands here. A
comparison that can show it needs real data, full trainings and several seeds."""


def run_demo(folder: Path, device: str) -> None:
    """Draw images, train stock network, teacher and student, predict for both scanners, evaluate, report.

    A second run continues where the first one ended.

    Args:
        folder: Where everything goes: new, empty, or of an earlier demo.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        SIKDError: The folder holds something else, or a command failed.
    """
    from nnunetv2_sikd.devices import check_device  # imports torch

    check_device(device)
    start = time.monotonic()
    folder = Path(os.path.abspath(folder))
    _claim(folder)
    # Before anything imports nnU-Net, which reads its folders once.
    os.environ.update(_environment(folder))
    print("The demo runs these commands; to repeat one of them by hand, first type")
    for name in (*FOLDER_VARIABLES, TRAINER_VARIABLE):
        print(f"  export {name}={shlex.quote(os.environ[name])}")
    _write_data(folder)

    from nnunetv2_sikd.benchmark.layout import Layout
    from nnunetv2_sikd.benchmark.plan import Machine, plan_steps
    from nnunetv2_sikd.benchmark.run import run_benchmark

    layout = Layout.of("demo", folder)
    run_benchmark(plan_steps(layout, "demo", Machine(device, processes=2)), layout)
    _show_results(layout)
    print(f"Took {(time.monotonic() - start) / 60:.1f} minutes.")


def _claim(folder: Path) -> None:
    """Make the folder, or recognise it as a demo's; leave anything else alone."""
    marker = folder / _MARKER
    check_output(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not marker.is_file():
            raise SIKDError(f"{folder}: is not empty and not of an earlier demo; name a new folder with -o")
        if marker.read_bytes() != _MARK.encode():
            raise SIKDError(f"{folder}: holds the demo of another version; delete it or name a new folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(_MARK, encoding="utf-8")
        for name in FOLDER_VARIABLES:
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _environment(folder: Path) -> dict[str, str]:
    """The demo's folders, and few processes for small data."""
    return {
        TRAINER_VARIABLE: with_trainers()[TRAINER_VARIABLE],
        **{variable: str(folder / variable) for variable in FOLDER_VARIABLES},
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "2",
    }


def _write_data(folder: Path) -> None:
    print("\nSynthetic images of a source scanner and of one unseen in training")
    if all((folder / "nnUNet_raw" / dataset / "dataset.json").is_file() for dataset in (SOURCE, TARGET)):
        print("  done before, skipped")
        return
    with tqdm(total=NUM_TRAINING + 2 * NUM_TEST, desc="  draw", unit="case", file=sys.stdout) as progress:
        write_datasets(folder / "nnUNet_raw", progress.update)


def _show_results(layout: Layout) -> None:
    import pandas as pd

    titles = pd.Series({test.key: test.title for test in layout.specification.tests})
    differences = pd.read_csv(layout.report() / "differences.csv")
    table = differences[differences["metric"] == "dice"]
    table = table.assign(test=table["test"].map(titles))[["test", "label", "mean_baseline", "mean_arm", "difference"]]
    print("\nMean Dice of the test cases\n")
    print(
        table.to_string(
            index=False,
            header=["test cases", "structure", "stock", "student", "difference"],
            formatters={
                "mean_baseline": "{:.3f}".format,
                "mean_arm": "{:.3f}".format,
                "difference": "{:+.3f}".format,
            },
        )
    )
    print(f"\n{_REMARK}")
    print(f"\nIn {layout.output}: report/report.html (tables, pictures, cost), nnUNet_results (models), logs")
