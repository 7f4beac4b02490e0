"""TensorBoard event files, written without TensorFlow.

`torch.utils.tensorboard` and tensorboard's own event writer import TensorFlow where it is installed (seconds,
hundreds of megabytes); its record format and protocol buffers alone do not.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path


class EventWriter:
    """Appends scalars to a new event file; a context manager.

    Args:
        log_dir: Folder of the file; created if missing.
        first_step: TensorBoard drops earlier values from this step on: a run that ended before its next
            checkpoint wrote them.
    """

    def __init__(self, log_dir: str | Path, first_step: int = 0) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes a number for each tag."""
        parts = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self._summary(value=parts))

    def _write(self, **fields: object) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def remove_events(log_dir: str | Path) -> None:
    """Removes the event files of an earlier run."""
    for file in Path(log_dir).glob("events.out.tfevents.*"):
        file.unlink()
