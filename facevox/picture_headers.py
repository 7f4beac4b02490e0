"""Pictures that would take minutes to decode, by a look at their markers and chunks.

A few bytes can ask for much work: a progressive JPEG may have any number of scans, each of which goes over
the whole picture (a camera writes 1, a progressive one about 10), and Pillow walks over markers and chunks
one by one in Python.
"""

import re

MAX_SCANS = 64
# Markers of a JPEG, with the bytes between them that are none; 255 hold the largest colour profile.
MAX_MARKERS = 20_000
MAX_CHUNKS = 100_000
_FREE_CHUNKS = 10_000  # an animated PNG has two for each picture
_CHUNK_BYTES = 2048  # of the file for each further chunk; encoders write 8 kB and more in one
_NOT_FILL = re.compile(b"[^\xff]")
# In coded data a byte FF is followed by 00, or by the number of a restart.
_MARKER = re.compile(b"\xff+([\x01-\xcf\xd8-\xfe])")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Markers without a segment after them: TEM, RSTn, SOI, EOI, and those that Pillow takes for such.
_ALONE = frozenset([0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)])


def cost_fault(data: bytes) -> str:
    """The reason why a picture would take too long to decode; "" for others, and for other formats."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_fault(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_fault(data)
    return ""


def _jpeg_fault(data: bytes) -> str:
    # Up to the first scan as Pillow walks, which steps over fill and junk bytes one by one.
    position, steps = 2, 0
    while steps <= MAX_MARKERS:
        start = data.find(b"\xff", position)
        first = _NOT_FILL.search(data, start) if start >= 0 else None
        if first is None:
            steps += len(data) - position
            break
        code, after = data[first.start()], first.end()
        steps += after - position
        if code == _START_OF_SCAN:
            return _scans_fault(data, after)
        position = after
        if code and code not in _ALONE:
            position += int.from_bytes(data[after : after + 2], "big")
    return f"a JPEG of more than {MAX_MARKERS} markers" if steps > MAX_MARKERS else ""


def _scans_fault(data: bytes, position: int) -> str:
    """The fault of a JPEG whose first scan is at `position`."""
    if data.count(b"\xff\xda", position) < MAX_SCANS:
        return ""
    # Some of them may be other data: a video after the picture, a preview in a segment.
    num_scans = num_markers = 0
    code = _START_OF_SCAN
    while code != _END_OF_IMAGE:
        num_scans += code == _START_OF_SCAN
        num_markers += 1
        if num_scans > MAX_SCANS:
            return f"a JPEG of more than {MAX_SCANS} scans"
        if num_markers > MAX_MARKERS:
            return f"a JPEG of more than {MAX_MARKERS} markers"
        if code not in _ALONE:
            position += int.from_bytes(data[position : position + 2], "big")
        marker = _MARKER.search(data, position)
        if marker is None:
            break
        code, position = marker[1][0], marker.end()
    return ""


def _png_fault(data: bytes) -> str:
    most = min(_FREE_CHUNKS + len(data) // _CHUNK_BYTES, MAX_CHUNKS)
    position = 8
    for _ in range(most):
        if position + 8 > len(data) or data[position + 4 : position + 8] == b"IEND":
            return ""
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return f"a PNG of more than {most} chunks"
