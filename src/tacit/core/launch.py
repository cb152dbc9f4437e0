"""One command, many processes: one per device, watched over, ended together. Whoever knows best says why, in one line."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tacit.core.errors import Echoed, Interrupted, Lost, Stopped, TacitError

NOTES = "TACIT_NOTES"
"""Names a folder in which the processes of one machine leave each other and their launcher notes:"""

LOST, INTERRUPTED, CODE = "lost", "interrupted", "code"
"""What one says that lost another or was asked to end, and the exit code of one that has said why it ends."""

GRACE = 60
"""Seconds that the other processes have to end by themselves when one ended too early, or when all are asked to."""

PAUSE = 5
"""Seconds that a process stays that lost another: the launcher is to find that one first, and knows what became of it."""


def launched() -> bool:
    """Whether a launcher that tells processes apart started this one. A batch script of SLURM is one process until `srun`."""
    return "RANK" in os.environ or ("SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ)


def place() -> int:
    """Which of the processes of this run this is."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) if launched() else 0


def on_many(devices: int, nodes: int) -> None:
    """Run this very command once per device, on every machine that gives it; exits as those processes do.

    Raises:
        Lost: one was killed, so that it cannot say anything itself.
    """
    if nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise TacitError(f"--nodes {nodes}: set MASTER_ADDR to the first machine's address on every machine")
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what is to be said is said below

    def ask_to_end(number: int, _: object) -> None:
        raise SignalException("asked to end", signal.Signals(number))  # the launcher hands it on and waits

    signal.signal(signal.SIGUSR1, ask_to_end)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE))
    with tempfile.TemporaryDirectory(prefix="tacit-") as notes:
        os.environ[NOTES] = notes
        address = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', '29400')}" if nodes > 1 else "localhost:0"
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=devices,
            rdzv_backend="c10d",
            rdzv_endpoint=address,
            run_id="tacit",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=notes),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "tacit.cli", *sys.argv[1:])
        except SignalException as stop:
            _pass_on(Path(notes, INTERRUPTED), 128 + stop.sigval)
        except ChildFailedError as failed:
            if (code := Path(notes, CODE)).exists():
                sys.exit(int(code.read_text()))  # that process has said why, whichever ended first
            # Those that were killed come first; those that lost them, or were asked to end because of them, come last.
            order = {Lost.exit_code: 3, 128 + signal.SIGTERM: 2, -signal.SIGTERM: 2}
            number, first = min(
                failed.failures.items(),
                key=lambda item: (order.get(item[1].exitcode, int(item[1].exitcode > 0)), item[1].timestamp),
            )
            if first.exitcode >= 0 and first.exitcode != Lost.exit_code:
                _pass_on(Path(notes, INTERRUPTED), first.exitcode)
            left = [path.read_text() for path in (Path(notes, LOST), Path(notes, INTERRUPTED)) if path.exists()]
            raise Lost(
                f"process {number} of {devices * nodes} "
                + (f"was killed ({first.signal_name()})" if first.exitcode < 0 else "lost another one, on another machine"),
                (left or ["`tacit resume RUN` goes on"])[0].rpartition("; ")[2],
            ) from None


def _pass_on(note: Path, code: int) -> None:
    """End as the processes did, with what they had to say where they were asked to end; a failure has said so itself."""
    if code > 128 and note.exists():
        print(f"tacit: {note.read_text()}", file=sys.stderr)
    sys.exit(code)


def tell(problem: TacitError) -> None:
    """Say in one line what ended this process, unless another one of the run says it, or the launcher knows better."""
    notes = os.environ.get(NOTES) if launched() else None
    if notes is not None and isinstance(problem, Lost | Interrupted):
        # Whether that was asked for or came of the end of another one, the launcher sees.
        Path(notes, LOST if isinstance(problem, Lost) else INTERRUPTED).write_text(str(problem))
        time.sleep(PAUSE if isinstance(problem, Lost) else 0)
        return
    if isinstance(problem, Echoed) or (place() and isinstance(problem, Stopped | Interrupted | Lost)):
        return  # the first one stops likewise, and speaks for all
    if notes is not None:
        try:
            open(Path(notes, hashlib.sha256(str(problem).encode()).hexdigest()), "x").close()
        except FileExistsError:
            return  # another one ran into the same, and said so
        Path(notes, CODE).write_text(str(problem.exit_code))
    print(f"tacit: {problem}", file=sys.stderr)
