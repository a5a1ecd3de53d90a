"""Start-up: what is waited for before anything happens. Each in a fresh Python process, in turn.

python benchmarks/startup.py            # a minute
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from measuring import RESULTS, command, machine, report, spread, table, take_turns, told

from nnunetv2_sikd.environment import stock_command, with_trainers

LOOKUP = "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as f; print(f('{name}'))"
PYTHON, TORCH = "python, nothing imported", "import torch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "startup.json")
    args = parser.parse_args()
    before = machine()
    ours = stock_command("nnUNetv2_sikd")
    code = {
        PYTHON: "pass",
        "import nnunetv2_sikd": "import nnunetv2_sikd",
        "class_average of an array": "import numpy, nnunetv2_sikd as s; "
        "s.class_average(numpy.zeros((1, 1, 4)), numpy.zeros((1, 4), int))",
        "import of the preprocessing hook": "from nnunetv2_sikd import write_class_averages",
        "import of the benchmark's steps": "import nnunetv2_sikd.benchmark.plan",
        TORCH: TORCH,
        "look-up of nnUNetTrainer": LOOKUP.format(name="nnUNetTrainer"),
        "look-up of nnUNetTrainer_SIKDStudent": LOOKUP.format(name="nnUNetTrainer_SIKDStudent"),
    }
    lines = {
        "nnUNetv2_sikd --help": [ours, "--help"],
        "nnUNetv2_sikd train --help": [ours, "train", "--help"],
        "nnUNetv2_train --help": [stock_command("nnUNetv2_train"), "--help"],
        **{name: [sys.executable, "-c", text] for name, text in code.items()},
    }
    environment = with_trainers(dict(os.environ))
    arms = {name: (lambda line=line: command(line, environment)) for name, line in lines.items()}
    runs = take_turns(arms, args.rounds)
    values = {name: {key: [run[key] for run in each] for key in each[0]} for name, each in runs.items()}
    rows = [
        (f"`{name}`", *(told(spread(value[key])) for key in ("wall", "cpu")), f"{max(value['peak_mib']):.0f}")
        for name, value in values.items()
    ]
    report(table(("what", "s", "CPU s", "MiB"), rows), {"runs": values}, args.json, before)


if __name__ == "__main__":
    main()
