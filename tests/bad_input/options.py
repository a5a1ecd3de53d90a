"""Command lines and folders that cannot be right."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.damage import as_loop, both, copy, put, read_only, remove, setting, unset, write
from tests.bad_input.images import AVERAGE, EVALUATE, PREDICT
from tests.bad_input.rows import Damage, Row
from tests.bad_input.text_files import (
    BENCHMARK,
    EXPORT,
    FIGURES,
    FOLDER,
    PREPROCESS,
    REPORT,
    SPLITS,
    STOCK_STUDENT,
    STOCK_TEACHER,
    STRESS,
    TRAIN,
)
from tests.bad_input.workspace import STUDENT, TEACHER, TINY

_WITH_DATASET = ("prepare -d 901", PREPROCESS, TRAIN, PREDICT, FIGURES, STRESS, EXPORT, AVERAGE)
_CHOICES = (r"(?<=\()choose from .*(?=\))",)


def parser_rows() -> list[Row]:
    """Options that are refused: by argparse, with status 2, or for what the data are."""

    def row(title: str, command: str, *says: str) -> Row:
        return Row(title, command, says, status=2, library=_CHOICES)

    return [
        row("data set missing", "prepare", "-d"),
        row("spacing that is no number", "prepare -d 901 --base 2d --spacing thick", "--spacing", "thick"),
        row("batch size 0", "prepare -d 901 --base 2d --batch_size 0", "'0' is no whole number of at least 1"),
        row("process number negative", "preprocess -d 901 -np -1", "'-1' is no whole number of at least 1"),
        row("process number 0", "preprocess -d 901 -np 0", "'0' is no whole number of at least 1"),
        row("process number a word", "preprocess -d 901 -np many", "'many' is no whole number of at least 1"),
        row("process number a raised two", "preprocess -d 901 -np ²", "'²' is no whole number of at least 1"),
        row("preview of 1.5 cases", "preprocess -d 901 --preview 1.5", "'1.5' is no whole number"),
        row("fold missing", "train -d 901", "-f"),
        row("fold negative", "train -d 901 -f -1", "'-1' is neither a fold's number nor 'all'"),
        row("fold a word", "train -d 901 -f first", "'first' is neither a fold's number nor 'all'"),
        row("device unknown", "train -d 901 -f 0 -device tpu", "'tpu'"),
        row("option unknown", "train -d 901 -f 0 --epochs 3", "--epochs"),
        row("output missing", "predict -d 901 -f 0 -i images", "-o"),
        row("tolerance negative", "evaluate labels predictions --tolerance -1", "'-1' is no number of at least 0"),
        row("tolerance infinite", "evaluate labels predictions --tolerance inf", "'inf' is no number of at least 0"),
        row("predictions missing", "evaluate labels", "PRED_FOLDER"),
        row("slice negative", "figures -d 901 -f 0 -o figures --slice -1", "'-1' is no slice's number"),
        row("trainer missing", "stress -d 901 -f 0 -o stressed", "-tr"),
        row("no severity", f"{STRESS} --severities 0", "'0' is no whole number of at least 1"),
        row("patient no regular expression", f"{STRESS} --patient [", "'[' is no regular expression"),
        Row("patient in no name", f"{STRESS} --patient nobody", ("finds none in the case",)),
        row("seed a word", "benchmark tiny.yaml --seeds one", "'one'"),
        row("file missing", "report", "BENCHMARK"),
        row("zip missing", "export -d 901", "-o"),
        row("labels missing", "average -d 901 -i images -o averaged", "-l"),
        row("device unknown", "demo -device tpu", "'tpu'"),
        row("argument that it has not", "doctor everything", "everything"),
        row("no such command", "distill", "'distill'"),
    ]


def dataset_rows() -> list[Row]:
    """Data sets, configurations and plans that are not there."""
    rows = []
    for command in _WITH_DATASET:
        rows += [
            Row("data set id unknown", command.replace("-d 901", "-d 777"), ("data set 777 is in none of",)),
            Row(
                "data set name unknown",
                command.replace("-d 901", "-d Dataset777_Nowhere"),
                ("Dataset777_Nowhere", "not there"),
            ),
            Row(
                "data set id of two data sets",
                command,
                ("901", "more than one"),
                lambda folder: (folder / "raw" / "Dataset901_Twin").mkdir(),
            ),
            Row(
                "nnU-Net's folder not set",
                command,
                ("nnUNet_", "is not set"),
                both(unset("nnUNet_preprocessed"), unset("nnUNet_results")),
            ),
        ]
        if "export" not in command:
            rows += [
                Row(
                    "configuration unknown",
                    f"{command} -c 4d",
                    ("nnUNetPlans.json", "has no configuration '4d'; choose one of"),
                ),
                Row("plans unknown", f"{command} -p myPlans", ("myPlans.json", "not there")),
            ]
    rows += [
        Row("data set name negative", "preprocess -d Dataset-1_x", ("Dataset-1_x",)),
        Row("data set name empty", "preprocess -d ''", ("data set",)),
        Row("data set id a fraction", "preprocess -d 901.0", ("data set 901.0",)),
        Row(
            "nnU-Net's folder a file",
            PREPROCESS,
            ("notes.txt", "it is no folder"),
            both(write("notes.txt"), lambda folder: setting("nnUNet_preprocessed", str(folder / "notes.txt"))(folder)),
        ),
        Row(
            "nnU-Net's folder a symbolic link to itself",
            PREPROCESS,
            ("loop", "it is no folder"),
            both(as_loop("loop"), lambda folder: setting("nnUNet_preprocessed", str(folder / "loop"))(folder)),
        ),
    ]
    return rows


def fold_rows() -> list[Row]:
    return [
        Row("fold 99", TRAIN.replace("-f 0", "-f 99"), (SPLITS, "fold 99 is not in", "folds 0 to 2")),
        Row(
            "fold 99, and no splits_final.json yet",
            TRAIN.replace("-f 0", "-f 99"),
            ("fold 99 is not in", "folds 0 to 4"),
            remove(SPLITS),
        ),
        Row("fold 99", FIGURES.replace("-f 0", "-f 99"), (f"results/{TINY}", "run nnUNetv2_sikd train")),
        Row("fold 99", PREDICT.replace("-f 0", "-f 99"), ("fold_99", "has no finished training")),
        Row("fold 99", EXPORT.replace("-f 0", "-f 99"), ("fold_99", "not there")),
        Row("fold named twice", EXPORT.replace("-f 0", "-f 0 0"), ("-f 0 0", "names a fold twice")),
        Row(
            "trainer unknown",
            f"{TRAIN} -tr nnUNetTrainer_SIKDStudnet",
            ("-tr nnUNetTrainer_SIKDStudnet", "doctor lists them"),
        ),
        Row("trainer of nobody", f"{TRAIN} -tr nnUNetTrainerOfNobody", ("-tr nnUNetTrainerOfNobody",)),
        Row("trainer with a folder in its name", f"{TRAIN} -tr ../nnUNetTrainer", ("-tr ../nnUNetTrainer",)),
        Row(
            "trainer unknown",
            f"{PREDICT} -tr nnUNetTrainer_SIKDStudnet",
            ("nnUNetTrainer_SIKDStudnet", "has no finished training"),
        ),
        Row(
            "trainer that is no student's",
            f"{FIGURES} -tr nnUNetTrainer",
            ("-tr nnUNetTrainer", "no student's trainer"),
        ),
        Row(
            "teacher to export",
            f"{EXPORT} -tr {TEACHER}",
            (f"{TEACHER}__nnUNetPlans__2d/fold_0/checkpoint_final.pth", "holds a teacher", "export its student"),
        ),
        Row(
            "stock network to export",
            f"{EXPORT} -tr nnUNetTrainer",
            ("nnUNetTrainer__nnUNetPlans__2d/fold_0/checkpoint_final.pth", "nnUNetv2_export_model_to_zip"),
        ),
        Row(
            "progress.png of the fold missing",
            EXPORT,
            ("fold_0/progress.png", "not there"),
            remove(f"results/{TINY}/{STUDENT}__nnUNetPlans__2d/fold_0/progress.png"),
        ),
        Row(
            "plans.json of the model missing",
            EXPORT,
            ("plans.json", "not there"),
            remove(f"results/{TINY}/{STUDENT}__nnUNetPlans__2d/plans.json"),
        ),
        Row("case unknown", f"{FIGURES} --case nobody", ("nnUNetPlans_2d", "has no case 'nobody'")),
        Row("slice beyond the case", f"{FIGURES} --slice 99", ("--slice 99", "has slices 0 to 3")),
        Row(
            "GPU that is not there",
            "train -d 901 -f 0 -device cuda",
            ("-device cuda: PyTorch finds none",),
            remove(f"results/{TINY}/{STUDENT}__nnUNetPlans__2d"),
        ),
        Row(
            "GPU that is not there",
            "predict -d 901 -f 0 -i images -o predicted -device cuda",
            ("-device cuda: PyTorch finds none",),
        ),
        Row("GPU that is not there", f"{FIGURES} -device cuda", ("-device cuda: PyTorch finds none",)),
        Row("GPU that is not there", STRESS.replace("cpu", "cuda"), ("-device cuda: PyTorch finds none",)),
        Row("fold 99", STRESS.replace("-f 0", "-f 99"), ("fold_99", "not trained to its end")),
        Row("fold of all cases", STRESS.replace("-f 0", "-f all"), ("-f all", "name a fold's number")),
        Row("teacher", STRESS.replace(STUDENT, TEACHER), (f"-tr {TEACHER}", "is a teacher")),
        Row(
            "trainer unknown",
            STRESS.replace(STUDENT, "nnUNetTrainer_SIKDStudnet"),
            ("nnUNetTrainer_SIKDStudnet", "not trained to its end"),
        ),
        Row(
            "raw label of a validation case missing",
            STRESS,
            (f"raw/{TINY}", "no label of validation case case_00"),
            remove(f"raw/{TINY}/labelsTr/case_00.nii.gz"),
        ),
        Row(
            "raw image of a validation case damaged",
            STRESS,
            (f"raw/{TINY}/imagesTr/case_00_0000.nii.gz", "cut short"),
            write(f"raw/{TINY}/imagesTr/case_00_0000.nii.gz", "no image"),
        ),
        Row(
            "scores in the folder that nobody knows",
            STRESS,
            ("stressed/stress.csv", "belongs to no stress.json"),
            write("stressed/stress.csv", "case,dice"),
            leaves=("stressed/.lock",),
        ),
        Row(
            "record of the scores damaged",
            STRESS,
            ("stressed/stress.json", "damaged"),
            write("stressed/stress.json", "[]"),
            leaves=("stressed/.lock",),
        ),
        Row("GPU that is not there", "demo -o demo -device cuda", ("-device cuda: PyTorch finds none",)),
        Row(
            "GPU that is not there",
            "benchmark tiny.yaml -device cuda",
            ("-device cuda: PyTorch finds none",),
            workspace="to compare",
        ),
        Row(
            "preprocessed case of NaN",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd", "NaN"),
            _nan_case,
            leaves=_COPIES,
        ),
        Row(
            "preprocessed image cut short",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd", "damaged"),
            _cut_case(".b2nd"),
            leaves=_COPIES,
            library=_BLOSC,
        ),
        Row(
            "preprocessed image of zero bytes",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd", "damaged"),
            write(f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd"),
            leaves=_COPIES,
            library=_BLOSC,
        ),
        Row(
            "preprocessed label cut short",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01_seg.b2nd", "damaged"),
            _cut_case("_seg.b2nd"),
            leaves=_COPIES,
            library=_BLOSC,
        ),
        Row(
            "preprocessed properties cut short",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.pkl", "damaged"),
            _cut_case(".pkl"),
            leaves=_COPIES,
            library=_BLOSC,
        ),
        Row(
            "preprocessed properties missing",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.pkl", "missing"),
            remove(f"{FOLDER}/nnUNetPlans_2d/case_01.pkl"),
            leaves=_COPIES,
        ),
        Row(
            "preprocessed image a symbolic link to itself",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd",),
            as_loop(f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd"),
            leaves=_COPIES,
        ),
        Row(
            "preprocessed folder empty",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d", "has no preprocessed cases"),
            both(remove(f"{FOLDER}/nnUNetPlans_2d"), lambda folder: (folder / FOLDER / "nnUNetPlans_2d").mkdir()),
        ),
        Row(
            "preprocessed folder missing",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d", "is not preprocessed"),
            remove(f"{FOLDER}/nnUNetPlans_2d"),
        ),
        Row(
            "preprocessed folder missing",
            TRAIN,
            (f"{FOLDER}/nnUNetPlans_2d", "is not preprocessed"),
            remove(f"{FOLDER}/nnUNetPlans_2d"),
        ),
        Row(
            "label of a preprocessed case not in dataset.json",
            PREPROCESS,
            (f"{FOLDER}/nnUNetPlans_2d/case_00_seg.b2nd", "label values [2]"),
            put(f"{FOLDER}/dataset.json", "labels", value={"background": 0, "shell": 1}),
            leaves=_COPIES,
        ),
    ]


_COPIES = (
    f"{FOLDER}/.nnUNetPlans_2d_SIKD_per_slice.lock",
    f"{FOLDER}/nnUNetPlans_2d_SIKD_per_slice",
    f"{FOLDER}/nnUNetPlans_2d_SIKD_per_slice/case_00*",
)
_BLOSC = (r"(?<=cannot be read \().*?(?=\); run)", r"(?<=not a complete pickle \().*?(?=\); run)")


def _cut_case(suffix: str) -> Damage:
    def do(folder: Path) -> None:
        file = folder / FOLDER / "nnUNetPlans_2d" / f"case_01{suffix}"
        file.write_bytes(file.read_bytes()[:60])

    return do


def _nan_case(folder: Path) -> None:
    import blosc2
    import numpy as np

    file = folder / FOLDER / "nnUNetPlans_2d" / "case_01.b2nd"
    values = blosc2.open(urlpath=str(file), mode="r")[:]
    values[0, 0, 3, 3] = np.nan
    file.unlink()
    blosc2.asarray(values, urlpath=str(file), mode="w")


def output_rows() -> list[Row]:
    """Places where nothing can be written, or something else lies."""
    rows = []
    for command, output, workspace in (
        (AVERAGE, "averaged", "trained"),
        (PREDICT, "predicted", "trained"),
        (EVALUATE, "measured", "trained"),
        (FIGURES, "figures", "trained"),
        (STRESS, "stressed", "trained"),
        ("demo -o demo", "demo", "trained"),
    ):
        rows += [
            Row("output a file", command, (output, "is no folder"), write(output, "precious"), workspace),
            Row("output a symbolic link to itself", command, (output, "is no folder"), as_loop(output), workspace),
            Row(
                "output inside a file",
                command.replace(f"-o {output}", f"-o notes.txt/{output}"),
                ("notes.txt", "is no folder"),
                write("notes.txt", "precious"),
                workspace,
            ),
            Row(
                "output in a read-only folder",
                command.replace(f"-o {output}", f"-o sealed/{output}"),
                ("sealed", "cannot be written"),
                read_only("sealed"),
                workspace,
            ),
        ]
    rows += [
        Row("output the folder of images", AVERAGE.replace("averaged", "images"), ("images", "would overwrite")),
        Row("output the folder of labels", AVERAGE.replace("averaged", "labels"), ("labels", "would overwrite")),
        Row(
            "output the folder of images by a link",
            AVERAGE.replace("averaged", "link"),
            ("link", "would overwrite"),
            lambda folder: (folder / "link").symlink_to("images"),
        ),
        Row(
            "output the folder of images",
            PREDICT.replace("predicted", "images"),
            ("images", "holds files that this command did not write"),
        ),
        Row(
            "output with files of somebody's",
            PREDICT.replace("predicted", "labels"),
            ("labels", "holds files that this command did not write"),
        ),
        Row(
            "output that is named like a file",
            EVALUATE.replace("measured", "summary.json"),
            ("summary.json", "takes a folder"),
        ),
        Row("zip that is there", EXPORT, ("student.zip", "exists"), write("student.zip", "precious")),
        Row("zip that is a symbolic link to itself", EXPORT, ("student.zip", "exists"), as_loop("student.zip")),
        Row(
            "zip in a folder that is not there",
            EXPORT.replace("student.zip", "no/student.zip"),
            ("no", "no such folder"),
        ),
        Row(
            "zip in a read-only folder",
            EXPORT.replace("student.zip", "sealed/student.zip"),
            ("sealed", "cannot be written"),
            read_only("sealed"),
        ),
        Row("copies in a read-only folder", PREPROCESS, (f"{FOLDER}", "cannot be written"), read_only(FOLDER)),
        Row("report a file", REPORT, ("output/report", "is no folder"), write("output/report", "precious"), "compared"),
        Row(
            "report in a read-only folder",
            REPORT,
            ("output/report", "cannot be written"),
            read_only("output"),
            "compared",
        ),
        Row(
            "folder without results",
            REPORT.replace("-o output", "-o elsewhere"),
            ("elsewhere/evaluation", "no metrics.csv"),
            workspace="compared",
        ),
        Row("folder with somebody's files", "demo -o images", ("images", "is not empty and not of an earlier demo")),
        Row(
            "folder of another version's demo",
            "demo -o demo",
            ("demo", "holds the demo of another version"),
            write("demo/nnunetv2_sikd_demo.txt", "Made by nnUNetv2_sikd demo 0.0.1.\n"),
        ),
    ]
    return rows


def label_map_rows() -> list[Row]:
    return [
        Row("label pair without an equals sign", f"{EVALUATE} --labels core", ("--labels core", "PREDICTED=REFERENCE")),
        Row(
            "label pair with an unknown name",
            f"{EVALUATE} --labels kernel=core",
            ("'kernel'", "predictions/dataset.json"),
        ),
        Row("label pair with capitals", f"{EVALUATE} --labels Core=core", ("did you mean 'core'?",)),
        Row("two labels for one reference", f"{EVALUATE} --labels shell=core core=core", ("'core'", "both")),
        Row("label named twice", f"{EVALUATE} --labels core=core core=shell", ("'core' twice",)),
        Row("dataset.json that is not there", f"{EVALUATE} -djfile gone.json", ("gone.json", "-djfile")),
        Row(
            "dataset.json of the references not there",
            EVALUATE,
            ("dataset.json", "-gt_djfile"),
            remove("labels/dataset.json"),
        ),
        Row(
            "no label in common",
            EVALUATE,
            ("predictions/dataset.json", "--labels"),
            put("predictions/dataset.json", "labels", value={"background": 0, "x": 1, "y": 2}),
        ),
        Row(
            "another file ending",
            EVALUATE,
            ("predictions/dataset.json", ".png"),
            put("predictions/dataset.json", "file_ending", value=".png"),
        ),
        Row(
            "another number of channels",
            EVALUATE,
            ("predictions/dataset.json", "1 channel"),
            put("predictions/dataset.json", "channel_names", value={"0": "one"}),
        ),
    ]


def benchmark_rows() -> list[Row]:
    raw, other = "raw/Dataset901_Source", "raw/Dataset902_Target"

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(title, BENCHMARK, ("tiny.yaml", *says), damage, "to compare")

    split = '[{"train": ["case_0", "case_1"], "val": [%s]}]'
    return [
        Row("arm unknown", f"{BENCHMARK} --arms stok", ("--arms stok", "it has stock"), workspace="to compare"),
        Row("fold 99", f"{BENCHMARK} --folds 99", ("tiny.yaml", "fold 99 is not in"), workspace="to compare"),
        Row("fold negative", f"{BENCHMARK} --folds -1", ("--folds",), workspace="to compare"),
        Row("seed twice", f"{BENCHMARK} --seeds 1 1", ("--seeds",), workspace="to compare"),
        Row(
            "step unknown",
            "benchmark tiny.yaml -device cpu --only dance",
            ("--only dance", "--dry-run lists them"),
            workspace="to compare",
        ),
        Row(
            "step whose inputs are missing",
            "benchmark tiny.yaml -device cpu --only copies -o output",
            ("output", "needs prepare"),
            workspace="to compare",
        ),
        Row("baseline unknown", f"{REPORT} --baseline nobody", ("baseline 'nobody'",), workspace="compared"),
        Row(
            "output a file",
            "benchmark tiny.yaml -device cpu -o output",
            ("output", "cannot be written"),
            write("output", "precious"),
            "to compare",
        ),
        Row(
            "output a symbolic link to itself",
            "benchmark tiny.yaml -device cpu -o output",
            ("output", "cannot be written"),
            as_loop("output"),
            "to compare",
        ),
        Row(
            "output in a read-only folder",
            "benchmark tiny.yaml -device cpu -o sealed/output",
            ("sealed/output", "cannot be written"),
            read_only("sealed"),
            "to compare",
        ),
        row("test set unknown", lambda folder: _rename(folder, "902", "777"), "777"),
        row(
            "images of a test set missing", remove(f"{other}/imagesTs"), f"{other}/imagesTs", "no such folder of images"
        ),
        row(
            "references of a test set missing",
            remove(f"{other}/labelsTs"),
            f"{other}/labelsTs",
            "no such folder of references",
        ),
        row("reference of a test case missing", remove(f"{other}/labelsTs/a.nii.gz"), f"{other}/labelsTs", "has no a"),
        row("image of a reference missing", remove(f"{other}/imagesTs/a_0000.nii.gz"), f"{other}/imagesTs", "has no a"),
        row(
            "test set of other channels",
            lambda folder: _touch(folder, f"{other}/imagesTs/a_0001.nii.gz"),
            f"{other}/imagesTs/a_*.nii.gz",
            "has channels 0, 1",
        ),
        row(
            "test set of another format",
            lambda folder: _touch(folder, f"{other}/imagesTs/c_0000.png"),
            f"{other}/imagesTs/c_0000.png",
            "another format",
        ),
        row(
            "test case that is a training case",
            both(
                copy(f"{raw}/imagesTr/case_0_0000.nii.gz", f"{raw}/imagesTs/case_0_0000.nii.gz"),
                copy(f"{raw}/labelsTr/case_0.nii.gz", f"{raw}/labelsTs/case_0.nii.gz"),
            ),
            f"{raw}/imagesTs",
            "case_0",
        ),
        row(
            "training label missing",
            remove(f"{raw}/labelsTr/case_3.nii.gz"),
            f"{raw}/labelsTr/case_3.nii.gz",
            "not there",
        ),
        row(
            "dataset.json with a label twice",
            lambda folder: write(
                f"{raw}/dataset.json",
                (folder / raw / "dataset.json").read_text().replace('"core": 2', '"core": 2, "core": 1'),
            )(folder),
            f"{raw}/dataset.json",
            "'core' comes twice",
        ),
        row(
            "dataset.json without labels",
            lambda folder: put(f"{other}/dataset.json", "labels", value=None)(folder),
            f"{other}/dataset.json",
            "labels",
        ),
        row(
            "split with a case in training and validation",
            write(f"{raw}/splits_final.json", split % '"case_0"'),
            f"{raw}/splits_final.json",
            "case_0 both in",
        ),
        row(
            "split with a case that is not there",
            write(f"{raw}/splits_final.json", split % '"gone"'),
            f"{raw}/splits_final.json",
            "names gone",
        ),
        row(
            "trainer unknown",
            lambda folder: _rename(folder, "nnUNetTrainer_SIKDStudent_alpha1", "nnUNetTrainer_SIKDStudent_beta1"),
            "nnUNetTrainer_SIKDStudent_beta1",
        ),
        row(
            "configuration unknown",
            lambda folder: _rename(folder, "dataset: 901\n", "dataset: 901\n  configuration: 4d\n"),
            "'4d'",
        ),
    ]


def _rename(folder: Path, old: str, new: str) -> None:
    file = folder / "tiny.yaml"
    text = file.read_text()
    assert old in text or old == "902"
    file.write_text(
        text.replace("Dataset902_Target", "Dataset777_Target") if old == "902" else text.replace(old, new, 1)
    )


def _touch(folder: Path, file: str) -> None:
    (folder / file).touch()


def doctor_rows() -> list[Row]:
    return [
        Row("nnU-Net's folder not set", "doctor", ("nnUNet_raw is not set",), unset("nnUNet_raw")),
        Row(
            "nnU-Net's folder not there",
            "doctor",
            ("nnUNet_raw names", "nowhere", "mkdir"),
            lambda folder: setting("nnUNet_raw", str(folder / "nowhere"))(folder),
        ),
        Row(
            "nnU-Net's folder a file",
            "doctor",
            ("nnUNet_results names", "notes.txt"),
            both(write("notes.txt"), lambda folder: setting("nnUNet_results", str(folder / "notes.txt"))(folder)),
        ),
        Row(
            "nnU-Net's folder a symbolic link to itself",
            "doctor",
            ("nnUNet_preprocessed names", "loop"),
            both(as_loop("loop"), lambda folder: setting("nnUNet_preprocessed", str(folder / "loop"))(folder)),
        ),
    ]


def stock_rows() -> list[Row]:
    """What this package's trainers refuse, started by nnU-Net's own command in a process of its own."""
    teacher = f"results/{TINY}/{TEACHER}__nnUNetPlans__2d/fold_0/checkpoint_final.pth"
    left = (f"results/{TINY}/*", f"results/{TINY}/*/fold_0/*")
    fresh = remove(f"results/{TINY}/{STUDENT}__nnUNetPlans__2d")
    return [
        Row(
            "student without a teacher",
            STOCK_STUDENT,
            (teacher, "the student has no teacher; run"),
            both(fresh, remove(f"results/{TINY}/{TEACHER}__nnUNetPlans__2d")),
            leaves=left,
        ),
        Row(
            "teacher's preprocessed case cut short",
            STOCK_TEACHER,
            (f"{FOLDER}/nnUNetPlans_2d/case_01.b2nd", "damaged"),
            both(remove(f"results/{TINY}/{TEACHER}__nnUNetPlans__2d"), _cut_case(".b2nd")),
            leaves=(*left, *_COPIES),
            library=_BLOSC,
        ),
        Row(
            "splits_final.json with a case that is not there",
            STOCK_STUDENT,
            (SPLITS, "names gone"),
            both(fresh, put(SPLITS, 0, "val", value=["gone"])),
            leaves=left,
        ),
    ]


def rows() -> list[Row]:
    """All of this file."""
    return [
        *parser_rows(),
        *dataset_rows(),
        *fold_rows(),
        *output_rows(),
        *label_map_rows(),
        *benchmark_rows(),
        *doctor_rows(),
        *stock_rows(),
    ]
