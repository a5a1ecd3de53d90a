"""The preprocessing hook against ``nnUNetv2_preprocess`` on the same cases: time of whole commands, memory, disk space.

Takes turns between both, over numbers of cases and of processes, in temporary folders with the raw cases and plans of
a data set that is planned: nothing of yours is written to.

    python benchmarks/hook.py -d 101 -c 2d          # four minutes on two cores for 160 cases of ACDC
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS, command, machine, ratios, report, spread, table, take_turns, told
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_sikd.environment import FOLDER_VARIABLES, stock_command
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration, dataset_id

STOCK, HOOK = "nnUNetv2_preprocess", "nnUNetv2_sikd preprocess"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True)
    parser.add_argument("-c", default="2d")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 40, 160])
    parser.add_argument("-np", type=int, nargs="+", default=powers_of_two(os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = machine()
    planned = PlannedConfiguration.load(args.d, args.c, args.p)
    raw = Path(os.environ["nnUNet_raw"]) / planned.dataset_name
    available = sorted(get_filenames_of_train_images_and_targets(str(raw), planned.dataset_json))
    most, processes = min(max(args.cases), len(available)), max(args.np)
    settings = sorted({(min(n, most), processes) for n in args.cases} | {(most, n) for n in args.np})
    with tempfile.TemporaryDirectory() as folder:
        trees = {
            number: Tree(Path(folder) / str(number), planned, available[:number]) for number in {n for n, _ in settings}
        }
        arms = {
            (*setting, name): (lambda setting=setting, name=name: trees[setting[0]].run(name, setting[1]))
            for setting in settings
            for name in (STOCK, HOOK)
        }
        smallest = trees[settings[0][0]]
        for name in (STOCK, HOOK):  # warm-up
            smallest.run(name, processes)
        measured = take_turns(arms, args.rounds, warmup=0)
        space = {number: tree.space() for number, tree in trees.items()}
    rows, results = [], []
    for number, workers in settings:
        runs = {name: measured[number, workers, name] for name in (STOCK, HOOK)}
        values = {name: {key: [run[key] for run in runs[name]] for key in runs[name][0]} for name in runs}
        ratio = {key: ratios(values[HOOK][key], values[STOCK][key]) for key in ("wall", "cpu", "peak_mib")}
        results.append({"cases": number, "processes": workers, "runs": values, "ratio": ratio, **space[number]})
        seconds = [told(spread(values[name][key]), ".1f") for key in ("wall", "cpu") for name in values]
        shares = [told(ratio[key]) for key in ("wall", "cpu")]
        memory = [f"{max(values[name]['peak_mib']):.0f}" for name in values]
        share = f"{space[number]['copy_bytes'] / space[number]['image_bytes']:.2%}"
        cells = [*seconds[:2], shares[0], *seconds[2:], shares[1], *memory, share]
        rows.append((str(number), str(workers), *cells))
    header = ["cases", "processes", "nnU-Net, s", "hook, s", "ratio", "nnU-Net, CPU s", "hook, CPU s", "ratio"]
    header += ["nnU-Net, MiB", "hook, MiB", "disk: copies to images"]
    file = args.json or RESULTS / f"hook_{args.c}.json"
    report(table(header, rows), {"data_set": planned.dataset_name, "settings": results}, file, before)


class Tree:
    """nnU-Net's folders with some cases of a data set, planned."""

    def __init__(self, folder: Path, planned: PlannedConfiguration, cases: Sequence[str]) -> None:
        folders = {name: folder / name for name in FOLDER_VARIABLES}
        for path in folders.values():
            (path / planned.dataset_name).mkdir(parents=True)
        self.environment = {**os.environ, **{name: str(path) for name, path in folders.items()}}
        self.common = ["-d", str(dataset_id(planned.dataset_name)), "-c", planned.name]
        self.plans = str(planned.plans_json["plans_name"])
        mine = Path(os.environ["nnUNet_preprocessed"]) / planned.dataset_name
        preprocessed = folders["nnUNet_preprocessed"] / planned.dataset_name
        self.source = preprocessed / planned.settings["data_identifier"]
        for name in ("dataset.json", "dataset_fingerprint.json", f"{self.plans}.json"):
            shutil.copy(mine / name, preprocessed / name)
        raw = Path(os.environ["nnUNet_raw"]) / planned.dataset_name
        linked = folders["nnUNet_raw"] / planned.dataset_name
        shutil.copy(raw / "dataset.json", linked)
        files = get_filenames_of_train_images_and_targets(str(raw), planned.dataset_json)
        for file in (Path(name) for case in cases for name in (*files[case]["images"], files[case]["label"])):
            target = linked / file.parent.name / file.name
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file.resolve())

    def copies(self) -> list[Path]:
        return list(self.source.parent.glob(f"{self.source.name}_SIKD_per_*"))

    def run(self, name: str, processes: int) -> dict[str, float]:
        """One whole command, from nothing."""
        for path in self.copies():
            shutil.rmtree(path)
        option = "-plans_name" if name == STOCK else "-p"
        line = [stock_command(name.split()[0]), *name.split()[1:], *self.common, option, self.plans]
        return command([*line, "-np", str(processes)], self.environment)

    def space(self) -> dict[str, Any]:
        """Size of images and copies, without labels and properties, which copies share with their source."""
        return {
            key: sum(file.stat().st_size for file in folder.glob("*.b2nd") if not file.name.endswith("_seg.b2nd"))
            for key, folder in (("image_bytes", self.source), ("copy_bytes", self.copies()[0]))
        }


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, … and the most."""
    return sorted({*(2**k for k in range(most.bit_length())), most})


if __name__ == "__main__":
    main()
