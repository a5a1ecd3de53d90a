"""Trained folds on another data set's test cases under simulated shifts: unseen images with another contrast, too.

``nnUNetv2_sikd stress`` takes validation cases, since it is there to choose by. This is to see how far what was chosen
carries. The other data set's labels are matched by name; what it does not annotate has no Dice. Writes every score to
``OUT/stress.csv`` (another run adds trainers; other shifts need another folder), and with ``--example`` a picture.

    python benchmarks/unseen_stress.py -d 101 -c 2d_3mm_80_f8 --target 102 -o unseen_102 \\
        --shifts inversion remapping noise -tr nnUNetTrainer nnUNetTrainer_classVariation_noise_onTop
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.evaluation.labels import value_of
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration, find_dataset
from nnunetv2_sikd.stress.examples import draw_examples
from nnunetv2_sikd.stress.predict import RawCase, load_case, predictor_of, score
from nnunetv2_sikd.stress.record import case_hashes, plans_hash, read_scores, settle, write_scores
from nnunetv2_sikd.stress.scores import mean_curves, mean_dice
from nnunetv2_sikd.stress.shifts import SHIFTS, VERSION
from nnunetv2_sikd.training import fold_folder

SEVERITIES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="data set that was trained on")
    parser.add_argument("-c", default="2d", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans")
    parser.add_argument("-f", type=int, default=0, help="fold")
    parser.add_argument("-tr", nargs="+", required=True, help="trainers")
    parser.add_argument("--titles", nargs="*", default=[], help="names in place of the trainers' in the picture")
    parser.add_argument("--target", required=True, help="data set of the test cases")
    parser.add_argument("--shifts", nargs="+", default=[], choices=[shift.name for shift in SHIFTS])
    parser.add_argument("--example", default=None, metavar="CASE", help="draw this case, and score none")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-o", type=Path, required=True, help="folder")
    args = parser.parse_args()
    planned = PlannedConfiguration.load(args.d, args.c, args.p)
    raw = Path(os.environ["nnUNet_raw"]) / find_dataset(args.target)
    checkpoints = {
        name: read_checkpoint(fold_folder(planned, name, args.f) / "checkpoint_final.pth") for name in args.tr
    }
    networks = {name: predictor_of(planned, each, name, args.device, False) for name, each in checkpoints.items()}
    args.o.mkdir(parents=True, exist_ok=True)
    if args.example is not None:
        shown = dict(zip(args.titles or args.tr, networks.values(), strict=True))
        title = f"{raw.name}, test case {args.example}; shifts at their strongest"
        print(draw_examples(planned, unseen_case(planned, raw, args.example), shown, args.o / "example.png", title))
        return
    about = {"target": raw.name, "configuration": planned.name, "fold": args.f, "shifts": args.shifts}
    about |= {"version of the shifts": VERSION}
    weights = {name: weights_hash(each["network_weights"]) for name, each in checkpoints.items()}
    cases = test_cases(raw)
    hashes = {name: case_hashes(name, *files_of(raw, name)) for name in cases}
    record = settle(args.o, about, weights, plans_hash(planned), hashes)
    scores = read_scores(args.o)
    known = {(each.trainer, each.case) for each in scores}
    shifts = [shift for shift in SHIFTS if shift.name in args.shifts]
    for name in tqdm(cases, desc="Test cases", unit="case"):
        left = {trainer: network for trainer, network in networks.items() if (trainer, name) not in known}
        if left:
            scores += score(planned, unseen_case(planned, raw, name), left, SEVERITIES, shifts)
            record["cases_sha256"][name] = hashes[name]
            write_scores(args.o, scores, record)
    dice = mean_dice(scores)
    for trainer in args.tr:
        found = mean_curves([dice[trainer]])
        told = ", ".join(f"{shift.name} {np.round(found[shift.name][1:], 3)}" for shift in shifts)
        print(f"{trainer}: no shift {found[''][0]:.3f}, {told}")


def test_cases(raw: Path) -> list[str]:
    """Names of the test cases."""
    ending = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["file_ending"]
    return sorted(file.name.removesuffix(ending) for file in (raw / "labelsTs").glob(f"*{ending}"))


def files_of(raw: Path, name: str) -> tuple[list[Path], Path]:
    """Images and label of a test case."""
    ending = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["file_ending"]
    images = sorted((raw / "imagesTs").glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}"))
    return images, raw / "labelsTs" / f"{name}{ending}"


def unseen_case(planned: PlannedConfiguration, raw: Path, name: str) -> RawCase:
    """A test case with the label values of the data set that was trained on."""
    if planned.label_manager.has_regions:
        raise SystemExit(f"{planned.dataset_name}: is trained on regions, which this script does not match")
    described = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    case = load_case(planned, name, *files_of(raw, name))
    label = np.zeros_like(case.label)
    for structure, value in described["labels"].items():
        if structure in planned.dataset_json["labels"]:
            label[case.label == value_of(value)] = value_of(planned.dataset_json["labels"][structure])
    return RawCase(name, case.image, label, case.properties)


if __name__ == "__main__":
    main()
