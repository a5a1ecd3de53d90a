"""How time, memory and disk of copies and evaluation grow with cases, slices, image size, classes and channels.

Varies one thing at a time around a case of 10 slices of 192 × 192 pixels, one channel and four classes, drawn
synthetically; fits a + b·xᵖ to each series, and from the fits computes what 10,000 cases take. Times are processor time
of one core; memory is what a fresh process takes on top of what it had after its imports.

    python benchmarks/growth.py             # three minutes
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS, machine, report, table
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from scipy.optimize import curve_fit
from tqdm import tqdm

from nnunetv2_sikd.preprocessing.copy import CopySpec, is_current, write_copy

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"
MANY = 10_000


@dataclass(frozen=True)
class Size:
    """Of a case."""

    slices: int = 10
    pixels: int = 192
    classes: int = 4
    channels: int = 1

    @property
    def values(self) -> int:
        return self.channels * self.slices * self.pixels**2


SERIES: dict[str, Sequence[int]] = {
    "slices": (5, 10, 20, 40, 80),
    "pixels": (64, 128, 192, 384, 768),
    "classes": (2, 4, 8, 16, 32, 64),
    "channels": (1, 2, 4, 8),
}
CASES = (10, 40, 160, 640)
NAMED = {"slices": "slices", "pixels": "side of a slice", "classes": "classes", "channels": "channels"}
EXAMPLES = {"cardiac MR, 10 × 256 × 216": 10 * 256 * 216, "CT, 250 × 512 × 512": 250 * 512 * 512}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "growth.json")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure_copy(Size(**json.loads(args.one)), args.rounds)))
        return
    before = machine()
    measured: dict[str, dict[str, list[float]]] = {}
    for factor, numbers in tqdm(SERIES.items(), unit="series"):
        sizes = [replace(Size(), **{factor: number}) for number in numbers]
        rows = [{**alone(size, args.rounds), "evaluation_s": measure_evaluation(size, args.rounds)} for size in sizes]
        measured[factor] = {"x": list(map(float, numbers)), **{key: [row[key] for row in rows] for key in rows[0]}}
        measured[factor]["values"] = [float(size.values) for size in sizes]
    measured["cases"] = measure_cases()
    fits = {
        factor: {key: fit(series["x"], series[key]) for key in series if key not in ("x", "values")}
        for factor, series in measured.items()
    }
    many = expected(measured, fits)
    draw(measured, args.figure)
    text = f"{growth_table(fits)}\n\n{MANY:,} cases, computed from the fits:\n\n{many_table(many)}"
    report(text, {"base": asdict(Size()), "measured": measured, "fits": fits, "many": many}, args.json, before)


# ---------------------------------------------------------------- measuring


def alone(size: Size, rounds: int) -> dict[str, float]:
    """A copy in a fresh process, so that its peak of memory is its own."""
    line = [sys.executable, __file__, "--one", json.dumps(asdict(size)), "--rounds", str(rounds)]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def measure_copy(size: Size, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        specs = {
            name: save(Path(folder), name, *draw_case(each))
            for name, each in {"small": Size(slices=2, pixels=32), "case": size}.items()
        }
        forget_peak()
        begin = resident_mib("VmRSS")
        for name, spec in specs.items():  # the small one first: whatever is loaded on first use
            seconds = [timed(write_copy, spec, name, spec.target) for _ in range(rounds)]
        return {
            "copy_s": statistics.median(seconds),
            "copy_mib": max(resident_mib("VmHWM") - begin, 0.0),
            "copy_bytes": float((spec.target / "case.b2nd").stat().st_size),
            "image_bytes": float((spec.source / "case.b2nd").stat().st_size),
        }


def measure_evaluation(size: Size, rounds: int) -> float:
    """One case against itself moved by two pixels, all metrics."""
    import SimpleITK as sitk

    from nnunetv2_sikd.evaluation.case import Settings, evaluate_case
    from nnunetv2_sikd.evaluation.empty_masks import EmptyMaskPolicy
    from nnunetv2_sikd.evaluation.files import choose_reader
    from nnunetv2_sikd.evaluation.labels import LabelTable, match_labels

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("reference.nii.gz", "prediction.nii.gz")]
        _, label = draw_case(replace(size, channels=1))
        for file, values in zip(files, (label[0], np.roll(label[0], 2, axis=-1)), strict=True):
            image = sitk.GetImageFromArray(values.astype(np.uint8))
            image.SetSpacing((1.0, 1.0, 5.0))
            sitk.WriteImage(image, str(file))
        names = {"background": 0, **{f"class {value}": value for value in range(1, size.classes)}}
        dataset_json = {"labels": names, "file_ending": ".nii.gz", "channel_names": {"0": "noise"}}
        labels = LabelTable.from_dataset_json(dataset_json, Path("dataset.json"))
        reader = choose_reader(dataset_json, files[0])
        settings = Settings(match_labels(labels, labels).labels, labels, labels, reader, 2.0, False, EmptyMaskPolicy())
        return statistics.median(timed(evaluate_case, "case", *files, settings) for _ in range(rounds))


def measure_cases() -> dict[str, list[float]]:
    """The hook over data sets of many small cases; and again, when all is in place."""
    image, label = draw_case(Size(slices=4, pixels=96))
    result: dict[str, list[float]] = {"x": [], "copy_s": [], "second_run_s": [], "copy_bytes": []}
    for number in CASES:
        with tempfile.TemporaryDirectory() as folder:
            spec = save(Path(folder), "case", image, label)
            names = [f"case_{n}" for n in range(number)]
            for name in names:
                for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
                    os.link(spec.source / f"case{suffix}", spec.source / f"{name}{suffix}")
            result["x"].append(float(number))
            for key, function in (("copy_s", copy_all), ("second_run_s", all_current)):
                result[key].append(timed(function, spec, names))
            result["copy_bytes"].append(float(sum((spec.target / f"{name}.b2nd").stat().st_size for name in names)))
    return result


def copy_all(spec: CopySpec, names: Sequence[str]) -> None:
    for name in names:
        write_copy(spec, name, spec.target)


def all_current(spec: CopySpec, names: Sequence[str]) -> bool:
    return all(is_current(spec, name) for name in names)


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def forget_peak() -> None:
    """Let the peak of memory begin anew: drawing a case takes more than copying it (Linux)."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def resident_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(key)), float("nan"))


