"""One target, led by the coverage of tacit's own lines: `python -m tests.fuzz.guided TARGET SECONDS CORPUS FOUND`.

libFuzzer (through atheris) keeps every input that reaches new lines in CORPUS; one that fails ends it, and lies in FOUND.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["tacit", "tarfile", "zipfile"]):
    from tests.fuzz.targets import refusal, targets


def main(name: str, seconds: int, corpus: Path, found: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    target = targets()[name]
    base = Path(tempfile.mkdtemp(prefix="tacit-fuzz-", dir=found))
    folder, saved = base / "here", base / "saved"
    os.environ["TACIT_CACHE"] = str(folder / "cache")
    folder.mkdir()
    os.chdir(base)
    attacked = target.prepare(folder)
    (corpus / "sound").write_bytes(attacked.read_bytes())
    assert refusal(target, folder) is None
    if target.mends:
        shutil.copytree(folder, saved)

    def one(content: bytes) -> None:
        if target.mends:
            shutil.rmtree(folder)
            shutil.copytree(saved, folder)
        attacked.write_bytes(content)
        refusal(target, folder)

    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=32768", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={found}/", *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).resolve(), Path(sys.argv[4]).resolve())
