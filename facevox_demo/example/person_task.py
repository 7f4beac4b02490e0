"""Base of the batches that make the files of one example person at a time."""

from __future__ import annotations

from pathlib import Path

import cv2
from threadpoolctl import threadpool_limits

from facevox.batch import Outcome, Task
from facevox_demo.example import sources
from facevox_demo.example.people import PersonItem


class PersonTask(Task[PersonItem]):
    """Makes the files of one person; a derived class has `write_person`."""

    def check(self) -> None:
        """Checks that the two portraits are there."""
        sources.check_files()

    def open(self, output_dir: Path) -> None:
        """Keeps OpenCV to one thread: the workers share the cores."""
        super().open(output_dir)
        cv2.setNumThreads(1)

    def process(self, item: PersonItem) -> Outcome:
        """Writes the files of the person `item.index`."""
        # How BLAS adds depends on its threads, and workers have fewer of them.
        with threadpool_limits(1, user_api="blas"):
            return self.write_person(item)

    def write_person(self, item: PersonItem) -> Outcome:
        """Writes the files of the person `item.index`, with one thread."""
        raise NotImplementedError
