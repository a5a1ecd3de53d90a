"""Why a student is as it is: its two losses while it learns, and what it has learnt from its teacher.

``gradients`` trains students again, in a temporary folder, with teachers that are there, and every few steps compares
the gradient of the segmentation loss with that of the distillation. ``features`` looks at trained students.

    python benchmarks/distillation.py gradients -d 101 -c 2d -tr nnUNetTrainer_SIKDStudent_20epochs [another ...]
    python benchmarks/distillation.py features -d 101 -c 2d -tr nnUNetTrainer_SIKDStudent_20epochs [another ...]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rcdefaults
from matplotlib.figure import Figure
from measuring import RESULTS, machine, report, table
from scipy.ndimage import distance_transform_edt, uniform_filter1d
from tqdm import tqdm

from nnunetv2_sikd.commands.arguments import fold
from nnunetv2_sikd.distillation.loss import feature_variance, unexplained_variance
from nnunetv2_sikd.environment import with_trainers
from nnunetv2_sikd.figures.cases import class_names, validation_cases
from nnunetv2_sikd.figures.drawing import new_figure, save_figure
from nnunetv2_sikd.figures.networks import load_networks
from nnunetv2_sikd.figures.slice_features import slice_features
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.training import fold_folder

# A feature that varies less than this share of the most variable one tells the student nothing.
_LIVING = 0.01
_BORDER = 1.5  # pixels
_SMOOTHED = 5  # looks
_NETWORKS = ("teacher", "student", "stock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gradients", "features"))
    parser.add_argument("-d", required=True, metavar="DATASET")
    parser.add_argument("-c", default="2d", metavar="CONFIGURATION")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS")
    parser.add_argument("-f", type=fold, default=0, metavar="FOLD")
    parser.add_argument("-tr", nargs="+", required=True, metavar="TRAINER")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda", "mps"))
    parser.add_argument("--every", type=int, default=25, help="steps between two looks at the gradients")
    parser.add_argument("--steps", type=int, help="end each training after so many (default: at its own end)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    os.environ.update(with_trainers())
    before = machine()
    planned = PlannedConfiguration.load(args.d, args.c, args.p)
    measure, draw = (watch, draw_watched) if args.what == "gradients" else (look, draw_looked)
    found = {trainer: measure(planned, trainer, args) for trainer in args.tr}
    header, rows = rows_of(found)
    file = args.json or RESULTS / f"distillation_{args.what}.json"
    report(table(header, rows), {"students": found}, file, before)
    if args.figure:
        rcdefaults()  # nnU-Net's own pictures leave their style behind
        save_figure(draw(found), args.figure)


# -------------------------------------------------------------------- while it learns


def watch(planned: PlannedConfiguration, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train a student and look at its gradients on the way.

    Returns:
        Lists with one value a look: ``step``, both losses (distillation times α), lengths of their gradients on the
        weights before the last layer, the cosine between them, and variance and unexplained share of the teacher's
        features.
    """
    from nnunetv2.run.run_training import get_trainer_from_args

    teacher = fold_folder(planned, getattr(variants, name).teacher_class.__name__, args.f)
    results = os.environ["nnUNet_results"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["nnUNet_results"] = folder
        link = Path(folder) / teacher.relative_to(results)
        link.parent.mkdir(parents=True)
        link.symlink_to(teacher)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = get_trainer_from_args(args.d, args.c, args.f, name, args.p, device=torch.device(args.device))
                looks = _Looks(trainer, args.every, args.steps)
                with contextlib.suppress(StopIteration):
                    trainer.run_training()
        finally:
            os.environ["nnUNet_results"] = results
    return looks.found


class _Looks:
    """Stands in front of a trainer's ``train_step``."""

    def __init__(self, trainer: Any, every: int, steps: int | None) -> None:
        self.found: dict[str, list[float]] = {}
        self.trainer, self.every, self.step = trainer, every, 0
        self.train: Callable[..., Any] = trainer.train_step
        self.last = steps or trainer.num_epochs * trainer.num_iterations_per_epoch
        self.bar = tqdm(total=self.last, unit="step")
        trainer.train_step = self

    def __call__(self, batch: dict[str, Any]) -> Any:
        if self.step == self.last:
            raise StopIteration
        if self.step % self.every == 0:
            self._look(batch)
        self.step += 1
        self.bar.update()
        return self.train(batch)

    def _look(self, batch: dict[str, Any]) -> None:
        trainer = self.trainer
        data, target = trainer._to_device(batch)
        image, teacher_input, weights = trainer._teacher_input(data, target)
        teacher = trainer.teacher.features(teacher_input)
        parameters = [parameter for name, parameter in trainer.network.named_parameters() if "seg_layers" not in name]
        maps: list[torch.Tensor] = []
        handle = trainer.network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, x: maps.append(x[0]))
        trainer.loss.expect(teacher, weights)
        output = trainer.network(image)
        handle.remove()
        total = trainer.loss(output, target)
        trainer.loss.forget()
        segmentation = trainer.loss(output, target)

        def gradient(loss: torch.Tensor) -> torch.Tensor:
            parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            return torch.cat([part.flatten() for part in parts if part is not None])

        towards_both, towards_labels = gradient(total), gradient(segmentation)
        towards_teacher = towards_both - towards_labels
        values = {
            "step": self.step,
            "segmentation_loss": segmentation.item(),
            "weighted_distillation_loss": (total - segmentation).item(),
            "segmentation_gradient": towards_labels.norm().item(),
            "distillation_gradient": towards_teacher.norm().item(),
            "cosine": torch.cosine_similarity(towards_labels, towards_teacher, dim=0).item(),
            "teacher_variance": feature_variance(teacher, weights).item(),
            "unexplained": unexplained_variance(maps[0].detach(), teacher, weights).item(),
        }
        for key, value in values.items():
            self.found.setdefault(key, []).append(value)


