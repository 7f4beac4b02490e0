"""One file a clip: the features of `lipsync.clips.features.ClipFeatures` in a compressed NumPy archive.

Arrays of an .npz of format 1 (no pickles; T tracks with N frames in all, R rows of sound):

    format       ()            int
    num_frames   ()            of the pictures, at 25 a second
    shot_starts  (shots,)      first frame of each shot
    tracks       (T, 4)        id, first frame, shot, number of frames; the rows below follow one another
    mouths       (N, S, S)     uint8
    lips         (N, 40, 2)    float16, in the crop from -1 to 1 (a step of 0.001: a twentieth of a pixel)
    opening      (N,)          float32
    boxes_px     (N, 4)        float32
    is_measured  (N,)          bool
    faces_rgb    (T, F, F, 3)  uint8
    log_mel      (R, bands)    float16, dB (a step of 0.06)
    mfcc         (R, coeff.)   float16
    source       (bytes,)      uint8: JSON of names (video, audio, speaker; features: numpy or librosa)
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.archives import check_members
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault
from facevox.files import write_arrays
from facevox.mesh.kinds import require_face_mesh
from lipsync.clips.features import ClipFeatures, FaceTrack
from lipsync.clips.mouths import NUM_LIP_POINTS
from lipsync.clips.sounds import SoundFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
MAX_CLIP_BYTES = 8_000_000_000  # unpacked; two hours of four faces are 6.6 GB
FREE_BYTES = 200_000_000  # unpacked, whatever the file has ...
LARGEST_RATIO = 20  # ... and 20 times its size; mouths are packed to a third
_FORMS: Mapping[str, tuple[str, tuple[int | None, ...]]] = {
    # dtype and shape; None: any
    "format": ("int64", ()),
    "num_frames": ("int64", ()),
    "shot_starts": ("int64", (None,)),
    "tracks": ("int64", (None, 4)),
    "mouths": ("uint8", (None, None, None)),
    "lips": ("float16", (None, NUM_LIP_POINTS, 2)),
    "opening": ("float32", (None,)),
    "boxes_px": ("float32", (None, 4)),
    "is_measured": ("bool", (None,)),
    "faces_rgb": ("uint8", (None, None, None, 3)),
    "log_mel": ("float16", (None, None)),
    "mfcc": ("float16", (None, None)),
    "source": ("uint8", (None,)),
}


def write_clip(path: str | Path, clip: ClipFeatures, source: Mapping[str, str], *, sync: bool = True) -> None:
    """Writes a clip that has at least one track; `source` holds names (video, audio, …).

    Raises:
        ValueError: It has no track.
    """
    if not clip.tracks:
        raise ValueError(f"{path}: there is no face in this clip")
    tracks = clip.tracks
    content: dict[str, NDArray[np.generic] | np.int64 | list[NDArray[np.uint8]]] = {
        "format": np.int64(FORMAT),
        "num_frames": np.int64(clip.num_frames),
        "shot_starts": np.array(clip.shot_starts, np.int64),
        "tracks": np.array([(t.track_id, t.start, t.shot, len(t)) for t in tracks], np.int64),
        "mouths": [t.mouths for t in tracks],
        "lips": np.concatenate([t.lips for t in tracks]).astype(np.float16),
        "opening": np.concatenate([t.opening for t in tracks]),
        "boxes_px": np.concatenate([t.boxes_px for t in tracks]),
        "is_measured": np.concatenate([t.is_measured for t in tracks]),
        "faces_rgb": np.stack([t.face_rgb for t in tracks]),
        "log_mel": clip.sound.log_mel.astype(np.float16),
        "mfcc": clip.sound.mfcc.astype(np.float16),
        "source": np.frombuffer(json.dumps(dict(source)).encode("ascii"), np.uint8),
    }
    write_arrays(path, content, compression=zipfile.ZIP_DEFLATED, sync=sync)


def load_clip(path: str | Path) -> tuple[ClipFeatures, dict[str, str]]:
    """The clip in a file, and the names of what it was made from.

    Half-precision arrays come back as float32.

    Raises:
        UserError: No such file, or not a clip.
    """
    try:
        content = _read_arrays(Path(path))
        source = json.loads(content["source"].tobytes())
        if not isinstance(source, dict):
            raise ValueError("its source is not a table of names")
        require_face_mesh(source, path)
        clip = _clip(content)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # of damaged archives NumPy, zipfile and zlib raise anything
        reason = file_fault(path, "clip") or one_line(error)
        raise UserError(f"{path}: not a clip of data_processing.py: {reason}; make it again") from None
    return clip, {str(key): str(value) for key, value in source.items()}


def _read_arrays(path: Path) -> "dict[str, NDArray[Any]]":
    # A small archive can unpack to anything: its directory is read before its arrays.
    with zipfile.ZipFile(path) as archive:
        most_bytes = min(FREE_BYTES + LARGEST_RATIO * path.stat().st_size, MAX_CLIP_BYTES)
        check_members(archive.infolist(), most_bytes)
    with np.load(path, allow_pickle=False) as archive:
        missing = sorted(set(_FORMS) - set(archive.files))
        if missing:
            raise ValueError(f"without {', '.join(missing)}")
        content = {name: np.asarray(archive[name]) for name in _FORMS}
    for name, (dtype, shape) in _FORMS.items():
        array = content[name]
        fits = len(shape) == array.ndim and all(
            size is None or size == actual for size, actual in zip(shape, array.shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    if int(content["format"]) != FORMAT:
        raise ValueError(f"format {int(content['format'])}, this program reads {FORMAT}")
    return content


def _clip(content: "dict[str, NDArray[Any]]") -> ClipFeatures:
    """The clip of arrays that `_read_arrays` has checked one by one; here their lengths are compared."""
    tracks = []
    lengths = content["tracks"][:, 3]
    rows = ("mouths", "lips", "opening", "boxes_px", "is_measured")
    if (lengths < 1).any() or any(len(content[name]) != lengths.sum() for name in rows):
        raise ValueError("its tracks and their frames differ in number")
    if len(content["faces_rgb"]) != len(lengths) or len(content["mfcc"]) != len(content["log_mel"]):
        raise ValueError("its arrays differ in length")
    first = 0  # row of the track's first frame: the frames of all tracks follow one another
    for number, (track_id, start, shot, length) in enumerate(content["tracks"].tolist()):
        part = slice(first, first + length)
        tracks.append(
            FaceTrack(
                track_id=track_id,
                start=start,
                shot=shot,
                mouths=content["mouths"][part],
                lips=content["lips"][part].astype(np.float32),
                opening=content["opening"][part],
                boxes_px=content["boxes_px"][part],
                is_measured=content["is_measured"][part],
                face_rgb=content["faces_rgb"][number],
            )
        )
        first += length
    sound = SoundFeatures(content["log_mel"].astype(np.float32), content["mfcc"].astype(np.float32))
    return ClipFeatures(
        int(content["num_frames"]), tuple(content["shot_starts"].tolist()), tuple(tracks), sound
    )
