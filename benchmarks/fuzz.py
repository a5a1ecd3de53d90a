"""Coverage-guided fuzzing of every parser of this package: whatever a file holds, one clear error or a result.

    pip install -e '.[fuzz,test]'                       # atheris has wheels for Linux, Python 3.11 to 3.13
    python benchmarks/fuzz.py --work /tmp/fuzz [--seconds 120] [--targets benchmark checkpoint ...]

Each target runs in a process of its own, one at a time, and starts from real files of its kind. Whatever a target
raises besides SIKDError is kept in the work folder with its traceback, once per place; a crash, a hang (20 seconds)
and memory above 4 GiB end the target and are kept too. Ends with a table; exit status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
INSTRUMENTED = ["nnunetv2_sikd", "yaml", "pickletools"]
DATASET = "Dataset901_Tiny"

Target = Callable[[bytes], Any]
Seeds = list[bytes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and findings")
    parser.add_argument("--seconds", type=int, default=120, help="for each target (default: %(default)s)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--one", choices=TARGETS, help=argparse.SUPPRESS)  # a process for one target
    args = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("atheris is missing: pip install -e '.[fuzz]' (Linux, Python 3.11 to 3.13; elsewhere it needs clang)")
    if args.one:
        fuzz(args.one, args.work / args.one, args.seconds)
    rows = [run(target, args.work / target, args.seconds) for target in args.targets]
    print(json.dumps(rows, indent=1))
    return int(any(row["findings"] for row in rows))


def run(target: str, folder: Path, seconds: int) -> dict[str, Any]:
    """Fuzz one target in another process; returns what its log says."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--work", str(folder.parent), "--seconds", str(seconds), "--one", target]
    begin = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    text = (folder / "log.txt").read_text(errors="replace")
    executed = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    states = re.findall(r"#(\d+)\t.*?cov: (\d+) ft: (\d+)", text)
    row = {
        "target": target,
        "seconds": round(time.monotonic() - begin),
        "inputs": int(executed[-1] if executed else states[-1][0] if states else 0),
        "covered_at_start": int(states[0][1]) if states else None,
        "covered": int(states[-1][1]) if states else None,
        "findings": len(list(folder.glob("finding_*.txt"))) + len(list(folder.glob("crash-*"))),
        "ended": "in time" if status == 0 else f"exit status {status}, see {folder / 'log.txt'}",
    }
    print(json.dumps(row), flush=True)
    return row


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Fuzz one target in this process; never returns."""
    import atheris

    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        scratch_folder = Path(scratch)
        for kind in ("raw", "preprocessed", "results"):  # nnU-Net reads them when it is imported
            (scratch_folder / kind).mkdir()
            os.environ[f"nnUNet_{kind}"] = str(scratch_folder / kind)
        sys.path.insert(0, str(ROOT))
        with atheris.instrument_imports(include=INSTRUMENTED):
            target, seeds = TARGETS[name](scratch_folder)
        corpus = folder / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (corpus / f"seed_{number}").write_bytes(seed)
        warnings.simplefilter("ignore")
        logging.disable()
        options = [f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=4096"]
        options += [f"-artifact_prefix={folder}/", f"-max_len={max(8192, 2 * max(map(len, seeds)))}"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], collecting(target, folder))
        atheris.Fuzz()


def collecting(target: Target, folder: Path) -> Target:
    """A target that keeps what it should not have raised, once per place, and goes on."""
    from nnunetv2_sikd.errors import SIKDError

    def try_input(data: bytes) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                target(data)
        except SIKDError as error:
            told = str(error)
            if "\n" in told:
                keep(ValueError(f"an error of several lines: {told!r}"), data)
        except Exception as error:
            keep(error, data)

    def keep(error: BaseException, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "nnunetv2_sikd" in frame.filename] or frames[-1:]
        place = f"{Path(ours[-1].filename).stem}_{ours[-1].lineno}" if ours else "told"
        file = folder / f"finding_{type(error).__name__}_{place}.txt"
        if not file.exists():
            file.with_suffix(".input").write_bytes(data)
            file.write_text("".join(traceback.format_exception(error)))

    return try_input


def benchmark(folder: Path) -> tuple[Target, Seeds]:
    """Benchmark files."""
    from nnunetv2_sikd.benchmark.file import load_specification, shipped_benchmarks

    file = folder / "benchmark.yaml"

    def target(data: bytes) -> None:
        file.write_bytes(data)
        specification = load_specification(file)
        for test in specification.tests:
            specification.is_source(test)
            with contextlib.suppress(ValueError):
                test.patient_of("patient001_frame01")
        list(specification.trainings())

    merged = b"a: &a {b: 1, c: [1, 2.5, 2001-12-14]}\nb: {<<: *a, d: 0x1F, e: ~, f: !!binary aGk=}\n"
    return target, [*(each.read_bytes() for each in shipped_benchmarks().values()), merged]


def planned(folder: Path) -> tuple[Target, Seeds]:
    """Plans, and dataset.json after a NUL, as a configuration is found."""
    from nnunetv2_sikd.preprocessing.derive import derive_configuration
    from nnunetv2_sikd.preprocessing.hook import copy_spec
    from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
    from tests.helpers import make_dataset_json, make_plans

    dataset = folder / "preprocessed" / DATASET
    (dataset / "nnUNetPlans_2d").mkdir(parents=True)
    (dataset / "nnUNetPlans_2d" / "case.b2nd").touch()

    def target(data: bytes) -> None:
        plans, _, dataset_json = data.partition(b"\0")
        (dataset / "nnUNetPlans.json").write_bytes(plans)
        (dataset / "dataset.json").write_bytes(dataset_json or seeds[0].partition(b"\0")[2])
        copy_spec(PlannedConfiguration.load(DATASET, "2d", "nnUNetPlans"))
        changes: dict[str, Any] = {"spacing": [2.0, 2.0], "patch_size": [16, 16], "features_per_stage": [2, 4]}
        derive_configuration(dataset / "nnUNetPlans.json", "2d_new", "2d", **changes, write=False)

    seeds = [
        json.dumps(make_plans(DATASET, residual=residual)).encode()
        + b"\0"
        + json.dumps(make_dataset_json(regions=regions, ignore=ignore, channels=1, num_cases=3)).encode()
        for residual, regions, ignore in ((False, False, False), (True, True, True))
    ]
    return target, seeds


def splits(folder: Path) -> tuple[Target, Seeds]:
    """splits_final.json."""
    from nnunetv2_sikd.preprocessing.prepare import read_splits

    file = folder / "splits_final.json"

    def target(data: bytes) -> None:
        file.write_bytes(data)
        for fold in read_splits(file):
            sorted({*fold["train"], *fold["val"]})

    return target, [json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]).encode()]


def labels(folder: Path) -> tuple[Target, Seeds]:
    """dataset.json of predictions, and of references after a NUL, for an evaluation; the label map after another."""
    from nnunetv2_sikd.evaluation.files import check_same_format, load_dataset_json
    from nnunetv2_sikd.evaluation.labels import LabelTable, match_labels, parse_label_map
    from tests.helpers import make_dataset_json

    files = [folder / "predicted.json", folder / "reference.json"]

    def target(data: bytes) -> None:
        first, _, rest = data.partition(b"\0")
        second, _, entries = rest.partition(b"\0")
        described = []
        for file, content in zip(files, (first, second or first), strict=True):
            file.write_bytes(content)
            described.append(load_dataset_json(file, [], "-djfile")[0])
        check_same_format(described[0], files[0], described[1], files[1])
        tables = [LabelTable.from_dataset_json(each, file) for each, file in zip(described, files, strict=True)]
        match_labels(tables[0], tables[1], parse_label_map(entries.decode("utf-8", "replace").split()))

    one, other = (
        json.dumps(make_dataset_json(regions=regions, ignore=True, channels=1, num_cases=1)).encode()
        for regions in (False, True)
    )
    return target, [one, one + b"\0" + other + b"\0core=core shell=whole"]


def metrics(folder: Path) -> tuple[Target, Seeds]:
    """metrics.csv as the report reads it, up to its tables."""
    import pandas as pd

    from nnunetv2_sikd.benchmark.specification import TestSet, Training
    from nnunetv2_sikd.evaluation.report import COLUMNS
    from nnunetv2_sikd.report import scores
    from nnunetv2_sikd.report.pairing import labels_of, patient_scores

    file = folder / "metrics.csv"
    test = TestSet(key="own", dataset=1, patient=r"^[^_]+")
    trainings = [Training(arm=arm, trainer="nnUNetTrainer", seed=0, fold=0) for arm in ("stock", "sikd")]

    def target(data: bytes) -> None:
        file.write_bytes(data)
        frame = pd.concat([scores._read(file, test, training) for training in trainings], ignore_index=True)
        for label in labels_of(frame, "own"):
            patient_scores(frame, ("stock", "sikd"), "own", label, "dice").differences()

    numbers = ",0.9,0.8,4.0,2.0,1.0,0.95,30.0,28.0\r\n"
    header = ",".join(COLUMNS) + "\r\n"
    rows = [f"p{i}_a,{label},{empty},mm{numbers}" for i in range(2) for label, empty in (("a", "none"), ("b", "both"))]
    return target, [(header + "".join(rows)).encode(), (header + "p1,a,reference,px" + ",nan" * 8 + "\n").encode()]


def records(folder: Path) -> tuple[Target, Seeds]:
    """What training, prediction and steps left beside their results, as the report and a second run read it."""
    from nnunetv2_sikd.benchmark import run as steps
    from nnunetv2_sikd.errors import SIKDError
    from nnunetv2_sikd.prediction import _changed_since, _earlier, _remove
    from nnunetv2_sikd.report import cost

    file, output, model = folder / "record.json", folder / "predictions", folder / "model"
    for each in (output, model):
        each.mkdir()
    (model / "checkpoint_final.pth").touch()

    def target(data: bytes) -> None:
        file.write_bytes(data)
        steps._read(file).get("finished")
        record = cost._read(file)
        if record:
            cost._columns([record, record])
            cost._total([record])
            for key in ("seconds", "cases", "peak_memory_mb"):
                cost._number(record.get(key))
        (output / "predicted_with.json").write_bytes(data)
        with contextlib.suppress(SIKDError):
            earlier = _earlier(output, ".nii.gz")
            made_by = {"weights_sha256": "0", "images": "i", "image_sha256": {"a": ["0"]}}
            _changed_since(earlier, made_by, model / "checkpoint_final.pth")
            _remove(output, earlier or {}, ".nii.gz")

    training = {"device": "CPU", "epochs": 2, "seconds_per_epoch": [1.5, 2], "total_seconds": 3.5}
    training["peak_memory_mib"] = {"resident": 900.5, "cuda_allocated": 1e3}
    prediction = {"seconds": 3.5, "cases": 2, "device": "cpu", "peak_memory_mb": 800.0}
    step = {"command": ["a"], "finished": "2025", "needed": {"prepare": None}, "state": "0"}
    before = {"model": "m", "checkpoint_sha256": "0", "images": "i"}
    claimed = {"model": "m", "weights_sha256": "0", "images": "i", "image_sha256": {"a": ["0"]}}
    return target, [json.dumps(each).encode() for each in (training, prediction, step, before, claimed)]


def checkpoint(folder: Path) -> tuple[Target, Seeds]:
    """The pickle inside a checkpoint, in an archive with the tensors of a real one; the archive itself after 0xFF."""
    import torch

    from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
    from tests.distillation.test_checkpoint import make_checkpoint

    real, file = folder / "real.pth", folder / "checkpoint_final.pth"
    content = make_checkpoint()
    content["network_weights"] = dict(list(content["network_weights"].items())[:3])
    content["optimizer_state"] = {}
    torch.save(content, real)
    with zipfile.ZipFile(real) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    [pickled] = [name for name in members if name.endswith("data.pkl")]

    def target(data: bytes) -> None:
        if data[:1] == b"\xff":
            file.write_bytes(data[1:])
        else:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, member in members.items():
                    archive.writestr(name, data if name == pickled else member)
        found = read_checkpoint(file)
        weights_hash(found["network_weights"])
        found["init_args"].get("sikd", {}).get("teacher_sha256")

    return target, [members[pickled], b"\xff" + real.read_bytes()]


def trainers(folder: Path) -> tuple[Target, Seeds]:
    """Names of trainers."""
    del folder
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunetv2_sikd.benchmark.specification import Arm
    from nnunetv2_sikd.trainers import variants

    before = set(vars(variants))

    def target(data: bytes) -> None:
        name = data.decode("utf-8", "replace")
        with contextlib.suppress(ValueError):
            Arm(trainer=name)
        try:
            found = getattr(variants, name)
        except AttributeError:
            return
        if name not in before:
            if not (issubclass(found, nnUNetTrainer) and found.__name__ == name):
                raise TypeError(f"{name!r} gives {found}")
            delattr(variants, name)

    return target, [name.encode() for name in variants.shipped_trainers()]


def properties(folder: Path) -> tuple[Target, Seeds]:
    """Properties of preprocessed cases (.pkl), which are checked without being loaded."""
    import numpy as np

    from nnunetv2_sikd.preprocessing.copy import _check_pickle

    file = folder / "case.pkl"

    def target(data: bytes) -> None:
        file.write_bytes(data)
        _check_pickle(file, "mend it")

    content = {
        "spacing": [1.0, np.float64(2)],
        "shape": (1, 2),
        "class_locations": {1: np.arange(6).reshape(2, 3), 2: [], (1, 2): np.zeros((0, 4), np.int64)},
    }
    return target, [pickle.dumps(content, protocol) for protocol in (0, 2, 4, 5)]


def images(folder: Path) -> tuple[Target, Seeds]:
    """Label files, cut or damaged; the first byte chooses the format. The readers are other libraries'."""
    import numpy as np
    import SimpleITK

    from nnunetv2_sikd.image_files import is_whole

    endings = (".nii.gz", ".nii", ".tif", ".bmp", ".png", ".nrrd", ".mha")
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()

    def target(data: bytes) -> None:
        if data:
            file = folder / f"label{endings[data[0] % len(endings)]}"
            file.write_bytes(data[1:])
            if not isinstance(is_whole(file), bool):
                raise TypeError("neither whole nor not")

    seeds = []
    for number, ending in enumerate(endings):
        array = np.arange(12, dtype=np.uint8).reshape((3, 4) if ending in (".bmp", ".png") else (1, 3, 4))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(folder / f"seed{ending}"))
        seeds.append(bytes([number]) + (folder / f"seed{ending}").read_bytes())
    return target, seeds


TARGETS: dict[str, Callable[[Path], tuple[Target, Seeds]]] = {
    each.__name__: each
    for each in (*(benchmark, planned, splits, labels, metrics, records, checkpoint, trainers, properties, images),)
}


if __name__ == "__main__":
    sys.exit(main())
