"""The preprocessing hook against ``nnUNetv2_preprocess`` on the same cases: time of whole commands, disk space.

Runs both in turn. Both write into your nnUNet_preprocessed what is there already (the same content).

    python benchmarks/hook.py -d 101 -c 2d -np 2 --rounds 3 --json hook.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from nnunetv2_sikd.environment import stock_command
from nnunetv2_sikd.preprocessing.hook import copy_spec
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True)
    parser.add_argument("-c", default="2d")
    parser.add_argument("-np", default="2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    common = ["-d", args.d, "-c", args.c, "-np", args.np]
    commands = {
        "nnUNetv2_preprocess": [stock_command("nnUNetv2_preprocess"), *common],
        "nnUNetv2_sikd preprocess": [stock_command("nnUNetv2_sikd"), "preprocess", *common, "--overwrite"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)

    spec = copy_spec(PlannedConfiguration.load(args.d, args.c, "nnUNetPlans"))
    stock, ours = seconds.values()
    images, copies = (image_bytes(folder) for folder in (spec.source, spec.target))
    result = {
        "cases": len(list(spec.target.glob("*.pkl"))),
        "seconds": seconds,
        "time_ratio": statistics.median(b / a for a, b in zip(stock, ours, strict=True)),
        "image_bytes": images,
        "copy_bytes": copies,
        "space_ratio": copies / images,
        "cores": os.cpu_count(),
    }
    print("| command | median seconds |\n|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.1f} |")
    print(f"\nHook's time: {result['time_ratio']:.2f} of nnU-Net's. Copies: {result['space_ratio']:.1%} of the images.")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def image_bytes(folder: Path) -> int:
    """Size of the images, without labels and properties, which copies share with their source."""
    return sum(file.stat().st_size for file in folder.glob("*.b2nd") if not file.name.endswith("_seg.b2nd"))


if __name__ == "__main__":
    main()