def draw_case(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Noise ``(C, Z, Y, X)``, and nested discs ``(1, Z, Y, X)``."""
    axis = np.linspace(-1, 1, size.pixels)
    centres = np.linspace(-0.1, 0.1, size.slices)
    distance = np.sqrt((axis[None, :, None] - centres[:, None, None]) ** 2 + axis[None, None] ** 2)
    label = np.clip((0.8 - distance) / 0.8 * size.classes, 0, size.classes - 1).astype(np.int16)[None]
    image = np.random.default_rng(0).normal(size=(size.channels, *label.shape[1:])).astype(np.float32)
    return image, label


def save(folder: Path, case: str, image: np.ndarray, label: np.ndarray) -> CopySpec:
    """Save a case as nnU-Net's preprocessing does."""
    source, target = folder / "cases", folder / "copies"
    for path in (source, target):
        path.mkdir(exist_ok=True)
    patch = (min(256, image.shape[-1]),) * 2
    sizes = {}
    for suffix, array in (("", image), ("_seg", label)):
        blocks, chunks = comp_blosc2_params(array.shape, patch, array.itemsize)
        sizes.update({f"blocks{suffix}": blocks, f"chunks{suffix}": chunks})
    nnUNetDatasetBlosc2.save_case(image, label, {"spacing": [5.0, 1.0, 1.0]}, str(source / case), **sizes)
    values = tuple(np.unique(label).tolist())
    return CopySpec(source, target, per_slice=True, patch_size=patch, labels=values, ignore_label=None)


# ------------------------------------------------------------------ fitting


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fit ``a + b·xᵖ`` with a, b ≥ 0 by relative error; ``p`` is 0 where y hardly changes.

    Args:
        x: Above 0.
        y: At least 0.

    Returns:
        ``a``, ``b``, ``p``, and ``error``, the largest relative difference from the measurements.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    middle = float(np.exp(np.log(np.maximum(ys, 1e-12)).mean()))
    if ys.max() < 1.2 * ys.min():
        return {"a": middle, "b": 0.0, "p": 0.0, "error": float(np.abs(middle / ys - 1).max())}
    scale = float(xs.max())

    def logarithm(x: np.ndarray, a: float, b: float, p: float) -> np.ndarray:
        return np.log(a + b * (x / scale) ** p)

    largest = float(ys.max())
    ys = np.maximum(ys, 1e-6 * largest)
    bounds = ([0.0, 1e-9 * largest, 0.0], [largest, 10 * largest, 4.0])
    start = [0.5 * float(ys.min()), largest, 1.0]
    (a, b, p), _ = curve_fit(logarithm, xs, np.log(ys), start, bounds=bounds, x_scale=[largest, largest, 1.0])
    error = np.abs((a + b * (xs / scale) ** p) / ys - 1).max()
    return {"a": float(a), "b": float(b / scale**p), "p": float(p), "error": float(error)}


def value(fitted: Mapping[str, float], x: float) -> float:
    return fitted["a"] + fitted["b"] * x ** fitted["p"]


def expected(
    measured: Mapping[str, Mapping[str, list[float]]], fits: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[str, Any]:
    """What many cases take, from the fits over the number of values in a case."""
    columns = {}
    for key in ("copy_s", "copy_mib", "copy_bytes", "evaluation_s"):
        both = [measured[factor] for factor in ("slices", "pixels")]
        columns[key] = fit(
            [x for series in both for x in series["values"]], [y for series in both for y in series[key]]
        )
    again = value(fits["cases"]["second_run_s"], MANY)
    return {
        name: {
            "hook_h": MANY * value(columns["copy_s"], values) / 3600,
            "second_run_s": again,
            "process_mib": value(columns["copy_mib"], values),
            "disk_gib": MANY * value(columns["copy_bytes"], values) / 2**30,
            "evaluation_h": MANY * value(columns["evaluation_s"], values) / 3600,
        }
        for name, values in EXAMPLES.items()
    } | {"fits over values": columns}


# ------------------------------------------------------------------ showing


def growth_table(fits: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    keys = {"copy_s": "hook: time", "copy_mib": "hook: memory", "copy_bytes": "copies: disk"}
    keys["evaluation_s"] = "evaluation: time"
    rows = [
        (NAMED.get(factor, factor), *(f"{series[key]['p']:.2f}" if key in series else "–" for key in keys))
        for factor, series in fits.items()
    ]
    return table(("exponent p of", *keys.values()), rows)


def many_table(many: Mapping[str, Mapping[str, Any]]) -> str:
    keys = {
        "hook_h": "hook, core hours",
        "second_run_s": "hook again, s",
        "process_mib": "memory per process, MiB",
        "disk_gib": "copies, GiB",
        "evaluation_h": "evaluation, core hours",
    }
    rows = [(name, *(f"{many[name][key]:.3g}" for key in keys)) for name in EXAMPLES]
    return table(("cases of", *keys.values()), rows)


def draw(measured: Mapping[str, Mapping[str, list[float]]], file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    shown = {"copy_s": ("hook, ms per case", 1e3), "copy_mib": ("hook, MiB", 1.0)}
    shown["evaluation_s"] = ("evaluation, ms per case", 1e3)
    styles = dict(zip(SERIES, (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#CC79A7", "^")), strict=True))
    for axis, (key, (title, scale)) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        for factor, numbers in SERIES.items():
            colour, marker = styles[factor]
            if key == "evaluation_s" and factor == "channels":
                continue
            base = getattr(Size(), factor)
            y = [max(scale * each, 1e-3) for each in measured[factor][key]]
            axis.loglog([n / base for n in numbers], y, color=colour, marker=marker, markersize=4, label=NAMED[factor])
        axis.set(title=title, xlabel="times the base case")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
