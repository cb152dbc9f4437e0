"""What `config.toml` has to hold before a run is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tacit.core.errors import TacitError
from tacit.train.config import Training, validated
from tacit.train.folder import RunFolder

WHOLE: dict[str, Any] = {
    "run": {"method": "mae", "device": "cpu"},
    "data": {"path": "photos", "kind": "image", "fingerprint": "0"},
    "spec": {"kind": "image", "channels": 3, "size": [8, 8]},
    "train": {"encoder": "vit-mini/4"},
    "method": {},
    "origin": {"train.lr": "given"},
    "usual": {"lr": 0.1},
}


@pytest.mark.parametrize("part", [None, "run", "data", "train", "method", "origin", "usual"])
def test_a_garbled_part_of_a_configuration_is_refused_by_name(tmp_path: Path, part: str | None):
    folder = RunFolder(tmp_path)
    folder.write_config(WHOLE if part is None else WHOLE | {part: "x"})
    if part is None:
        assert folder.read_config() == WHOLE
    else:
        with pytest.raises(TacitError, match=part):
            folder.read_config()


def test_steps_between_checkpoints_may_be_a_number_or_a_text_and_nothing_else():
    assert [validated(Training, {"checkpoint_every": every}, "train").checkpoint_every for every in (2, "2", "30s")] == [
        "2", "2", "30s",
    ]  # fmt: skip
    for every in (2.5, "a lot", -3, None):
        with pytest.raises(TacitError, match=r"^train: checkpoint_every = [^\n]*(seconds|string)"):
            validated(Training, {"checkpoint_every": every}, "train")
