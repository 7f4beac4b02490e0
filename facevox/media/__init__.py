"""Reading and writing video and sound by presentation time: all media decoding of the project.

The clock: 0 is the moment at which a player starts the file, so pictures and sound of one file share
it whatever their own start times, edit lists or codec delays are. Where the time stamps jump, as in
recordings that were joined byte by byte, each stream continues directly after the previous part.

`container` opens files and keeps the clock, `streams` says which stream is played, `display` makes a picture
of a frame, `pictures` and `sound` read, `writing` writes. `changes` knows the files that earlier versions
read otherwise. `sequences` adds HEIC sequences to Pillow.
"""

from facevox.media.changes import changed_kinds
from facevox.media.container import (
    FORMATS,
    MAX_GAP_S,
    RESET_S,
    Clock,
    MediaError,
    decoded_frames,
    open_media,
    start_of,
    stream_packets,
)
from facevox.media.pictures import (
    MAX_FRAME_PIXELS,
    Frame,
    MediaInfo,
    iter_frames,
    phase_s,
    probe,
    read_first_frame,
)
from facevox.media.sound import GAP_S, Downmix, checked_rate, iter_audio, packed_samples, read_audio
from facevox.media.streams import played_stream
from facevox.media.writing import write_timed_video, write_video, write_wav

__all__ = [
    "FORMATS",
    "GAP_S",
    "MAX_FRAME_PIXELS",
    "MAX_GAP_S",
    "RESET_S",
    "Clock",
    "Downmix",
    "Frame",
    "MediaError",
    "MediaInfo",
    "changed_kinds",
    "checked_rate",
    "decoded_frames",
    "iter_audio",
    "iter_frames",
    "open_media",
    "packed_samples",
    "phase_s",
    "played_stream",
    "probe",
    "read_audio",
    "read_first_frame",
    "start_of",
    "stream_packets",
    "write_timed_video",
    "write_video",
    "write_wav",
]
