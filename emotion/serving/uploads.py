"""Receiving an uploaded file into memory: it is never on the disk.

Starlette's own forms put what is larger than a megabyte into a temporary file.
"""

import asyncio

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from emotion.serving.memory import MemoryFile
from emotion.serving.refusals import Refusal

FIELD = b"file"
ENVELOPE_BYTES = 10_000  # boundaries, part headers, small fields next to the file
ARRIVAL_S = 120.0  # of a whole file
CHUNK_S = 10.0  # of its next piece
MOST_PARTS = 100  # of a form
# After t seconds (t - START_S) * LEAST_BYTES_PER_S must have arrived: the slowest mobile networks do that.
START_S, LEAST_BYTES_PER_S = 5.0, 10_000


class _FilePart:
    """The callbacks of python_multipart that write the first part named `file` and skip others."""

    def __init__(self, file: MemoryFile) -> None:
        self._file = file
        self._name, self._value = bytearray(), bytearray()
        self._is_file = False
        self.num_files = self._num_parts = 0

    def on_part_begin(self) -> None:
        self._is_file = False
        self._num_parts += 1
        if self._num_parts > MOST_PARTS:
            raise Refusal("missing_file")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if options.get(b"name") == FIELD and self.num_files == 0:
                self._is_file = True
                self.num_files = 1
        self._name.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file.write(data[start:end])


async def receive_file(request: Request, file: MemoryFile, max_bytes: int) -> None:
    """Writes the field `file` of a form into `file`.

    Raises:
        Refusal: missing_file, too_large (by Content-Length before anything is read), too_slow.
        starlette.requests.ClientDisconnect: The client went away.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:  # RFC 2046
        raise Refusal("missing_file")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:18]) > max_bytes + ENVELOPE_BYTES:
        raise Refusal("too_large")
    part = _FilePart(file)
    callbacks = {
        name: getattr(part, name)
        for name in ("on_part_begin", "on_header_field", "on_header_value", "on_header_end", "on_part_data")
    }
    parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(ARRIVAL_S):
            await _feed(request, parser, file, max_bytes)
    except TimeoutError:
        raise Refusal("too_slow") from None
    except FormParserError:
        raise Refusal("missing_file") from None
    if file.size == 0:
        raise Refusal("missing_file" if part.num_files == 0 else "not_media")


async def _feed(request: Request, parser: MultipartParser, file: MemoryFile, max_bytes: int) -> None:
    num_bytes = 0
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    chunks = request.stream().__aiter__()
    while True:
        try:
            slowest_s = start_s + START_S + num_bytes / LEAST_BYTES_PER_S
            async with asyncio.timeout_at(min(loop.time() + CHUNK_S, slowest_s)):
                chunk = await chunks.__anext__()
        except StopAsyncIteration:
            break
        num_bytes += len(chunk)
        if num_bytes > max_bytes + ENVELOPE_BYTES:
            raise Refusal("too_large")
        parser.write(chunk)
        if file.size > max_bytes:
            raise Refusal("too_large")
    parser.finalize()
