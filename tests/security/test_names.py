"""Names in files of others stay in the folders that they are used in, and are no options of commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from nnunetv2_sikd.benchmark.check import check_benchmark
from nnunetv2_sikd.benchmark.file import load_specification
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import load_dataset_json
from nnunetv2_sikd.export import _copy
from nnunetv2_sikd.files import write_text
from nnunetv2_sikd.preprocessing.hook import write_class_averages
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration, dataset_id, find_dataset
from nnunetv2_sikd.preprocessing.prepare import prepare, read_splits
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.untrusted import as_cell, check_folder, check_part, from_cell
from tests.benchmark.helpers import SOURCE, SPECIFICATION, layout_of, write_both
from tests.helpers import PreprocessedDataset
from tests.security.helpers import LEADING_OUT

Content = dict[str, Any]


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class TestBenchmarkFiles:
    PLACES: dict[str, Callable[[Content, str], Any]] = {  # noqa: RUF012
        "source.dataset": lambda c, name: c["source"].update(dataset=name),
        "source.configuration": lambda c, name: c["source"].update(configuration=name),
        "source.plans": lambda c, name: c["source"].update(plans=name),
        "source.derive.from": lambda c, name: c["source"].update(configuration="s", derive={"from": name}),
        "tests.0.key": lambda c, name: c["tests"][0].update(key=name),
        "tests.0.dataset": lambda c, name: c["tests"][0].update(dataset=name),
        "tests.0.images": lambda c, name: c["tests"][0].update(images=name),
        "tests.0.references": lambda c, name: c["tests"][0].update(references=name),
        "arms": lambda c, name: c.update(arms={**c["arms"], name: "nnUNetTrainerDA5"}),
        "arms.new.trainer": lambda c, name: c["arms"].update(new=name),
    }

    @pytest.mark.parametrize("name", LEADING_OUT)
    @pytest.mark.parametrize("place", PLACES)
    def test_names_that_lead_out(self, place: str, name: str, tmp_path: Path) -> None:
        content, file = deepcopy(SPECIFICATION), tmp_path / "hostile.yaml"
        self.PLACES[place](content, name)
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(SIKDError) as raised:
            load_specification(file)
        assert str(raised.value).startswith(f"{file}: {place}")
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("name", ["os", "sys", "__class__x.y", "nnUNetTrainer.x", "a b", "nnUNetTrainer;x", "ä"])
    def test_trainers_are_classes_by_name(self, name: str, tmp_path: Path) -> None:
        content, file = deepcopy(SPECIFICATION), tmp_path / "hostile.yaml"
        content["arms"]["new"] = name
        content.pop("schedule")
        content["seeds"] = []
        file.write_text(yaml.safe_dump(content))
        if not name.isidentifier() or not name.isascii():
            with pytest.raises(SIKDError, match="a trainer is a class of Python"):
                load_specification(file)

    @pytest.mark.parametrize("name", ["os", "re", "nnUNetTrainer_SIKDBase", "Any", "__name__", "isdir", "torch"])
    def test_what_is_no_trainer_is_told(self, name: str, nnunet_folders: Path) -> None:
        write_both(nnunet_folders)
        arms = {"stock": "nnUNetTrainer", "new": name}
        with pytest.raises(SIKDError, match=f"there is no trainer {name}"):
            check_benchmark(layout_of(nnunet_folders, arms=arms, seeds=[], schedule=None))

    def test_labels_are_no_options(self, tmp_path: Path) -> None:
        content, file = deepcopy(SPECIFICATION), tmp_path / "hostile.yaml"
        content["tests"][1]["labels"] = {"-o": "/tmp/elsewhere"}
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(SIKDError, match=r"tests\.1\.labels: '-o'"):
            load_specification(file)

    def test_folders_inside_are_fine(self) -> None:
        assert check_folder("more/images Ts") == "more/images Ts"


# On Linux and macOS all of these can be there already.
THERE = ["a:b", "T1<T2>", 'the "first"', "who?", "a*", "a|b", "CON", "aux.1", "case.", "case ", "..a", "a-", "a\u00a0b"]


class TestNamesThatAreThere:
    @pytest.mark.parametrize("name", THERE)
    def test_are_taken_as_they_are(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nnunetv2_sikd.untrusted.sys.platform", "linux")
        assert check_part(name) == name
        file = tmp_path / "splits_final.json"
        file.write_text(json.dumps([{"train": ["a", name], "val": ["b"]}]))
        assert read_splits(file)[0]["train"] == ["a", name]

    @pytest.mark.parametrize("name", [*LEADING_OUT, "a/b", "a\x7fb", "a\u2028b", "a\ud800", 5, None])
    def test_what_leads_out_is_refused(self, name: Any) -> None:
        with pytest.raises(ValueError, match=re.escape(repr(name))):
            check_part(name)

    def test_windows_has_drives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nnunetv2_sikd.untrusted.sys.platform", "win32")
        with pytest.raises(ValueError, match="leave out ':'"):
            check_part("C:x")

    @pytest.mark.parametrize("key", ["CON", "a:b", "a b", "a."])
    def test_keys_of_a_benchmark_stay_strict(self, key: str, tmp_path: Path) -> None:
        content, file = deepcopy(SPECIFICATION), tmp_path / "strict.yaml"
        content["tests"][0]["key"] = key
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(SIKDError, match=r"tests\.0\.key"):
            load_specification(file)


class TestYaml:
    def refuse(self, text: str, folder: Path) -> str:
        file = folder / "hostile.yaml"
        file.write_text(text)
        with pytest.raises(SIKDError) as raised:
            load_specification(file)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 1500
        return str(raised.value).removeprefix(f"{file}: ")

    @pytest.mark.parametrize(
        "text",
        [
            "title: !!python/object/apply:os.system ['mkdir crater']",
            "title: !!python/name:os.system",
            "title: !!python/module:os",
            "!!python/object/new:os.mkdir ['crater']",
            "title: !<tag:yaml.org,2002:python/object/apply:os.mkdir> ['crater']",
        ],
    )
    def test_objects_of_python(self, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.refuse(text, tmp_path).startswith("no valid YAML: could not determine a constructor")
        assert not (tmp_path / "crater").exists()

    def test_a_billion_laughs(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
        assert "unknown key" in self.refuse("\n".join(lines), tmp_path)
        valid = "source: {dataset: 1}\ntests: [{key: a, dataset: 1}]\narms: {stock: nnUNetTrainer}\ntitle: [*a11]"
        lines[0] = "seeds: &a0 [0]"
        lines[1] = "folds: &a1 [*a0, *a0]"
        assert "Input should be a valid" in self.refuse("\n".join([*lines[:2], valid.replace("a11", "a1")]), tmp_path)

    def test_merges_of_merges(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12))]
        assert self.refuse("\n".join(lines), tmp_path).startswith("no valid YAML: line 5: more than 1000 keys")

    def test_deep_nesting(self, tmp_path: Path) -> None:
        assert self.refuse("title: " + "[" * 10**5, tmp_path) == "no valid YAML: nested too deeply"

    def test_too_large(self, tmp_path: Path) -> None:
        assert self.refuse("title: x\n" * 200_000, tmp_path) == "is no benchmark file: larger than 1 MiB"

    @pytest.mark.parametrize(
        "value", ["2001-13-45", "9" * 5000, "!!timestamp x", "!!int x", "!!float x", "!!bool x", "!!binary é"]
    )
    def test_values_that_yaml_stumbles_over(self, value: str, tmp_path: Path) -> None:
        assert self.refuse(f"title: {value}", tmp_path).startswith("no valid YAML: ")


class TestDataSets:
    @pytest.mark.parametrize("name", ["Dataset901_x/../../y", "Dataset/../x", "Dataset901_\0", "Dataset901_x\n"])
    def test_names(self, name: str, nnunet_folders: Path) -> None:
        with pytest.raises(SIKDError):
            find_dataset(name)

    @pytest.mark.parametrize("name", ["Datasetx", "Dataset", "Dataset²²²_x"])
    def test_numbers(self, name: str) -> None:
        with pytest.raises(SIKDError, match="no data set's name"):
            dataset_id(name)

    @pytest.mark.parametrize("key", ["data_identifier", "dataset_name", "plans_name", "configuration"])
    @pytest.mark.parametrize("name", LEADING_OUT)
    def test_plans(self, key: str, name: str, dataset_2d: PreprocessedDataset) -> None:
        file = dataset_2d.folder / "nnUNetPlans.json"
        plans = json.loads(file.read_text())
        if key == "configuration":
            plans["configurations"][name] = {"inherits_from": "2d"}
        else:
            (plans["configurations"]["2d"] if key == "data_identifier" else plans)[key] = name
        file.write_text(json.dumps(plans))
        before = everything(dataset_2d.folder.parent.parent)
        with pytest.raises(SIKDError, match=r"nnUNetPlans\.json"):
            write_class_averages(dataset_2d.name, "2d")
        assert everything(dataset_2d.folder.parent.parent) == before

    @pytest.mark.parametrize("ending", ["", "/../../x", "nii", ".nii/../x", "..", ".*", ".nii.gz\n", 5])
    def test_file_endings(self, ending: Any, dataset_2d: PreprocessedDataset, tmp_path: Path) -> None:
        file = dataset_2d.folder / "dataset.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "file_ending": ending}))
        with pytest.raises(SIKDError, match="file_ending"):
            PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans")
        with pytest.raises(SIKDError, match="file_ending"):
            load_dataset_json(file, [], "-djfile")

    @pytest.mark.parametrize("name", LEADING_OUT)
    def test_splits(self, name: str, tmp_path: Path) -> None:
        file = tmp_path / "splits_final.json"
        file.write_text(json.dumps([{"train": ["a", name], "val": ["b"]}]))
        with pytest.raises(SIKDError, match=r"splits_final\.json: case "):
            read_splits(file)

    @pytest.mark.parametrize("name", LEADING_OUT)
    def test_cases_that_dataset_json_names(
        self, name: str, nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_both(nnunet_folders)
        file = nnunet_folders / "raw" / SOURCE / "dataset.json"
        images = {"images": ["imagesTr/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
        file.write_text(json.dumps({**json.loads(file.read_text()), "dataset": {name: images}}))
        with pytest.raises(SIKDError, match=r"dataset\.json: case "):
            check_benchmark(layout_of(nnunet_folders))
        monkeypatch.setattr("nnunetv2_sikd.preprocessing.prepare.run", lambda *_: pytest.fail("nnU-Net was started"))
        with pytest.raises(SIKDError, match=r"dataset\.json: case "):
            prepare(SOURCE)


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer_seed" + "9" * 5000,
        "nnUNetTrainer_" + "9" * 5000 + "epochs",
        "nnUNetTrainer_seed1٣",
        "nnUNetTrainer_SIKDStudent_alpha" + "9" * 400,
        "nnUNetTrainer_SIKDStudent_alpha٣",
        "nnUNetTrainer_5epochs\n",
    ],
)
def test_numbers_in_names_of_trainers(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(variants, name)


def test_files_are_written_in_place_of_links_not_through_them(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "splits_final.json"
    precious.write_text("precious")
    link.symlink_to(precious)
    write_text(link, "new")
    assert precious.read_text() == "precious"
    assert not link.is_symlink()


def test_an_export_follows_no_links(tmp_path: Path) -> None:
    secret, link = tmp_path / "secret", tmp_path / "plans.json"
    secret.write_text("secret")
    link.symlink_to(secret)
    with pytest.raises(SIKDError, match=r"plans\.json: is a link"):
        _copy(link, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\t=1", "'=x", "", "x", "'", "-"])
def test_cells_are_no_formulas_and_come_back(text: str) -> None:
    assert not as_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    if not text.startswith("'="):
        assert from_cell(as_cell(text)) == text