def draw_watched(found: dict[str, dict[str, Any]]) -> Figure:
    """Losses, gradients' shares and directions over the training, one line a student."""
    figure = new_figure(11, 3.2)
    panels = figure.subplots(1, 3)
    smoothed = partial(uniform_filter1d, size=_SMOOTHED, mode="nearest")
    for number, (name, looks) in enumerate(found.items()):
        colour = f"C{number}"
        steps = looks["step"]
        share = np.divide(
            looks["distillation_gradient"], np.add(looks["segmentation_gradient"], looks["distillation_gradient"])
        )
        panels[0].plot(steps, smoothed(looks["weighted_distillation_loss"]), color=colour, label=short(name))
        panels[0].plot(steps, smoothed(looks["segmentation_loss"]), color=colour, linestyle=":")
        panels[1].plot(steps, smoothed(share), color=colour)
        panels[2].plot(steps, smoothed(looks["cosine"]), color=colour)
    panels[0].set(title="α · distillation loss; dotted: segmentation loss", xlabel="step")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    panels[1].set(title="distillation's share of the gradients", xlabel="step", ylim=(0, 1))
    panels[1].axhline(0.5, color="grey", linewidth=0.5)
    panels[2].set(title="cosine between both gradients", xlabel="step")
    panels[2].axhline(0, color="grey", linewidth=0.5)
    for axes in panels:
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


# -------------------------------------------------------------------- what it has learnt


