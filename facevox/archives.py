"""ZIP files that are read whole: their members are looked at before anything is unpacked."""

import zipfile
from collections.abc import Iterable

READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_members(members: Iterable[zipfile.ZipInfo], most_bytes: int) -> None:
    """Refuses members that would unpack to more than is expected.

    Python unpacks bzip2 and LZMA without regard for the size that a member states.

    Args:
        members: All that will be read.
        most_bytes: The sum of their sizes.

    Raises:
        ValueError: They unpack to more, or are packed by another method than deflate.
    """
    num_bytes = 0
    for member in members:
        if member.compress_type not in READ_METHODS:
            raise ValueError(f"{member.filename} is packed by method {member.compress_type}, not by deflate")
        num_bytes += member.file_size
    if num_bytes > most_bytes:
        raise ValueError(f"{num_bytes} bytes unpacked; at most {most_bytes} are read")
