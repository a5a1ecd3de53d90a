"""``nnUNetv2_predict`` with the student against stock nnU-Net: time of whole commands, memory, parameters, checkpoints.

Takes turns between two trained models of the same data set, plans and configuration.

    python benchmarks/prediction.py -i "$nnUNet_raw/Dataset101_ACDC/imagesTs" -d 101 -c 2d -f 0 \\
        --stock nnUNetTrainer --student nnUNetTrainer_SIKDStudent -device cpu
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from measuring import RESULTS, command, machine, ratios, report, spread, table, take_turns, told

from nnunetv2_sikd.distillation.checkpoint import number_of_parameters, read_checkpoint
from nnunetv2_sikd.environment import stock_command, with_trainers
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.training import fold_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, help="folder of images")
    parser.add_argument("-d", required=True)
    parser.add_argument("-c", default="2d")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-f", default="0")
    parser.add_argument("--stock", default="nnUNetTrainer")
    parser.add_argument("--student", default="nnUNetTrainer_SIKDStudent")
    parser.add_argument("-device", default="cuda", choices=("cpu", "cuda", "mps"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = machine()
    planned = PlannedConfiguration.load(args.d, args.c, args.p)
    trainers = {"stock": args.stock, "student": args.student}
    models = {}
    for name, trainer in trainers.items():
        file = fold_folder(planned, trainer, args.f) / "checkpoint_final.pth"
        weights = read_checkpoint(file)["network_weights"]
        models[name] = {"parameters": number_of_parameters(weights), "bytes": file.stat().st_size}
    environment = with_trainers(dict(os.environ))
    options = ["-i", args.i, "-d", args.d, "-c", args.c, "-p", args.p, "-f", args.f, "-device", args.device]

    def predict(trainer: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as output:
            line = [stock_command("nnUNetv2_predict"), *options, "-o", output, "-tr", trainer, "-npp", "1", "-nps", "1"]
            return command(line, environment)

    arms = {name: (lambda trainer=trainer: predict(trainer)) for name, trainer in trainers.items()}
    runs = take_turns(arms, args.rounds)
    values = {name: {key: [run[key] for run in each] for key in each[0]} for name, each in runs.items()}
    ratio = {key: ratios(values["student"][key], values["stock"][key]) for key in ("wall", "cpu", "peak_mib")}
    rows = [
        (
            name,
            *(told(spread(value[key]), ".1f") for key in ("wall", "cpu", "peak_mib")),
            *map(str, models[name].values()),
        )
        for name, value in values.items()
    ]
    rows.append(("ratio", *(told(each, ".3f") for each in ratio.values()), *_exact(models)))
    header = ("model", "s", "CPU s", "MiB", "parameters", "checkpoint, bytes")
    file = args.json or RESULTS / f"prediction_{args.device}.json"
    report(table(header, rows), {"models": models, "runs": values, "ratio": ratio}, file, before)


def _exact(models: dict[str, dict[str, int]]) -> list[str]:
    return [f"{models['student'][key] / models['stock'][key]:.5f}" for key in ("parameters", "bytes")]


if __name__ == "__main__":
    main()
