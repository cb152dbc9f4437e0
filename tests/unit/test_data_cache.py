"""What is kept between runs is either what was kept, byte for byte, or not there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tacit.data.cache import keep_table, kept_table

TABLE = pa.table({"path": [f"{number}.png" for number in range(50)], "size": list(range(50))})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path))
    return tmp_path


def test_a_table_comes_back_as_it_was():
    keep_table("listings/one", TABLE)
    assert kept_table("listings/one") == TABLE
    assert kept_table("listings/other") is None


def test_any_damaged_byte_makes_a_table_unknown(cache: Path):
    keep_table("one", TABLE)
    file = cache / "one.arrow"
    sound = file.read_bytes()
    for place in range(0, len(sound), 7):
        file.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        assert kept_table("one") is None
    file.write_bytes(sound)
    assert kept_table("one") == TABLE


def test_a_table_without_its_checksum_is_unknown(cache: Path):
    keep_table("one", TABLE)
    (cache / "one.crc").unlink()
    assert kept_table("one") is None
