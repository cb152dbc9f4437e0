"""A file is whole or absent, whoever writes it at the same time and whenever they are killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tacit.core import files

WRITERS = """
import random, sys
from pathlib import Path
from tacit.core import files
path, draw = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for _ in range(60):
    with files.replacing(path) as file:
        file.write(b"%d " % (length := draw.randrange(1, 100_000)))
        file.write(b"x" * length)
    length, _, content = path.read_bytes().partition(b" ")
    assert len(content) == int(length)
"""

KILLED = """
import os, signal, sys
from tacit.core import files
with files.replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_many_writers_of_one_file_leave_it_whole_and_nothing_else(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITERS, str(tmp_path / "file"), str(seed)]) for seed in range(4)]
    assert [process.wait(120) for process in running] == [0, 0, 0, 0]
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_writers_leave_does_not_pile_up(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "before")
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")]).returncode == -signal.SIGKILL
        assert (tmp_path / "file").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == [".file.0.part", "file"]
    files.write_text(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text() == "after"
    assert os.listdir(tmp_path) == ["file"]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "before")

    def content() -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "file") as file:
        file.write(b"after" + content())
    assert (tmp_path / "file").read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_readable_as_the_system_has_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_pipe_and_a_device_are_not_opened_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|[Ii]s a directory"):
            files.opened(path)
    files.write_text(tmp_path / "file", "content")
    with files.opened(tmp_path / "file") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file/below", "file exists; choose another place"),
        ("folder", "is a directory; choose another place"),
        ("x" * 300, "file name too long; choose a shorter name"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(files.Unwritable) as problem:
        files.write_text(tmp_path / name, "content")
    assert str(problem.value) == f"cannot write {tmp_path / name}: {said}"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_may_not_be_written_to_is_named(number: int, tmp_path: Path) -> None:
    with pytest.raises(files.Unwritable, match=f"cannot write {tmp_path}: .*; make it writable"), files.writing(tmp_path):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("letter", ["x", "ü", "\N{GRINNING FACE}"])
def test_a_name_as_long_as_the_system_allows_is_written(letter: str, tmp_path: Path) -> None:
    """255 bytes, to which nothing can be added for the time of writing."""
    name = letter * (255 // len(letter.encode()))
    files.write_text(tmp_path / name, "content")
    assert os.listdir(tmp_path) == [name]


def test_the_cause_is_found_behind_what_a_writer_in_another_language_raises(tmp_path: Path) -> None:
    def write() -> None:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        finally:
            raise RuntimeError("unexpected position")

    with pytest.raises(files.Unwritable, match="disk quota exceeded; free some of your quota"), files.writing(tmp_path):
        write()
    with pytest.raises(RuntimeError), files.writing(tmp_path):
        raise RuntimeError("of another kind")


def test_a_lock_is_waited_for_by_whoever_wants_to(tmp_path: Path) -> None:
    holding = "import sys; from tacit.core import files\n"
    holding += "with files.locked(sys.argv[1], print): print('held', flush=True); sys.stdin.readline()"
    line = [sys.executable, "-c", holding, str(tmp_path / "lock")]
    other = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    told: list[str] = []

    def busy(holder: str) -> None:
        told.append(holder)
        other.communicate("\n")  # it ends, and lets go

    with files.locked(tmp_path / "lock", busy):
        assert [holder.split(" on ")[0] for holder in told] == [f"process {other.pid}"]
