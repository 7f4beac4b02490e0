"""Options of the cleaning of a data set; cheap to import, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

from facevox.options import Options, choice, number, option, switch, where, whole

NO_CROP, FACE_CROP = "none", "face"
_SIDE = where(whole(64, 2048), lambda side: side % 2 == 0, "an even number from 64 to 2048")


@dataclass(frozen=True, kw_only=True)
class CleanOptions(Options):
    """Limits that a clip has to meet, and its form; all of them decide the results."""

    min_clip_s: float = option(2.0, number(0.5, 60), "shorter stretches of one face are dropped, in seconds")
    max_clip_s: float = option(
        10.0, number(1, 600), "longer stretches are cut, at pauses of the speech where there are any"
    )
    # The square of --crop face is 2.3 times as wide as the face: 256 pixels of the video, not enlarged.
    min_face_px: float = option(
        112.0, number(0, 4096), "least width of the face, without ears, in pixels of the video"
    )
    # Of 24 sample clips one, a film of the eighties, has 32 to 36; the others have 58 to 500.
    min_sharpness: float = option(
        40.0, number(0), "least variance of the Laplacian of the face at 112 x 112 pixels"
    )
    # Fluent speech has 0.5 to 0.85: closures and the pauses between words count as silence.
    min_speech_share: float = option(0.4, number(0, 1), "least share of a clip with speech")
    min_confidence: float = option(
        0.8, number(0, 1), "least probability that the clip ends up within --max_remaining_ms"
    )
    max_remaining_ms: float = option(
        40.0,
        number(10, 200),
        "most that sound and lips of a written clip may be apart; a frame of 25 a second",
    )
    other_face_share: float = option(
        1 / 3,
        number(0, 1),
        "faces narrower than this share of the main one are background; wider ones end the clip "
        "(default: 0.333)",
    )
    crop: str = option(
        NO_CROP,
        choice(NO_CROP, FACE_CROP),
        "none: whole pictures, which every training can crop in its own way; face: a square around the face",
    )
    size: int = option(512, _SIDE, "side of the square of --crop face, in pixels")
    fps: float | None = option(
        None, number(1, 120), "pictures a second of the clips (default: those of the video, at their times)"
    )
    check: bool = option(
        False, switch(), "measure each written clip again; drop it where it is surely not in sync"
    )
    table_only: bool = option(False, switch(), "write clips.csv and no clips, to choose the limits by")

    def contradictions(self) -> list[str]:
        """Lengths that leave a stretch which can neither stay whole nor be halved; a check of nothing."""
        faults = []
        if self.max_clip_s < 2 * self.min_clip_s:
            faults.append(
                f"--max_clip_s {self.max_clip_s:g}: at least twice --min_clip_s {self.min_clip_s:g} is "
                "expected, so that both halves of a longer stretch are long enough"
            )
        if self.check and self.table_only:
            faults.append("--check measures what is written; --table_only writes no clips")
        return faults
