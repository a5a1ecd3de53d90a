"""Run the end-to-end test and the training's tests in environments of old and new versions, one after the other.

``nox --list`` shows the combinations, ``nox`` runs them all, ``nox -s "combination(oldest)"`` one of them; what
follows ``--`` goes to pytest. Each environment is some gigabytes with torch's CUDA libraries; it is deleted when its
tests have passed.
"""

from __future__ import annotations

import shutil

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv"

PACKAGES = ("nnunetv2", "torch", "numpy", "blosc2", "batchgeneratorsv2", "scipy", "pandas", "SimpleITK")
TESTS = ("trainers", "distillation", "preprocessing", "networks", "transforms", "test_averaging.py")
# Compiled networks, and processes that are killed or wait for each other: the same everywhere, and half of the time.
LEFT_OUT = "not compiled and not Processes and not Interruption"
END_TO_END = "trainings_leave or predicts_another or export_predicts"


@nox.session
@nox.parametrize(
    "python, choice",
    [
        # Every direct dependency in the oldest version that pyproject.toml permits.
        nox.param("3.10", ["--resolution=lowest-direct"], id="oldest"),
        # Whatever a new installation gets today: what to run nightly.
        nox.param("3.13", [], id="newest"),
        nox.param("3.10", [], id="python3.10"),
        nox.param("3.12", ["numpy<2", "torch==2.8.*"], id="numpy1"),
        nox.param("3.11", ["nnunetv2==2.8.0"], id="nnunetv2-2.8.0"),
    ],
)
def combination(session: nox.Session, choice: list[str]) -> None:
    """Install this package with one choice of versions and run the tests."""
    session.install("--editable", ".[test]", *choice)
    versions = "import sys; from importlib.metadata import version; print('python', sys.version.split()[0], "
    versions += f"*(word for name in {PACKAGES} for word in (name, version(name))))"
    session.run("python", "-c", versions)
    session.run("pytest", "tests/test_end_to_end.py", "-k", END_TO_END, *session.posargs)
    session.run("pytest", *(f"tests/{name}" for name in TESTS), "-k", LEFT_OUT, *session.posargs)
    shutil.rmtree(session.virtualenv.location)
