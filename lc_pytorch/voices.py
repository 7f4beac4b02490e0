"""The voices of videos: each one's sound as a mono wav on the clock of its pictures."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facevox.batch import FileItem, Outcome, Task
from facevox.errors import NoSpeechError, UserError
from facevox.files import relative_name
from facevox.naming import plan_names
from facevox.options import Options, option, switch, whole
from facevox.sound_choice import CHANNEL, CHANNEL_HELP, MIX, TRACK, TRACK_HELP, SoundChoice
from facevox.speech import ABOVE_FLOOR_DB, FRAME_S, LevelMeter, speech_frames

COLUMNS = ("video", "voice_file", "start_s", "duration_s", "rate_hz", "rms_db", "peak", "speech_share")
# A pause up to this long belongs to the stretch of speech around it; longer ones divide it.
MAX_PAUSE_S = 0.6
MARGIN_S = 0.1  # kept before and after a stretch, for soft onsets


@dataclass(frozen=True, kw_only=True)
class VoiceConfig(Options):
    """Settings of the voices that are written."""

    target_sr: int = option(16000, whole(4000, 192_000), "sample rate of the wavs, in Hz")
    trim_silence: bool = option(False, switch(has_no=True), "write only the longest stretch with speech")
    audio_channel: str = option(MIX, CHANNEL, CHANNEL_HELP, metavar="mix|left|right|N")
    audio_track: str = option("", TRACK, TRACK_HELP, metavar="N|LANG")

    @property
    def choice(self) -> SoundChoice:
        """The track and the channel."""
        return SoundChoice(self.audio_channel, self.audio_track)


class VoiceTask(Task[FileItem]):
    """Writes `<video without suffix>.wav` below the output folder for each video."""

    detector = f"of speech {ABOVE_FLOOR_DB:g} dB above the background"

    def __init__(self, config: VoiceConfig) -> None:
        self.config = config

    def process(self, item: FileItem) -> Outcome:
        """Decodes the sound of a video in blocks, so that hours of it need no memory.

        With `trim_silence` it is decoded twice: for the loudness, then for the stretch that is written.

        Raises:
            MediaError: The video has no sound or cannot be read.
            NoSpeechError: `trim_silence` is on and there is no speech in it.
        """
        from facevox.media import iter_audio, write_wav  # PyAV would slow down the program's --help

        rate_hz, choice = self.config.target_sr, self.config.choice
        notes: list[str] = []
        target = self.output_dir / item.output
        start = 0
        if self.config.trim_silence:
            start, stop = _find_speech(iter_audio(item.path, rate_hz, choice=choice), rate_hz)
            blocks = _cut(iter_audio(item.path, rate_hz, choice=choice, notes=notes), start, stop)
        else:
            blocks = iter_audio(item.path, rate_hz, choice=choice, notes=notes)
        first = next(blocks, None)  # before the file is opened: a video without sound leaves nothing
        if first is None:
            raise UserError("its sound track has no sample")
        meter = LevelMeter(rate_hz)
        count = write_wav(target, meter.watch(itertools.chain([first], blocks)), rate_hz, sync=False)
        row = {
            "video": item.name,
            "voice_file": item.output,
            "start_s": round(start / rate_hz, 4),
            "duration_s": round(count / rate_hz, 4),
            "rate_hz": rate_hz,
            **meter.values(),
        }
        return Outcome(rows=[row], outputs=[item.output], reason="; ".join(notes))

    def changes(self, item: FileItem) -> list[str]:
        """Kinds of sound that were read otherwise."""
        from facevox.media import changed_kinds

        return changed_kinds(item.path, sound=True)


def plan_voices(videos: Sequence[Path], root: Path) -> list[FileItem]:
    """An item for each video, with the name of its wav; two videos of one stem get two names."""
    names = [relative_name(path, root) for path in videos]
    targets = plan_names(names, ".wav")
    return [
        FileItem(name, str(path), target) for name, path, target in zip(names, videos, targets, strict=True)
    ]


def _find_speech(blocks: Iterator[NDArray[np.float32]], rate_hz: int) -> tuple[int, int]:
    """(first, one past last) sample of the longest stretch with speech; NoSpeechError where there is none."""
    meter = LevelMeter(rate_hz)
    for _ in meter.watch(blocks):
        pass
    stretch = longest_speech(meter.levels_db(), rate_hz, meter.count)
    if stretch is None:
        raise NoSpeechError(f"no speech in {meter.count / rate_hz:.1f} s of sound")
    return stretch


def _cut(blocks: Iterator[NDArray[np.float32]], start: int, stop: int) -> Iterator[NDArray[np.float32]]:
    """The samples from `start` to before `stop`; blocks after them are not read."""
    begin = 0  # of the block
    for block in blocks:
        part = block[max(start - begin, 0) : stop - begin]
        if len(part):
            yield part
        begin += len(block)
        if begin >= stop:
            return


def longest_speech(levels_db: NDArray[np.float32], rate_hz: int, num_samples: int) -> tuple[int, int] | None:
    """(first, one past last) sample of the longest stretch with speech, or None where there is none.

    Args:
        levels_db: Of each whole frame of FRAME_S, as `frame_levels_db` has them.
        rate_hz: Samples a second.
        num_samples: Of the sound; the margin after a stretch ends there.
    """
    frame = max(round(FRAME_S * rate_hz), 1)
    active = np.flatnonzero(speech_frames(levels_db))
    if not len(active):
        return None
    # A stretch ends where the next active frame comes after a pause that is too long to belong to speech.
    breaks = np.flatnonzero(np.diff(active) * FRAME_S > MAX_PAUSE_S)
    starts = active[np.concatenate([[0], breaks + 1])]
    stops = active[np.concatenate([breaks, [len(active) - 1]])] + 1
    best = int(np.argmax(stops - starts))
    margin = round(MARGIN_S * rate_hz)
    return max(int(starts[best]) * frame - margin, 0), min(int(stops[best]) * frame + margin, num_samples)
