"""Images and label files that cannot be right, at every command that reads them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from tests.bad_input.damage import (
    as_folder,
    as_loop,
    both,
    copy,
    cut,
    geometry,
    header,
    image,
    move,
    remove,
    spacing,
    values,
    write,
)
from tests.bad_input.rows import Damage, Row

AVERAGE = "average -d 901 -i images -l labels -o averaged"
PREDICT = "predict -d 901 -f 0 -i images -o predicted -device cpu"
EVALUATE = "evaluate labels predictions -o measured"
PREPARE = "prepare -d 902"
RAW = "raw/Dataset902_Raw"


def _four_dimensions(array: np.ndarray) -> np.ndarray:
    return np.stack([array, array])


def _as_png(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x89PNG")


def image_rows(command: str, image_file: str, leaves: tuple[str, ...] = ()) -> list[Row]:
    """An image that is damaged, at a command that reads images."""

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(f"image {title}", command, (image_file, *says), damage, leaves=leaves)

    folder, name = image_file.rsplit("/", 1)
    case, ending = name.split("_0000")
    return [
        row("cut short", cut(image_file), "copy"),
        row("of zero bytes", write(image_file), "copy"),
        row("with another file's content", write(image_file, "no image\n"), "copy"),
        row("whose header has a wrong magic number", header(image_file, 344, "I", 0x21212121), "copy"),
        row("whose header claims more voxels than there are", header(image_file, 42, "h", 300), "copy"),
        row("that is a folder", as_folder(image_file)),
        row("that is a symbolic link to itself", as_loop(image_file)),
        row("with a fourth dimension", image(image_file, _four_dimensions), "dimension"),
        row("with NaN", values(image_file, np.nan, np.float32), "NaN"),
        row("with infinite values", values(image_file, np.inf, np.float32), "NaN or infinite"),
        row("with spacing 0", spacing(image_file, 0.0), "spacing"),
        row("with a spacing of 1e30 mm", spacing(image_file, 1e30), "spacing"),
        row("with a spacing that is NaN", spacing(image_file, np.nan), "spacing"),
        Row(
            "channel of a case missing",
            command,
            (f"{folder}/{case}_*{ending}", "has channels 0"),
            remove(f"{folder}/{case}_0001{ending}"),
            leaves=leaves,
        ),
        Row(
            "channel of a case too many",
            command,
            (f"{folder}/{case}_*{ending}", "has channels 0, 1, 2"),
            copy(image_file, f"{folder}/{case}_0002{ending}"),
            leaves=leaves,
        ),
        Row(
            "channels of one case with different sizes",
            command,
            (f"{folder}/{case}_0001{ending}", "shape"),
            image(f"{folder}/{case}_0001{ending}", lambda array: array[:, :-3]),
            leaves=leaves,
        ),
        Row(
            "image without a channel number",
            command,
            (f"{folder}/stray{ending}", "rename or move it"),
            copy(image_file, f"{folder}/stray{ending}"),
            leaves=leaves,
        ),
        Row(
            "case twice, in two formats",
            command,
            (f"{folder}/{case}_0000.png", ending),
            lambda here: _as_png(here, f"{folder}/{case}_0000.png"),
            leaves=leaves,
        ),
        Row(
            "case in another format than the others",
            command,
            (f"{folder}/extra_0000.nii", ending),
            write(f"{folder}/extra_0000.nii", "x"),
            leaves=leaves,
        ),
        Row("no images", command, (folder,), lambda here: (shutil.rmtree(here / folder), (here / folder).mkdir())),
        Row("folder of images missing", command, (folder, "no such folder"), remove(folder)),
        Row("folder of images a symbolic link to itself", command, (folder, "no such folder"), as_loop(folder)),
        Row("folder of images a file", command, (folder, "no such folder"), both(remove(folder), write(folder, "x"))),
    ]


def label_rows(command: str, label_file: str, leaves: tuple[str, ...] = ()) -> list[Row]:
    """A label file that is damaged, at a command that reads labels."""

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(f"label file {title}", command, (label_file, *says), damage, leaves=leaves)

    return [
        row("cut short", cut(label_file)),
        row("of zero bytes", write(label_file)),
        row("with another file's content", write(label_file, "no image\n")),
        row("that is a folder", as_folder(label_file)),
        row("that is a symbolic link to itself", as_loop(label_file)),
        row("with a fourth dimension", image(label_file, lambda array: np.stack([array, array]))),
        row("with a value that dataset.json does not have", values(label_file, 7, np.uint8), "7"),
        row("with a negative value", values(label_file, -1, np.int16), "-1"),
        row("with the fraction 1.5", values(label_file, 1.5, np.float32), "1.5"),
        row("with NaN", values(label_file, np.nan, np.float32), "NaN"),
        row("with 2⁶⁴ − 1, beyond int64", values(label_file, 2**64 - 1, np.uint64)),
        row("with 2³² + 1, which is 1 in 32 bits", values(label_file, 2**32 + 1, np.uint64)),
        row("of another shape", image(label_file, lambda array: array[:, :-3]), "shape"),
        row("with another spacing", geometry(label_file, spacing=(1.0, 1.0, 4.0)), "spacing"),
        row("with a spacing of 1e30 mm", spacing(label_file, 1e30), "spacing"),
    ]


def _compared(row: Row) -> Row:
    """Of two files that do not fit each other, evaluation names the prediction."""
    if row.title.endswith(("another shape", "another spacing")):
        return dataclasses.replace(row, says=("predictions/b.nii.gz", *row.says[1:]))
    return row


def rows() -> list[Row]:
    """All of this file."""
    kept = ("averaged", "averaged/a_*.nii.gz", "averaged/averaged_with.json")
    return [
        *image_rows(AVERAGE, "images/b_0000.nii.gz", kept),
        *label_rows(AVERAGE, "labels/b.nii.gz", kept),
        Row(
            "label file with another origin",
            AVERAGE,
            ("labels/b.nii.gz", "origin"),
            geometry("labels/b.nii.gz", origin=(30.0, 0.0, 0.0)),
            leaves=kept,
        ),
        Row("label file missing", AVERAGE, ("labels/b.nii.gz",), remove("labels/b.nii.gz"), leaves=kept),
        Row("folder of labels missing", AVERAGE, ("labels", "no such folder"), remove("labels")),
        *image_rows(PREDICT, "images/b_0000.nii.gz"),
        *image_rows(PREPARE, f"{RAW}/imagesTr/case_01_0000.nii.gz"),
        *label_rows(PREPARE, f"{RAW}/labelsTr/case_01.nii.gz"),
        Row(
            "label file missing", PREPARE, (f"{RAW}/labelsTr/case_01.nii.gz",), remove(f"{RAW}/labelsTr/case_01.nii.gz")
        ),
        *[_compared(each) for each in label_rows(EVALUATE, "labels/b.nii.gz")],
        *[
            Row(each.title.replace("label file", "prediction"), each.command, each.says, each.damage)
            for each in label_rows(EVALUATE, "predictions/b.nii.gz")
        ],
        Row(
            "prediction with another origin",
            EVALUATE,
            ("predictions/b.nii.gz", "origin"),
            geometry("predictions/b.nii.gz", origin=(30.0, 0.0, 0.0)),
        ),
        Row("prediction missing", EVALUATE, ("predictions", "b"), remove("predictions/b.nii.gz")),
        Row(
            "no prediction of any reference",
            EVALUATE,
            ("predictions",),
            both(move("predictions/a.nii.gz", "predictions/c.nii.gz"), remove("predictions/b.nii.gz")),
        ),
        Row(
            "label file in another format than the others",
            EVALUATE,
            ("labels/b.nii", ".nii.gz"),
            move("labels/b.nii.gz", "labels/b.nii"),
        ),
        Row(
            "folder of references missing",
            EVALUATE + " -gt_djfile predictions/dataset.json",
            ("labels", "no such folder"),
            remove("labels"),
        ),
        Row(
            "folder of predictions a symbolic link to itself",
            EVALUATE + " -djfile labels/dataset.json",
            ("predictions", "no such folder"),
            as_loop("predictions"),
        ),
        Row("references as predictions", "evaluate labels labels -o measured", ("labels", "both")),
    ]
