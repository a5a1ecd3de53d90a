"""Many small trainings on a CPU: one at a time or one per core, as nnU-Net starts them or with one thread each.

Stock trainings of a preprocessed data set, ended after a few epochs; what counts is how many epochs the machine
finishes in a minute.

    python benchmarks/side_by_side.py -d 101 -c 2d_3mm_80_f8            # five minutes
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from measuring import RESULTS, machine, report, spread, table, told

from nnunetv2_sikd.environment import stock_command, with_trainers

ONE_THREAD = {"OMP_THREAD_LIMIT": "1", "nnUNet_n_proc_DA": "0"}
# glibc gives large blocks back to the system after each use, which has to clear them again for the next.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
EPOCH_TIME = re.compile(r"Epoch time: ([0-9.]+) s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", default="101", help="preprocessed data set")
    parser.add_argument("-c", default="2d", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans")
    parser.add_argument("--iterations", type=int, default=150, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="of each training; the first does not count")
    parser.add_argument("--json", type=Path, default=RESULTS / "side_by_side.json")
    args = parser.parse_args()
    before, cores = machine(), os.cpu_count() or 1
    arms: dict[str, tuple[int, dict[str, str]]] = {
        "one at a time, as nnU-Net starts it": (1, {}),
        f"{cores} at once, as nnU-Net starts them": (cores, {}),
        f"{cores} at once, one thread each": (cores, ONE_THREAD),
        f"{cores} at once, one thread each, memory kept": (cores, ONE_THREAD | KEPT_MEMORY),
    }
    runs = {name: epochs(args, number, settings) for name, (number, settings) in arms.items()}
    rates = {name: 60 * arms[name][0] / spread(seconds)["median"] for name, seconds in runs.items()}
    first = next(iter(rates.values()))
    rows = [
        [name, told(spread(seconds), ".1f"), f"{rates[name]:.1f}", f"{rates[name] / first:.2f}"]
        for name, seconds in runs.items()
    ]
    text = table(["trainings", "s per epoch", "epochs per minute", "of the first's"], rows)
    report(text, {"seconds per epoch": runs}, args.json, before)


def epochs(args: argparse.Namespace, number: int, settings: dict[str, str]) -> list[float]:
    """Seconds of the epochs of so many trainings at once, without the first epoch of each."""
    with tempfile.TemporaryDirectory() as folder:
        environment = with_trainers({**os.environ, "nnUNet_results": folder, "nnUNet_compile": "f", **settings})
        trainings = []
        try:
            for seed in range(number):
                trainer = f"nnUNetTrainer_seed{seed}_1000epochs_{args.iterations}iterations"
                line = [stock_command("nnUNetv2_train"), args.d, args.c, "0", "-p", args.p, "-tr", trainer]
                with (Path(folder) / f"{seed}.txt").open("w") as said:
                    trainings.append(
                        subprocess.Popen(
                            [*line, "-device", "cpu"],
                            env=environment,
                            stdout=said,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
            while True:
                time.sleep(1)
                texts = [(Path(folder) / f"{seed}.txt").read_text() for seed in range(number)]
                found = [[float(seconds) for seconds in EPOCH_TIME.findall(text)] for text in texts]
                if min(map(len, found)) >= args.epochs:
                    return [seconds for each in found for seconds in each[1 : args.epochs]]
                if any(training.poll() is not None for training in trainings):
                    raise SystemExit("a training ended too early:\n" + "\n".join(text[-2000:] for text in texts))
        finally:
            for training in trainings:
                with suppress(ProcessLookupError):
                    os.killpg(training.pid, signal.SIGKILL)
                training.wait()


if __name__ == "__main__":
    main()
