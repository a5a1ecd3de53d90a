"""What the benchmarks share: interleaved timing, medians with spread, Markdown tables, JSON with the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nnunetv2_sikd import __version__

RESULTS = Path(__file__).parents[1] / "docs" / "measurements"
PACKAGES = ("nnunetv2", "torch", "numpy", "blosc2")
KeyT = TypeVar("KeyT")
ResultT = TypeVar("ResultT")


def take_turns(
    arms: Mapping[KeyT, Callable[[], ResultT]], rounds: int, *, warmup: int = 1, shown: bool = True
) -> dict[KeyT, list[ResultT]]:
    """Call all arms in turn, round by round, so that what else the machine does hits all alike.

    Args:
        arms: What is compared.
        rounds: That are counted.
        warmup: Rounds before those.
        shown: Whether with a progress bar.
    """
    results: dict[KeyT, list[ResultT]] = {name: [] for name in arms}
    for number in tqdm(range(warmup + rounds), unit="round", disable=not shown):
        for name, arm in arms.items():
            result = arm()
            if number >= warmup:
                results[name].append(result)
    return results


def command(line: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Run a command to its end.

    Returns:
        Seconds: ``wall``, and ``cpu`` of all its processes; ``peak_mib``, resident memory of its largest process.

    Raises:
        SystemExit: It failed.
    """
    before, start = os.times(), time.perf_counter()
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    after, wall = os.times(), time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{said.decode(errors='replace')}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": wall, "cpu": cpu, "peak_mib": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, and how many."""
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0], "n": 1}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high, "n": len(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Spread of the ratios, round by round."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def told(value: Mapping[str, float], form: str = ".2f", factor: float = 1.0) -> str:
    """``median (low to high)``, the quartiles in parentheses."""
    median, low, high = (format(factor * value[key], form) for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})" if value["n"] > 1 else median


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {
        "python": platform.python_version(),
        "nnunetv2-sikd": __version__,
        **{package: version(package) for package in PACKAGES},
    }
    return {"processor": processor, "cores": os.cpu_count(), "load_of_last_minute": load, "versions": versions}


def report(text: str, result: Mapping[str, Any], file: Path, before: Mapping[str, Any]) -> None:
    """Print the tables and write the JSON.

    Args:
        text: Tables in Markdown.
        result: What was measured.
        file: JSON file.
        before: :func:`machine` when the benchmark began.
    """
    print(f"\n{text}\n")
    arguments = [Path(text).name if Path(text).is_absolute() else text for text in sys.argv[1:]]
    content = {"arguments": arguments, "machine": before, **result}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{file} written", file=sys.stderr)
