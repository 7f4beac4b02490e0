"""The streams that a player plays, of the several that a file may have."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from av.stream import Disposition

from facevox.media.container import MediaError, open_media, until_damage

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

_Stream = TypeVar("_Stream", "VideoStream", "AudioStream")

# Sound that is not the film's own: said about it, instead of it, or for those who do not hear or see it.
_BESIDE = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.karaoke
    | Disposition.dub
)
_STILL_CODECS = frozenset({"png", "mjpeg", "bmp", "gif", "webp", "tiff"})
# A film of less than this share of the largest one's pixels is a preview of it, whatever its header says: an
# mp4 calls its first stream the default one.
_PREVIEW = 0.25
_LOOKED_AT = 400  # packets, to tell a still from a film where no header does


@overload
def played_stream(container: "InputContainer", kind: Literal["video"], path: str | Path) -> "VideoStream": ...
@overload
def played_stream(
    container: "InputContainer", kind: Literal["audio"], path: str | Path, track: str = ""
) -> "AudioStream": ...
def played_stream(
    container: "InputContainer", kind: Literal["video", "audio"], path: str | Path, track: str = ""
) -> "VideoStream | AudioStream":
    """The stream that a player plays.

    Pictures: one that is no preview, then a default one, then one that is no still, then the largest. Sound:
    a default one, then one that is neither a commentary nor a description, then the one with most channels.
    The first of equals.

    Args:
        container: The opened file.
        kind: Of the stream.
        path: For messages.
        track: Of sound: its number from 1, or its language; "": the one that is played.

    Raises:
        MediaError: There is none, or no decoder for any.
    """
    if kind == "audio":
        sounds = list(container.streams.audio)
        if sounds and track:
            return _named(sounds, track, path)
        return max(_decodable(sounds, kind, path), key=_sound_rank)
    # Cover pictures of sound files are streams of one frame; they are no video.
    films = [
        stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
    ]
    films = _decodable(films, kind, path)
    if len(films) == 1:
        return films[0]
    stills = _stills(films, path)
    largest = max((s.width * s.height for s in films if s.index not in stills), default=0)
    return max(
        films,
        key=lambda stream: (
            stream.width * stream.height >= _PREVIEW * largest,
            bool(stream.disposition & Disposition.default),
            stream.index not in stills,
            stream.width * stream.height,
            -stream.index,
        ),
    )


def _decodable(streams: list[_Stream], kind: str, path: str | Path) -> list[_Stream]:
    if not streams:
        raise MediaError(f"{path}: no {kind} stream")
    usable = [stream for stream in streams if stream.codec_context is not None]
    if not usable:
        raise MediaError(f"{path}: there is no decoder for its {kind}")
    return usable


def _sound_rank(stream: "AudioStream") -> tuple[bool, bool, int, int]:
    return (
        bool(stream.disposition & Disposition.default),
        not stream.disposition & _BESIDE,
        int(stream.channels or 0),
        -stream.index,
    )


def _named(sounds: "list[AudioStream]", track: str, path: str | Path) -> "AudioStream":
    if track.isdecimal():
        chosen = sounds[int(track) - 1 : int(track)] if int(track) > 0 else []
    else:
        chosen = [stream for stream in sounds if (stream.language or "").lower() == track.lower()]
    if not chosen:
        has = ", ".join(f"{number} ({track_text(stream)})" for number, stream in enumerate(sounds, start=1))
        raise MediaError(f"{path}: no sound track {track}; it has {has}")
    return _decodable(chosen, "audio", path)[0]


def track_text(stream: "AudioStream") -> str:
    """The language and the title of a sound track, for people."""
    words = [stream.language or "language unknown", str(stream.metadata.get("title", ""))]
    return " ".join(word for word in words if word)


def _stills(films: "list[VideoStream]", path: str | Path) -> set[int]:
    """The indices of the streams that are one picture."""
    stills = {
        stream.index for stream in films if stream.disposition & Disposition.still_image or stream.frames == 1
    }
    doubtful = {stream.index for stream in films if stream.index not in stills and not stream.frames}
    if doubtful:
        counts = dict.fromkeys(doubtful, 0)
        with open_media(path) as container:  # its own: the packets of the other are still to be read
            for number, packet in enumerate(
                until_damage(container.demux(video=tuple(range(len(container.streams.video)))))
            ):
                if packet.stream_index in counts and packet.size:
                    counts[packet.stream_index] += 1
                if number >= _LOOKED_AT or all(count > 1 for count in counts.values()):
                    break
        pictures = {stream.index for stream in films if stream.codec_context.name in _STILL_CODECS}
        stills |= {index for index, count in counts.items() if count <= (index in pictures) or count == 1}
    return stills
