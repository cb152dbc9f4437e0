"""The numbers of a run for TensorBoard."""

# pyright: reportAttributeAccessIssue=false
# (Protocol buffers make their classes when they are imported.)
from __future__ import annotations

import time
from pathlib import Path


class Events:
    """A file of TensorBoard events, written as it goes: `SummaryWriter` hands them to a thread, where a full disk goes unheard.

    Args:
        folder: where it lies.
        step: where the run goes on. The file is named by it, so that files follow one another whatever the clock says, and
            TensorBoard forgets what an earlier file holds from that step on.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard.summary import scalar

        self._event, self._scalar = event_pb2.Event, scalar
        folder.mkdir(exist_ok=True)
        self._file = open(folder / f"events.out.tfevents.{step:010d}", "wb")  # noqa: SIM115 - closed by close()
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def add(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._write(step=step, summary=self._scalar(name, value))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: object) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
