"""Class averaging against a loop over the classes, and against reading the image once, which nothing can beat.

Takes turns between them on label maps of nested structures with noise in the image, over sizes and numbers of classes.
On a CPU: processor time of one core, which other programs disturb less than they do the clock on the wall.

    python benchmarks/averaging.py                      # a CPU, less than a minute
    python benchmarks/averaging.py -device cuda
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import RESULTS, machine, ratios, report, spread, table, take_turns, told

from nnunetv2_sikd.averaging import class_average

SETTINGS = {  # batch, channels, spatial; classes
    "8 × 128 × 112": ((8, 1, 128, 112), (4,)),
    "12 × 256 × 256": ((12, 1, 256, 256), (2, 4, 16, 64)),
    "12 × 512 × 512": ((12, 1, 512, 512), (4,)),
    "12 × 256 × 256, 4 channels": ((12, 4, 256, 256), (4,)),
    "2 × 96 × 160 × 160": ((2, 1, 96, 160, 160), (4,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before, rows, settings = machine(), [], []
    torch.set_num_threads(1)
    for name, (shape, numbers) in SETTINGS.items():
        for classes in numbers:
            image, label = nested(shape, classes)
            seconds = measure(image.to(args.device), label.to(args.device), classes, args.rounds)
            loop, reading = (ratios(seconds["operation"], seconds[other]) for other in ("loop", "reading"))
            per_value = spread([second / image.numel() for second in seconds["operation"]])
            settings.append({"shape": shape, "classes": classes, "seconds": seconds, "to_loop": loop})
            settings[-1]["to_reading"] = reading
            milliseconds = told(spread(seconds["operation"]), ".2f", 1e3)
            cells = (milliseconds, told(per_value, ".2f", 1e9), told(loop), told(reading, ".1f"))
            rows.append((name, str(classes), *cells))
    header = ("batch", "classes", "ms", "ns per value", "time to a loop's", "time to reading once")
    device = torch.cuda.get_device_name() if args.device == "cuda" else before["processor"]
    result = {"device": device, "settings": settings}
    report(table(header, rows), result, args.json or RESULTS / f"averaging_{args.device}.json", before)


def measure(image: torch.Tensor, label: torch.Tensor, classes: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round; all get the same tensors."""
    expected = by_loop(image, label, classes)
    torch.testing.assert_close(class_average(image, label, num_labels=classes), expected, rtol=1e-5, atol=1e-5)
    arms: dict[str, Callable[[], torch.Tensor]] = {
        "operation": lambda: class_average(image, label, num_labels=classes),
        "loop": lambda: by_loop(image, label, classes),
        "reading": lambda: image.sum(),
    }
    return take_turns({name: timed(arm, image.device) for name, arm in arms.items()}, rounds, warmup=2, shown=False)


def timed(function: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], float]:
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def run() -> float:
        for _ in range(2 if device.type == "cuda" else 1):
            synchronise(device)
            start = clock()
            function()
            synchronise(device)
        return clock() - start

    return run


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def by_loop(image: torch.Tensor, label: torch.Tensor, classes: int) -> torch.Tensor:
    """What one writes down first: image by image, class by class, channel by channel."""
    result = torch.zeros_like(image)
    for number in range(len(image)):
        for value in range(classes):
            pixels = label[number, 0] == value
            if pixels.any():
                for channel in range(image.shape[1]):
                    result[number, channel][pixels] = image[number, channel][pixels].mean()
    return result


def nested(shape: tuple[int, ...], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nested ellipses around a point near the middle, in noise."""
    random = np.random.default_rng(0)
    batch, _, *spatial = shape
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in spatial), indexing="ij")
    labels = []
    for _ in range(batch):
        distance = np.sqrt(sum((axis - random.uniform(-0.2, 0.2)) ** 2 for axis in axes))
        labels.append(np.clip((0.8 - distance) / 0.8 * classes, 0, classes - 1).astype(np.int16))
    image = random.normal(size=shape).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(np.stack(labels)[:, None])


if __name__ == "__main__":
    main()