def look(planned: PlannedConfiguration, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One slice of each validation case, as teacher, student and stock network see it.

    Returns:
        ``features`` and how many of them live in the ``teacher``, ``student`` and ``stock``; the ``unexplained`` share
        of the teacher's variance by network; shares of a network's own variance: ``rough``, what neighbouring pixels
        differ by (1 for white noise), and ``within_classes``; by class, inside and at its border, shares of the pixels
        and of the squared error, and the error itself.
    """
    networks = load_networks(planned, args.f, name, device=args.device)
    maps: dict[str, list[np.ndarray]] = {}
    differences: dict[str, np.ndarray] = {}
    labels: list[np.ndarray] = []
    regions: dict[str, np.ndarray] = {}
    names = class_names(planned)
    for case in tqdm(validation_cases(planned, args.f), desc=short(name), unit="case"):
        view = slice_features(planned, networks, case)
        for network, features in view.features.items():
            maps.setdefault(network, []).append(features[:, view.counted])
            differences[network] = differences.get(network, np.zeros(2)) + _neighbours(features, view.counted)
        labels.append(view.label[view.counted])
        error = np.square(view.features["teacher"] - view.features["student"]).mean(0)
        for value, title in names.items():
            inside = view.label == value
            border = distance_transform_edt(inside) <= _BORDER
            for where, chosen in ((title, inside & ~border), (f"{title}, border", inside & border)):
                chosen &= view.counted
                sums = regions.setdefault(where, np.zeros(2))
                sums += (chosen.sum(), error[chosen].sum())
    joined = {network: np.concatenate(parts, 1) for network, parts in maps.items()}
    pixels, errors = np.sum(list(regions.values()), 0)
    variances = {network: each.var(1) for network, each in joined.items()}
    as_maps = {network: torch.from_numpy(each)[None] for network, each in joined.items()}
    classes = np.concatenate(labels)
    return {
        "features": len(joined["teacher"]),
        "living": {network: int((each > _LIVING * each.max()).sum()) for network, each in variances.items()},
        "teacher_variance": float(variances["teacher"].mean()),
        "mse": float(errors / pixels),
        "unexplained": {
            network: unexplained_variance(each, as_maps["teacher"]).item()
            for network, each in as_maps.items()
            if network != "teacher"
        },
        "rough": {
            network: float(total / number / (2 * variances[network].mean()))
            for network, (total, number) in differences.items()
        },
        "within_classes": {network: _within(each, classes) for network, each in joined.items()},
        "regions": {
            where: {"pixels": float(n / pixels), "share": float(e / errors), "mse": float(e / max(n, 1))}
            for where, (n, e) in regions.items()
        },
    }


def _neighbours(features: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Sum and number of the squared differences of features ``(C, H, W)`` between counted pixels side by side."""
    total, number = 0.0, 0
    for axis in (0, 1):
        ahead = np.moveaxis(counted, axis, 0)
        squares = np.square(np.diff(np.moveaxis(features, axis + 1, 1), axis=1))[:, ahead[1:] & ahead[:-1]]
        total, number = total + squares.sum(), number + squares.size
    return np.array([total, number])


def _within(features: np.ndarray, classes: np.ndarray) -> float:
    """Share of the variance of features ``(C, N)`` that is left around the means of the classes ``(N,)``."""
    left = sum(
        np.square(part - part.mean(1, keepdims=True)).sum()
        for part in (features[:, classes == value] for value in np.unique(classes))
    )
    return float(left / np.square(features - features.mean(1, keepdims=True)).sum())


def draw_looked(found: dict[str, dict[str, Any]]) -> Figure:
    """Where the squared error lies: share of the pixels beside share of the error, one panel a student."""
    figure = new_figure(3.6 * len(found) + 1, 3.2)
    for axes, (name, looked) in zip(
        np.atleast_1d(figure.subplots(1, len(found), sharey=True)), found.items(), strict=True
    ):
        rows = np.arange(len(looked["regions"]))
        for shift, key, colour in ((-0.2, "pixels", "#999999"), (0.2, "share", "#D55E00")):
            values = [100 * region[key] for region in looked["regions"].values()]
            axes.barh(rows + shift, values, 0.4, color=colour, label={"share": "error"}.get(key, key))
        axes.set(yticks=rows, yticklabels=list(looked["regions"]), xlabel="share, %", title=short(name))
        axes.title.set_fontsize(8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.axes[0].legend(frameon=False)
    return figure


# -------------------------------------------------------------------- report


def rows_of(found: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Table of either measurement."""
    first = next(iter(found.values()))
    rows = []
    if "step" in first:
        header = ["student", "distillation's share of the gradients: first tenth", "middle", "last", "cosine, mean"]
        for name, looks in found.items():
            own, taught = np.array(looks["segmentation_gradient"]), np.array(looks["distillation_gradient"])
            share = np.array_split(taught / (own + taught), 10)
            told = [f"{share[i].mean():.2f}" for i in (0, 5, 9)]
            rows.append([short(name), *told, f"{np.mean(looks['cosine']):.2f}"])
        return header, rows
    header = ["student", "living features: teacher", "student", "stock", "MSE", "teacher's variance"]
    header += [
        "unexplained by the student",
        "by stock",
        *(f"{what}: {network}" for what in ("rough", "within classes") for network in _NETWORKS),
    ]
    for name, looked in found.items():
        living = [f"{looked['living'].get(network, '–')}" for network in _NETWORKS]
        left = [looked["unexplained"].get(network) for network in ("student", "stock")]
        rows.append(
            [
                short(name),
                f"{living[0]} of {looked['features']}",
                *living[1:],
                f"{looked['mse']:.3f}",
                f"{looked['teacher_variance']:.3f}",
                *("–" if value is None else f"{value:.3f}" for value in left),
                *(
                    f"{looked[what][network]:.2f}" if network in looked[what] else "–"
                    for what in ("rough", "within_classes")
                    for network in _NETWORKS
                ),
            ]
        )
    return header, rows


def short(name: str) -> str:
    """A trainer's name without what all have in common."""
    return re.sub(r"_\d+epochs.*", "", name.removeprefix("nnUNetTrainer_"))


if __name__ == "__main__":
    main()
