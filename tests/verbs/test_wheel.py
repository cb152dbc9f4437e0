"""The wheel holds everything that an empty environment needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_samples_catalogue_page_and_notices(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for part in (
        "tacit/data/samples/omniglot_small/images.npz",
        "tacit/methods/catalogue.json",
        "tacit/use/page/",
        "licenses/LICENSE",
        "licenses/NOTICE",
        "tacit/py.typed",
    ):
        assert any(part in name for name in names), part
    assert next(tmp_path.glob("*.whl")).stat().st_size < 20e6
