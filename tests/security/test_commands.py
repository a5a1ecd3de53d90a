"""No shell takes part: whatever names hold, commands get it as it is. And the package has no other way to run code."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_sikd
from nnunetv2_sikd.processes import run
from nnunetv2_sikd.steps import Step, execute
from tests.benchmark.helpers import SPECIFICATION, write_benchmark, write_both
from tests.benchmark.test_snakefile import snakefile

NASTY = "a b'c\"d $(touch crater1) `touch crater2`; touch crater3 & # \\ $HOME *"
QUOTED = NASTY.partition(" #")[0]  # Snakemake reads --config as YAML, where a comment begins there
FAKE = """#!{python}
import json, sys
from pathlib import Path

Path({told!r}).write_text(json.dumps(sys.argv[1:]))
record = Path(sys.argv[sys.argv.index("-o") + 1], "steps", sys.argv[sys.argv.index("--only") + 1] + ".json")
record.parent.mkdir(parents=True, exist_ok=True)
record.write_text("{{}}")
"""
WRITE = "import json, sys; open('told.json', 'w').write(json.dumps(sys.argv[1:]))"


@pytest.mark.parametrize("how", ["run", "step"])
def test_arguments_arrive_as_they_are(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [NASTY, "{x}", "%s", "-c", ""]
    command = ["python", "-c", WRITE, *arguments]
    if how == "run":
        assert run(command) == 0
    else:
        execute(Step("x", "X", command, is_done=lambda: True), tmp_path / "log.txt", dict(os.environ))
    assert json.loads((tmp_path / "told.json").read_text()) == arguments
    assert not list(tmp_path.glob("crater*"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("snakemake") is None, reason="pip install 'nnunetv2-sikd[cluster]'")
class TestSnakemake:
    def run(self, folder: Path, output: str) -> subprocess.CompletedProcess[str]:
        write_both(folder)
        (folder / "bin").mkdir()
        fake = folder / "bin" / "nnUNetv2_sikd"
        fake.write_text(FAKE.format(python=sys.executable, told=str(folder / "told.json")))
        fake.chmod(0o755)
        config = [f"benchmark={write_benchmark(folder, SPECIFICATION)}", f"output={folder / output}", "device=cpu"]
        snakemake = (sys.executable, "-m", "snakemake")
        return subprocess.run(
            [*snakemake, "-s", str(snakefile()), "--cores", "2", "--until", "prepare", "--config", *config],
            cwd=folder,
            env={**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def test_its_shell_takes_names_as_they_are(self, nnunet_folders: Path) -> None:
        done = self.run(nnunet_folders, QUOTED)
        assert not list(nnunet_folders.rglob("crater*"))
        told = json.loads((nnunet_folders / "told.json").read_text())
        assert told[told.index("-o") + 1] == str(nnunet_folders / QUOTED), done.stderr

    def test_braces_are_refused(self, nnunet_folders: Path) -> None:
        done = self.run(nnunet_folders, "{config}")
        assert done.returncode != 0
        assert "reads braces in paths as wildcards" in done.stdout + done.stderr
        assert not (nnunet_folders / "told.json").exists()


class Calls(ast.NodeVisitor):
    """Calls and keywords of a module that could execute what a file holds, or what a name says."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in ("eval", "exec", "compile", "__import__", "locate", "pydoc.locate", "os.system", "os.popen"):
            self.found.append(name)
        if name.endswith(("pickle.load", "pickle.loads", "Unpickler", "load_pickle", "extractall", "np.load")):
            self.found.append(name)
        if name == "torch.load" and keywords.get("weights_only") != "True":
            self.found.append("torch.load without weights_only")
        if name in ("yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
            self.found.append(name)
        if name == "yaml.load" and ast.unparse(node.args[1]) != "_Loader":
            self.found.append(name)
        if "shell" in keywords or "allow_pickle" in keywords:
            self.found.append("shell or allow_pickle")
        if name == "blosc2.open":
            self.found.append(name)
        self.generic_visit(node)


ALLOWED = {
    "commands/doctor.py": ["pickle.loads"],  # of what it has just made itself
    "preprocessing/stored.py": ["blosc2.open"],  # after a look at the header
}


def test_the_package_executes_nothing_that_it_reads() -> None:
    package = Path(nnunetv2_sikd.__file__).parent
    found = {}
    for file in package.rglob("*.py"):
        calls = Calls()
        calls.visit(ast.parse(file.read_text(encoding="utf-8")))
        if calls.found:
            found[file.relative_to(package).as_posix()] = calls.found
    assert found == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "os.system('x')",
        "subprocess.run('x', shell=True)",
        "pickle.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f, yaml.Loader)",
        "eval('x')",
        "np.load(f, allow_pickle=True)",
        "archive.extractall()",
    ],
)
def test_the_test_above_sees(code: str) -> None:
    calls = Calls()
    calls.visit(ast.parse(code))
    assert calls.found
