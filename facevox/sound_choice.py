"""The track and the channel of a file's sound. Importing this costs no PyAV."""

from dataclasses import dataclass

from facevox.options import text, where

MIX, LEFT, RIGHT = "mix", "left", "right"
CHANNEL = where(
    text(),
    lambda value: value in (MIX, LEFT, RIGHT) or (value.isdecimal() and int(value) > 0),
    "mix, left, right, or a number from 1",
)
TRACK = text("a number from 1, or a language", may_be_empty=True)
CHANNEL_HELP = "of the sound: mix, left, right, or its number from 1"
TRACK_HELP = 'of the sound: its number from 1, or its language (eng); "": the one that a player plays'


@dataclass(frozen=True)
class SoundChoice:
    """A track and a channel of a file's sound.

    Attributes:
        channel: "mix", "left", "right", or the number of a channel, from 1.
        track: "" for the track that a player plays, or its number from 1, or its language.
    """

    channel: str = MIX
    track: str = ""


PLAYED = SoundChoice()
