"""Made-up benchmarks and their reports, made once each, since pictures take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunetv2_sikd.report.write import write_report
from tests.report.helpers import FakeBenchmark, make_benchmark


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """nnU-Net's folders, as in ``nnunet_folders``, for all tests of a module."""
    folder = tmp_path_factory.mktemp("made_up")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (folder / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(folder / name))
        yield folder


@pytest.fixture(scope="module")
def reported(folders: Path) -> FakeBenchmark:
    """A report of three arms, two seeds, one result missing."""
    benchmark = make_benchmark(
        folders, arms=("stock", "sikd", "da5"), seeds=(0, 1), patients=8, missing=["da5_seed1_fold0"]
    )
    write_report(benchmark.layout)
    return benchmark
