"""Readers for the tests of extraction: without FaceMesh, and with members that do what their name says.

Run as a program it is an extraction to be stopped or killed: ARCHIVE OUTPUT_DIR WORKERS.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from emotion.data.aihub.archives import Archive
from emotion.landmarks.extraction import ExtractConfig, PictureItem, PictureJob, run_extraction
from emotion.landmarks.shards import NUM_POINTS
from facevox import cli
from facevox.batch import BatchOptions, Outcome

SHARD_PICTURES = 5


def points_of(data: bytes) -> np.ndarray:
    """Landmarks that depend on the content alone."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    return np.random.default_rng(seed).random((NUM_POINTS, 3), np.float32)


def release_file(archive: Path) -> Path:
    """File that a test makes when the waiting pictures of `archive` may continue."""
    return archive.with_suffix(".go")


class FakeJob(PictureJob):
    """Landmarks from the bytes of a member; `crash`, `hang` and `wait` in a name are done.

    A picture that waits does so until there is the file that `release_file` names.
    """

    def open(self, output_dir: Path) -> None:
        self._archives: dict[str, Archive] = {}

    def read(self, item: PictureItem) -> Outcome:
        picture = item.picture
        if "crash" in picture.member:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in picture.member:
            time.sleep(1000)
        while "wait" in picture.member and not release_file(Path(item.path)).exists():
            time.sleep(0.01)
        archive = self._archives.setdefault(item.path, Archive(item.path))
        points = points_of(archive.read(picture.offset))
        row = {"points": points.tobytes(), "width": 10, "height": 20, "reduction": 1, "faces": 1}
        return Outcome(rows=[row | {"status": "done", "reason": ""}])

    def close(self) -> None:
        for archive in self._archives.values():
            archive.close()


def main(argv: list[str] | None = None) -> int:
    archive, output_dir, workers = argv or sys.argv[1:]
    config = ExtractConfig(zips=(Path(archive),), output_dir=Path(output_dir), shard_pictures=SHARD_PICTURES)
    options = BatchOptions(workers=int(workers), debug=workers == "0")
    return run_extraction(config, options, FakeJob).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
