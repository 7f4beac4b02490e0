"""The clips that the shipped model was trained on, as features: models of one's own are fitted on them too.

Lips and levels alone, no pictures and no sound; MODEL_CARD.md names author and licence of each clip.

Arrays of clips.npz (no pickles; C clips with N frames and R rows of sound in all):

    clips         (C, 4)        first frame of the track, frames, rows, offset in ms
    lips          (N, 40, 2)    float16, as in `lipsync.clips.clip_files`
    is_measured   (N,)          bool
    log_mel       (R, bands)    float16, dB
    names         (bytes,)      uint8: JSON of [name, person] of each clip
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError, one_line
from facevox.files import write_arrays
from lipsync.clips.features import FaceTrack
from lipsync.clips.sounds import NUMPY, SoundFeatures, mfcc_of
from lipsync.network.takes import Take

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = Path(__file__).with_name("clips.npz")
NUM_MFCC = 13


def write_shipped_takes(path: Path, takes: Sequence[Take]) -> None:
    """Writes the features of takes; raises ValueError without any."""
    if not takes:
        raise ValueError(f"{path}: no clip to write")
    rows = [
        (take.track.start, len(take.track), len(take.sound.log_mel), round(take.offset_ms)) for take in takes
    ]
    names = json.dumps([[take.name, take.speaker] for take in takes])
    content: dict[str, NDArray[Any]] = {
        "clips": np.array(rows, np.int64),
        "lips": np.concatenate([take.track.lips for take in takes]).astype(np.float16),
        "is_measured": np.concatenate([take.track.is_measured for take in takes]),
        "log_mel": np.concatenate([take.sound.log_mel for take in takes]).astype(np.float16),
        "names": np.frombuffer(names.encode("ascii"), np.uint8),
    }
    write_arrays(path, content)


@functools.cache
def load_shipped_takes(file: Path = FILE) -> tuple[Take, ...]:
    """The takes; their tracks have no pictures.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            content = {name: np.asarray(archive[name]) for name in archive.files}
        names = json.loads(content["names"].tobytes())
        takes, frame, row = [], 0, 0
        for (name, person), (start, num_frames, num_rows, offset_ms) in zip(
            names, content["clips"].tolist(), strict=True
        ):
            lips = content["lips"][frame : frame + num_frames].astype(np.float32)
            log_mel = content["log_mel"][row : row + num_rows].astype(np.float32)
            track = FaceTrack(
                track_id=0,
                start=start,
                shot=0,
                mouths=np.zeros((num_frames, 1, 1), np.uint8),
                lips=lips,
                opening=np.zeros(num_frames, np.float32),
                boxes_px=np.zeros((num_frames, 4), np.float32),
                is_measured=content["is_measured"][frame : frame + num_frames],
                face_rgb=np.zeros((1, 1, 3), np.uint8),
            )
            mfcc = mfcc_of(log_mel, NUM_MFCC, NUMPY).astype(np.float32)
            takes.append(Take(name, person, track, SoundFeatures(log_mel, mfcc), float(offset_ms)))
            frame, row = frame + num_frames, row + num_rows
    except Exception as error:  # of damaged archives NumPy, zipfile and zlib raise anything
        raise UserError(
            f"{file}: the clips of the package's lip-sync model cannot be read ({one_line(error)}); install "
            "facevox again"
        ) from None
    return tuple(takes)
