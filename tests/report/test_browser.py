"""The page in a real browser, as wide as a phone and as wide as a screen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.report.helpers import FakeBenchmark

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Headless Chromium has no window narrower than 500 pixels; a frame has.
FRAME = """<!DOCTYPE html><html><body style="margin:0">
<iframe id="page" src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {{
  const page = document.getElementById("page").contentDocument;
  const root = page.documentElement, images = [...page.images];
  const sticking = [...page.body.querySelectorAll("*")].filter(
    e => !e.closest(".scroll, pre") && e.getBoundingClientRect().right > root.clientWidth + 1);
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, scrolled: root.scrollWidth, images: images.length,
    loaded: images.filter(image => image.complete && image.naturalWidth > 0).length,
    sticking: sticking.map(e => e.tagName + "." + e.className),
    tables: [...page.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth).length,
    columns: getComputedStyle(page.querySelector(".panels")).gridTemplateColumns.split(" ").length,
    small: Math.min(...[...page.querySelectorAll("p, td, th, figcaption")].map(
      e => parseFloat(getComputedStyle(e).fontSize))),
  }});
}});
</script></body></html>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium")


def browse(file: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", "--allow-file-access-from-files", "--enable-logging=stderr", *options]
    return subprocess.run(
        [*command, file.as_uri()], capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(profile)}
    )


def look(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What the browser makes of the page at a width in CSS pixels."""
    (folder / "report.html").write_bytes(page.read_bytes())
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width))
    done = browse(frame, folder / "profile", "--dump-dom", "--virtual-time-budget=5000", "--window-size=1300,1000")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    return dict(json.loads(found.group(1)))


@pytest.mark.parametrize(("width", "columns"), [(390, 2), (1200, 4)])
def test_fits_and_is_whole(reported: FakeBenchmark, tmp_path: Path, width: int, columns: int) -> None:
    found = look(reported.layout.report() / "report.html", width, tmp_path)
    assert found["scrolled"] <= found["width"] <= width
    assert found["sticking"] == []
    assert found["images"] == found["loaded"] == 28
    assert found["columns"] == columns
    assert found["small"] >= 12
    # On a phone wide tables scroll within themselves.
    assert found["tables"] > 0 or width > 390


def test_the_check_can_fail(reported: FakeBenchmark, tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    text = (reported.layout.report() / "report.html").read_text(encoding="utf-8")
    broken = text.replace("overflow-x:auto", "").replace(
        "data:image/svg+xml;base64,", "data:image/svg+xml;base64,broken", 1
    )
    page.write_text(broken, encoding="utf-8")
    found = look(page, 390, tmp_path)
    assert found["scrolled"] > found["width"]
    assert found["loaded"] == found["images"] - 1


def test_prints(reported: FakeBenchmark, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    browse(reported.layout.report() / "report.html", tmp_path / "profile", f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")
    assert target.stat().st_size > 50_000
