"""Scores of pictures and sound as they come: a verdict a second on the last five seconds.

Pictures and sound are pushed on one clock: picture k is shown at k / 25 s, sample k is at k / 16000 s. Each
verdict is the `score_clip` of the last `window_s`; the same stretch of a file (`cut_clip`) gets the same
numbers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from lipsync.clips.clock import FRAME_HZ, ROWS_PER_FRAME
from lipsync.clips.cutting import cut_sound
from lipsync.clips.features import (
    ClipFeatures,
    FaceFeatureStream,
    FrameFeatures,
    collect_tracks,
)
from lipsync.clips.sounds import NUMPY, SoundFeatures, SoundFeatureStream
from lipsync.sync.answers import judged_details, without_nan
from lipsync.sync.methods import Method
from lipsync.sync.opening import open_method
from lipsync.sync.scoring import ClipScore, score_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW_S = 4.5  # with the look-ahead of the faces, the first verdict comes within 5 s of material
STEP_S = 1.0
MAX_SOUND_BEHIND_S = 2.0  # a verdict waits this long for its sound, then does without


@dataclass(frozen=True)
class LiveScore:
    """A verdict on a stretch of a live source.

    Attributes:
        start_s, end_s: The stretch, on the clock of the stream.
        score: As of a clip; its times count from start_s.
    """

    start_s: float
    end_s: float
    score: ClipScore

    @property
    def offset_ms(self) -> float:
        """Positive: the audio is early; nan where none stands out."""
        return self.score.judgement.offset_ms


class SyncStream:
    """Scores a live source; use it as a context manager. Memory does not grow.

    Args:
        method: As `LipSyncInference.method`; None: the model that comes with the package.
        window_s: Length of the material of each verdict.
        step_s: Time between verdicts.
        max_faces: Followed at the same time.
        crop_px: Side of the mouth crops.
        num_mels, num_mfcc, features: As in `lipsync.clips.sounds`.
    """

    def __init__(
        self,
        method: Method | None = None,
        *,
        window_s: float = WINDOW_S,
        step_s: float = STEP_S,
        max_faces: int = 4,
        crop_px: int = 96,
        num_mels: int = 40,
        num_mfcc: int = 13,
        features: str = NUMPY,
    ) -> None:
        self._method = method or open_method()
        self._window = max(round(window_s * FRAME_HZ), 1)
        self._step = max(round(step_s * FRAME_HZ), 1)
        self._pictures = FaceFeatureStream(
            max_faces, crop_px, with_mouths=self._method.estimator.needs_mouths
        )
        self._sounds = SoundFeatureStream(num_mels, num_mfcc, features)
        # A verdict that waits for its sound is made of pictures that are older by that wait.
        self._max_frames = self._window + math.ceil(MAX_SOUND_BEHIND_S * FRAME_HZ)
        self._frames: deque[FrameFeatures] = deque(maxlen=self._max_frames)
        self._num_frames = 0  # finished so far
        self._due = self._window  # frames after which the next verdict is made
        self._rows = self._sounds.push(np.zeros(0, np.float32))
        self._first_row = 0  # number of the first row in `_rows`

    def push_frame(self, image_rgb: NDArray[np.uint8]) -> list[LiveScore]:
        """Takes the next picture, (H, W, 3) uint8; 25 come a second. Returns the verdicts now due."""
        return self._take(self._pictures.push(image_rgb))

    def push_sound(self, samples: NDArray[np.float32]) -> list[LiveScore]:
        """Takes the next (n,) mono samples at 16 kHz, of any number. Returns the verdicts now due."""
        self._keep(self._sounds.push(samples))
        return self._due_verdicts()

    def finish(self) -> list[LiveScore]:
        """The last verdict, on the last `window_s` at the end, when nothing follows."""
        self._keep(self._sounds.finish())
        done = self._take(self._pictures.finish())
        if self._num_frames and (not done or round(done[-1].end_s * FRAME_HZ) < self._num_frames):
            done.append(self._score(self._num_frames))
        return done

    def _keep(self, new: SoundFeatures) -> None:
        rows = replace(
            new,
            log_mel=np.concatenate([self._rows.log_mel, new.log_mel]),
            mfcc=np.concatenate([self._rows.mfcc, new.mfcc]),
        )
        oldest = ROWS_PER_FRAME * (self._num_frames - self._max_frames)
        spare = min(max(oldest - self._first_row, 0), len(rows.log_mel))
        self._rows = cut_sound(rows, spare, len(rows.log_mel))
        self._first_row += spare

    def _take(self, frames: Sequence[FrameFeatures]) -> list[LiveScore]:
        done = []
        for frame in frames:
            # Scores do not need the picture of the face, which takes 200 kB.
            faces = tuple(replace(face, face_rgb=face.face_rgb[:1, :1].copy()) for face in frame.faces)
            self._frames.append(replace(frame, faces=faces))
            self._num_frames += 1
            done += self._due_verdicts()  # after each picture: the next ones push the oldest out
        return done

    def _due_verdicts(self) -> list[LiveScore]:
        """The verdicts whose pictures and sound have come, or that have waited for the sound in vain."""
        done = []
        while self._num_frames >= self._due:
            num_rows = self._first_row + len(self._rows.log_mel)
            is_behind = num_rows < ROWS_PER_FRAME * self._due
            if is_behind and self._num_frames - self._due < MAX_SOUND_BEHIND_S * FRAME_HZ:
                break
            done.append(self._score(self._due))
            self._due += self._step
        return done

    def _score(self, end: int) -> LiveScore:
        """The verdict on the window before frame `end`."""
        start = max(end - self._window, 0)
        frames = [frame for frame in self._frames if start <= frame.index < end]
        tracks, num_frames, shots = collect_tracks(frames)
        first = ROWS_PER_FRAME * start - self._first_row
        sound = cut_sound(self._rows, max(first, 0), max(ROWS_PER_FRAME * end - self._first_row, 0))
        # The clip begins with the window: tracks and shots are counted from its first frame.
        shifted = tuple(replace(track, start=track.start - start) for track in tracks)
        clip = ClipFeatures(num_frames, tuple(shot - start for shot in shots), shifted, sound)
        with threadpool_limits(1, user_api="blas"):  # as inference.py scores
            score = score_clip(clip, self._method.estimator, self._method.calibration)
        return LiveScore(start / FRAME_HZ, end / FRAME_HZ, score)

    def close(self) -> None:
        """Closes the tracker of the faces; safe to call again."""
        self._pictures.close()

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def live_plain(live: LiveScore, delay_s: float | None = None, left_out_s: float = 0.0) -> dict[str, object]:
    """A verdict as plain values, for JSON.

    Args:
        live: The verdict.
        delay_s: From its end to the newest material of a live stream; None: no live stream.
        left_out_s: Material of the stream that was left out so far.
    """
    judged = judged_details(live.score.judgement)
    names = (
        "score",
        "offset_ms",
        "offset_interval_ms",
        "best_guess_ms",
        "best_guess_odds",
        "verdict",
        "reason",
    )
    times: dict[str, object] = {"start_s": live.start_s, "end_s": live.end_s}
    if delay_s is not None:
        times |= {"delay_s": round(delay_s, 2), "left_out_s": round(left_out_s, 2)}
    return times | {name: without_nan(value) for name, value in judged.items() if name in names}


def live_text(live: LiveScore, delay_s: float | None = None) -> str:
    """One line for a terminal; `delay_s` as in `live_plain`."""
    score = live.score.judgement.score
    text = "   ?" if math.isnan(score) else f"{score:.2f}"
    delay = "" if delay_s is None else f"  delay {delay_s:.1f} s"
    return f"{live.start_s:7.1f} - {live.end_s:5.1f} s{delay}  {text}  {live.score.judgement.verdict.text}"
