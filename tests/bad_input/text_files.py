"""Text files that people edit by hand, and checkpoints, that cannot be right."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bad_input.damage import (
    as_folder,
    as_loop,
    copy,
    cut,
    drop,
    put,
    remove,
    replace,
    write,
)
from tests.bad_input.rows import Damage, Row
from tests.bad_input.workspace import STUDENT, TEACHER, TINY

PREPARE, PREPROCESS, TRAIN = "prepare -d 901", "preprocess -d 901 -np 1", "train -d 901 -f 0 -device cpu"
PREDICT = "predict -d 901 -f 0 -i images -o predicted -device cpu"
EVALUATE = "evaluate labels predictions -o measured"
FIGURES, EXPORT = "figures -d 901 -f 0 -o figures", "export -d 901 -f 0 -o student.zip"
STRESS = f"stress -d 901 -f 0 -tr {STUDENT} -o stressed -device cpu"
AVERAGE = "average -d 901 -i images -l labels -o averaged"
BENCHMARK, REPORT = "benchmark tiny.yaml -device cpu --dry-run", "report made_up.yaml -o output"
STOCK_STUDENT = f"nnUNetv2_train 901 2d 0 -tr {STUDENT} -device cpu"
STOCK_TEACHER = f"nnUNetv2_train 901 2d 0 -tr {TEACHER} -device cpu"

FOLDER = f"preprocessed/{TINY}"
PLANS, DESCRIBED, SPLITS = (f"{FOLDER}/{name}.json" for name in ("nnUNetPlans", "dataset", "splits_final"))
_JSON = (r"(?<=not valid JSON \()(?!key ').*?(?=\); )",)
_2D = ("configurations", "2d")
_NETWORK = (*_2D, "architecture", "arch_kwargs")


def json_rows(command: str, file: str, what: str) -> list[Row]:
    """Files that are no JSON, or not the JSON that is needed."""

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(f"{what} {title}", command, (file, *says), damage, library=_JSON)

    return [
        row("empty", write(file), "not valid JSON"),
        row("cut short", cut(file), "not valid JSON"),
        row(
            "with a byte order mark", lambda folder: write(file, b"\xef\xbb\xbf" + (folder / file).read_bytes())(folder)
        ),
        row("not UTF-8", write(file, b'{"\xff": 1}'), "not valid JSON"),
        row("a list in place of an object", write(file, "[1]")),
        row("a folder", as_folder(file)),
        row("a symbolic link to itself", as_loop(file)),
    ]


def plans_rows(command: str, changes: Sequence[tuple[str, Damage, str]]) -> list[Row]:
    return [Row(f"plans {title}", command, (PLANS, says), damage) for title, damage, says in changes]


_EDITED_PLANS = (
    ("without configurations", drop(PLANS, "configurations"), "has no configurations"),
    ("whose configurations are a list", put(PLANS, "configurations", value=["2d"]), "configurations"),
    ("without plans_name", drop(PLANS, "plans_name"), "has no plans_name"),
    ("with another plans_name than the file's", put(PLANS, "plans_name", value="myPlans"), "calls itself 'myPlans'"),
    (
        "of another data set",
        put(PLANS, "dataset_name", value="Dataset777_Other"),
        "are the plans of 'Dataset777_Other'",
    ),
    ("with patch size 0", put(PLANS, *_2D, "patch_size", value=[0, 32]), "patch_size [0, 32]"),
    ("with a negative patch size", put(PLANS, *_2D, "patch_size", value=[-32, 32]), "patch_size [-32, 32]"),
    ("with a patch size in quotes", put(PLANS, *_2D, "patch_size", value=["32", "32"]), "patch_size ['32', '32']"),
    ("with a patch size of one number", put(PLANS, *_2D, "patch_size", value=32), "patch_size 32"),
    ("with a patch size of four numbers", put(PLANS, *_2D, "patch_size", value=[8] * 4), "patch_size [8, 8, 8, 8]"),
    ("with a patch size that does not divide", put(PLANS, *_2D, "patch_size", value=[30, 32]), "divisible by 4 along"),
    ("with 3D spacing for a 2D patch", put(PLANS, *_2D, "spacing", value=[5.0, 1.0, 1.0]), "spacing [5.0, 1.0, 1.0]"),
    ("with spacing 0", put(PLANS, *_2D, "spacing", value=[0.0, 1.0]), "spacing [0.0, 1.0]"),
    ("with a spacing of 1e30 mm", put(PLANS, *_2D, "spacing", value=[1e30, 1.0]), "spacing [1e+30, 1.0]"),
    ("with a spacing that is NaN", put(PLANS, *_2D, "spacing", value=[float("nan"), 1.0]), "spacing [nan, 1.0]"),
    ("without spacing", drop(PLANS, *_2D, "spacing"), "has no spacing"),
    ("with batch size 0", put(PLANS, *_2D, "batch_size", value=0), "batch_size 0"),
    ("with batch size 1.5", put(PLANS, *_2D, "batch_size", value=1.5), "batch_size 1.5"),
    ("with the data identifier a number", put(PLANS, *_2D, "data_identifier", value=7), "data_identifier"),
    ("without an architecture", drop(PLANS, *_2D, "architecture"), "has no architecture"),
    ("with fewer features than stages", put(PLANS, *_NETWORK, "features_per_stage", value=[4, 6]), "n_stages 3"),
    ("with fewer strides than stages", put(PLANS, *_NETWORK, "strides", value=[[1, 1]]), "strides [[1, 1]]"),
    ("with stride 0", put(PLANS, *_NETWORK, "strides", value=[[1, 1], [0, 2], [2, 2]]), "strides"),
    ("that inherit from themselves", put(PLANS, *_2D, "inherits_from", value="2d"), "inherits from '2d'"),
    ("that inherit from none there is", put(PLANS, *_2D, "inherits_from", value="4d"), "inherits from '4d'"),
    ("with an axis twice in transpose_forward", put(PLANS, "transpose_forward", value=[0, 1, 1]), "transpose_forward"),
)

_EDITED_DESCRIPTION = (
    ("without labels", drop(DESCRIBED, "labels"), "labels"),
    ("with labels as a list", put(DESCRIBED, "labels", value=["background", "shell"]), "labels"),
    (
        "with labels numbered as names",
        put(DESCRIBED, "labels", value={"0": "background"}),
        "'0' has value 'background'",
    ),
    ("with a label 1.5", put(DESCRIBED, "labels", "core", value=1.5), "'core' has value 1.5"),
    ("with a negative label", put(DESCRIBED, "labels", "core", value=-2), "'core' has value -2"),
    ("with two labels of one value", put(DESCRIBED, "labels", "core", value=1), "'shell' and 'core' have the same"),
    ("with a gap between labels", put(DESCRIBED, "labels", "core", value=9), "0, 1, 9 and must be numbered"),
    ("without background", drop(DESCRIBED, "labels", "background"), "needs the label 'background'"),
    (
        "whose ignore label is not the highest",
        put(DESCRIBED, "labels", value={"background": 0, "ignore": 1, "core": 2}),
        "'ignore' must have the highest value",
    ),
    (
        "with regions and no order of them",
        put(DESCRIBED, "labels", value={"background": 0, "all": [1, 2], "core": [2]}),
        "needs 'regions_class_order'",
    ),
    ("without channel names", drop(DESCRIBED, "channel_names"), "channel_names"),
    ("with a channel more than the plans", put(DESCRIBED, "channel_names", "2", value="third"), "has 3 channel(s)"),
    ("without file ending", drop(DESCRIBED, "file_ending"), "file_ending"),
    ("with a number for the file ending", put(DESCRIBED, "file_ending", value=3), "file_ending"),
    (
        "with a label twice",
        replace(DESCRIBED, '"core": 2', '"core": 2, "core": 1'),
        "key 'core' comes twice",
    ),
)

_SPLITS: tuple[tuple[str, Damage, str], ...] = (
    ("names a case that is not there", put(SPLITS, 0, "train", value=["case_01", "gone"]), "names gone"),
    ("has no validation case", put(SPLITS, 0, "val", value=[]), "names no case"),
    ("has no folds", write(SPLITS, "[]"), "must be a list of folds"),
    ("lacks 'val'", drop(SPLITS, 0, "val"), "must be a list of folds"),
    ("has one name in place of a list", put(SPLITS, 0, "val", value="case_00"), "must be a list of folds"),
    ("is an object", write(SPLITS, "{}"), "must be a list of folds"),
    ("is empty", write(SPLITS), "not valid JSON"),
    ("is cut short", cut(SPLITS), "not valid JSON"),
)


def split_rows(command: str) -> list[Row]:
    return [
        Row(f"splits_final.json {title}", command, (SPLITS, says), damage, library=_JSON)
        for title, damage, says in _SPLITS
    ]


def checkpoint_rows(command: str, trainer: str, what: str) -> list[Row]:
    file = f"results/{TINY}/{trainer}__nnUNetPlans__2d/fold_0/checkpoint_final.pth"
    other = TEACHER if trainer == STUDENT else STUDENT
    library = (r"(?<=loads safely \().*?(?=\); copy)",)

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(f"{what} {title}", command, (file, *says), damage, library=library)

    return [
        row("empty", write(file), "damaged"),
        row("cut short", cut(file), "damaged"),
        row("of another trainer", copy(file.replace(trainer, other), file)),
        row("with another file's content", write(file, "weights"), "damaged"),
        Row(f"{what} a folder", command, (file.rsplit("/", 1)[0],), as_folder(file)),
        Row(f"{what} a symbolic link to itself", command, (file.rsplit("/", 1)[0],), as_loop(file)),
    ]


def benchmark_rows(command: str, file: str, workspace: str) -> list[Row]:
    """What can be wrong in a benchmark file."""
    yaml = (r"(?<=no valid YAML: )(?!line).*",)

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(f"benchmark file {title}", command, (file, *says), damage, workspace, library=yaml)

    return [
        row("empty", write(file), "must hold keys and values"),
        row("missing", remove(file), "no benchmark file"),
        row("a folder", as_folder(file), "no benchmark file"),
        row("a symbolic link to itself", as_loop(file), "no benchmark file"),
        row("with an open bracket", write(file, "title: [a"), "no valid YAML"),
        row("not UTF-8", write(file, b"title: \xff"), "no valid YAML"),
        row("a list", write(file, "- a\n"), "must hold keys and values"),
        row("without source", replace(file, "source:", "# source:"), ""),
        row("with a key twice", replace(file, "title:", "title: a\ntitle:"), "'title' comes twice"),
        row("with a misspelt key", replace(file, "arms:", "amrs:"), "did you mean arms?"),
        row("with a text for the folds", replace(file, "seeds:", "folds: all\nseeds:"), "folds"),
        row("with a negative fold", replace(file, "seeds:", "folds: [-1]\nseeds:"), "folds"),
        row("with a seed twice", replace(file, "- 0\n", "- 0\n- 0\n"), "seeds"),
        row("with 0 epochs", replace(file, "epochs: ", "epochs: 0 #"), "epochs"),
        row(
            "with two test sets of one key",
            replace(
                file,
                "key: " + ("other" if workspace == "to compare" else "Unseen"),
                "key: " + ("own" if workspace == "to compare" else "Source"),
            ),
            "same key",
        ),
        row(
            "with a folder in a key",
            replace(file, "key: " + ("other" if workspace == "to compare" else "Unseen"), "key: ../up"),
            "letters, digits and hyphens",
        ),
        row(
            "with a tag of Python's", replace(file, "title:", "title: !!python/name:os.system ''\nx:"), "no valid YAML"
        ),
    ]


def metrics_rows() -> list[Row]:
    """Damaged results, at the report."""
    file = "output/evaluation/Source/sikd_seed0_fold0/metrics.csv"

    def row(title: str, damage: Damage, *says: str) -> Row:
        return Row(
            f"metrics.csv {title}",
            REPORT,
            (file, *says),
            damage,
            "compared",
            library=(r"(?<=metrics.csv: )(?:Error|No columns|'utf|Buffer)[^;]*(?=; run)",),
        )

    return [
        row("empty", write(file)),
        row("not UTF-8", write(file, b"case,label\n\xff,a\n")),
        row("without a column", replace(file, "dice", "dise"), "has no column dice"),
        row("with a word for a number", replace(file, ",none,mm,", ",none,mm,much"), "no number"),
        row("with an unknown word in 'empty'", replace(file, ",none,", ",nothing,"), "'nothing'"),
        row(
            "without rows",
            lambda folder: write(file, (folder / file).read_text().splitlines()[0] + "\n")(folder),
            "no rows",
        ),
        row(
            "with a case twice",
            lambda folder: write(
                file, (folder / file).read_text() + (folder / file).read_text().splitlines()[1] + "\n"
            )(folder),
            "twice",
        ),
        row("a folder", as_folder(file)),
        row("with Dice 7", lambda folder: write(file, _dice(folder, file, "7.0"))(folder), "dice"),
        row(
            "with an infinite distance",
            lambda folder: write(file, _dice(folder, file, "0.5", "inf"))(folder),
            "hausdorff",
        ),
    ]


def _dice(folder, file: str, dice: str, hausdorff: str | None = None) -> str:
    lines = (folder / file).read_text().splitlines()
    cells = lines[1].split(",")
    cells[4] = dice
    if hausdorff:
        cells[6] = hausdorff
    lines[1] = ",".join(cells)
    return "\n".join(lines) + "\n"


def rows() -> list[Row]:
    """All of this file."""
    rows = [
        *json_rows(PREPROCESS, PLANS, "plans"),
        *plans_rows(PREPROCESS, _EDITED_PLANS),
        *json_rows(PREPROCESS, DESCRIBED, "dataset.json"),
        *[
            Row(f"dataset.json {title}", PREPROCESS, (DESCRIBED, says), damage)
            for title, damage, says in _EDITED_DESCRIPTION
        ],
    ]
    for command in (PREPARE, TRAIN, PREDICT, FIGURES, STRESS, AVERAGE):
        chosen = [
            each
            for each in _EDITED_PLANS
            if each[0]
            in (
                "with patch size 0",
                "of another data set",
                "with a patch size in quotes",
                "with 3D spacing for a 2D patch",
            )
        ]
        rows += plans_rows(command, chosen)
        rows += [
            Row(f"dataset.json {title}", command, (DESCRIBED, says), damage)
            for title, damage, says in _EDITED_DESCRIPTION
            if "gap" in title or "twice" in title
        ]
    raw = "raw/Dataset902_Raw/dataset.json"
    rows += json_rows("prepare -d 902", raw, "raw dataset.json")
    rows += [
        Row(f"raw dataset.json {title}", "prepare -d 902", (raw, says), damage)
        for title, damage, says in (
            ("with a gap between labels", put(raw, "labels", "core", value=9), "0, 1, 9"),
            ("with a label twice", replace(raw, '"core": 2', '"core": 2, "core": 1'), "comes twice"),
            ("without channel names", drop(raw, "channel_names"), "channel_names"),
        )
    ]
    beside = "raw/Dataset902_Raw/splits_final.json"
    rows += [
        Row(
            "split beside the raw data that names a case that is not there",
            "prepare -d 902",
            (beside, "names gone"),
            write(beside, '[{"train": ["case_00"], "val": ["gone"]}]'),
        ),
        Row(
            "split beside the raw data, another one in use",
            PREPARE,
            (SPLITS, "differs from"),
            write(f"raw/{TINY}/splits_final.json", '[{"train": ["case_00"], "val": ["case_01"]}]'),
        ),
    ]
    rows += split_rows(TRAIN)
    rows += split_rows(FIGURES)
    rows += split_rows(STRESS)
    rows += json_rows(EVALUATE, "predictions/dataset.json", "dataset.json of the predictions")
    rows += json_rows(EVALUATE, "labels/dataset.json", "dataset.json of the references")
    for trainer, what, command in (
        (STUDENT, "student's checkpoint", FIGURES),
        (TEACHER, "teacher's checkpoint", FIGURES),
        (STUDENT, "student's checkpoint", EXPORT),
        (STUDENT, "student's checkpoint", TRAIN),
        (STUDENT, "student's checkpoint", PREDICT),
        (STUDENT, "student's checkpoint", STRESS),
    ):
        rows += checkpoint_rows(command, trainer, what)
    rows += benchmark_rows(BENCHMARK, "tiny.yaml", "to compare")
    rows += benchmark_rows(REPORT, "made_up.yaml", "compared")
    rows += metrics_rows()
    return rows
