"""Suffixes of pictures, video and sound, and names that systems leave in folders.

Programs search folders for those that Pillow and PyAV read. The ones in `ADDED` came later: files with them
give way to others of the same stem, so that a folder that was filled before keeps the names of its results.
"""

from collections.abc import Iterable
from pathlib import PurePath

_FIRST_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_ADDED_PICTURES = (
    *(".jfif", ".jpe", ".mpo", ".tif", ".tiff", ".gif", ".dib"),
    *(".heic", ".heif", ".heics", ".hif", ".avif"),
)
_FIRST_VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v")
_ADDED_VIDEOS = (
    *(".mts", ".m2ts", ".m2t", ".ts", ".tp", ".trp", ".tod", ".vob", ".mpe", ".mpv", ".m1v", ".m2v", ".mxf"),
    *(".3gp", ".3g2", ".qt", ".f4v", ".flv", ".wmv", ".asf", ".wtv", ".ogv", ".ogm", ".mk3d", ".rm", ".rmvb"),
    *(".divx", ".xvid", ".dv", ".dav", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc"),
)
PICTURE_SUFFIXES = _FIRST_PICTURES + _ADDED_PICTURES
VIDEO_SUFFIXES = _FIRST_VIDEOS + _ADDED_VIDEOS
SOUND_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".ogg", ".aac", ".opus", ".wma", ".aiff", ".mka"),
    *(".aif", ".aifc", ".oga", ".m4b", ".3ga", ".weba", ".ac3", ".eac3", ".dts", ".amr", ".caf", ".au"),
    *(".w64", ".ape", ".wv", ".tta"),
)
ADDED = frozenset(_ADDED_PICTURES + _ADDED_VIDEOS)
# Each kind with suffixes that are not searched for, of files that cannot be read or seldom are of this kind.
_KINDS = (
    {
        *PICTURE_SUFFIXES,
        *(".jp2", ".j2k", ".jxl", ".psd", ".svg", ".ico", ".tga", ".exr", ".hdr", ".ppm", ".pgm"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw", ".pef", ".srw"),
    },
    {
        *VIDEO_SUFFIXES,
        *(".braw", ".r3d", ".ari", ".crm", ".insv", ".lrv", ".360", ".swf", ".bik", ".bk2", ".smk"),
        *(".mod", ".evo", ".nsv", ".amv", ".ifv", ".viv", ".y4m", ".ivf", ".gxf", ".nut", ".mj2"),
        *(".m2p", ".av1", ".obu", ".vc1", ".drc", ".ismv", ".roq", ".yuv", ".gifv", ".mp4v"),
    },
    {
        *SOUND_SUFFIXES,
        *(".dsf", ".dff", ".ra", ".mid", ".midi", ".voc", ".snd", ".sph", ".spx", ".mpc", ".mp2"),
        *(".mpga", ".pcm", ".gsm", ".aax", ".aa", ".alac", ".amb", ".qcp", ".act", ".dss", ".ds2"),
        *(".m4p", ".rf64", ".sd2", ".tak"),
    },
)
# Thumbnails, halves of files and waste that Synology, QNAP, macOS and Windows put next to people's files.
_SYSTEM_NAMES = frozenset(
    {"@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "lost+found"}
    | {"system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"}
)


def patterns(suffixes: Iterable[str]) -> tuple[str, ...]:
    """Patterns of file names with these suffixes."""
    return tuple(f"*{suffix}" for suffix in suffixes)


def system_name(name: str) -> str:
    """The name under which a file or folder of a system is counted; "" where `name` is none.

    "._x.jpg", the half of x.jpg that macOS writes on foreign disks, is "._*".
    """
    if name.startswith("._"):
        return "._*"
    return name if name.lower() in _SYSTEM_NAMES else ""


def is_added(path: str | PurePath) -> bool:
    """True for a picture or video whose suffix was not searched for at first."""
    return PurePath(path).suffix.lower() in ADDED


def related(searched: Iterable[str]) -> frozenset[str]:
    """All suffixes of the kinds of file that these patterns are of, also those that are not searched for."""
    suffixes = {PurePath(pattern).suffix.lower() for pattern in searched}
    return frozenset(suffix for kind in _KINDS if kind & suffixes for suffix in kind)
