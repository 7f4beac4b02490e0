"""Changes of files: cut off, bytes changed, blocks exchanged, members repacked, values of other kinds."""

import csv
import io
import json
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import yaml

ENDS_BYTES = 400  # headers and directories are there
DEEP, LONG = "@deep@", 200_000  # more than a cell of CSV may have
_DEEP_TEXT = "[" * 5000 + "]" * 5000
ODD: list[Any] = [
    *(None, True, -1, 0, 1, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63), 10**18, 10**400),
    *("", "x", "0", "a\0b", "\ud800", "../x", "1e999", "x" * LONG, DEEP),
    *([], {}, [[1]], [None], {"a": {}}, [0] * 1000),
]
ODD_CELLS = (
    "",
    "x",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 400,
    "9" * 5000,
    "a\0b",
    "=1+1",
    '"',
    "x" * LONG,
    "١",
)
VALUES = {"json", "jsonl", "yaml", "csv", "env"}  # formats of which values are changed as well
MEMBERS = {"npz", "pth", "zip"}  # formats whose members are repacked with a right checksum as well
CUT, MEMBER = "cut off", "member"


def mutate(data: bytes, form: str, rng: random.Random) -> tuple[str, bytes]:
    """The kind of the change, and the changed content of a file of that format."""
    draw = rng.random()
    if form in VALUES and draw < 0.6:
        return "values", _change_values(data, form, rng)
    if form in MEMBERS and draw < 0.3:
        return MEMBER, _change_member(data, rng)
    kinds = (CUT, "1 byte", "16 bytes", "256 bytes", "zeroed", "appended", "exchanged", "repeated")
    kind = rng.choice(kinds)
    return kind, _change_bytes(data, kind, rng)


def _change_bytes(data: bytes, kind: str, rng: random.Random) -> bytes:
    size = {"1 byte": 1, "16 bytes": 16}.get(
        kind, rng.choice([16, 256, 4096]) if kind != "256 bytes" else 256
    )
    size = min(size, max(len(data) // 2, 1))
    start, other = sorted((_position(data, rng), _position(data, rng)))
    if kind == CUT:
        return data[:start]
    if kind == "zeroed":
        return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]
    if kind == "appended":
        return data + (rng.randbytes(size) if rng.random() < 0.5 else data[start : start + size])
    if kind == "exchanged":
        other = max(other, start + size)
        first, second = data[start : start + size], data[other : other + size]
        return data[:start] + second + data[start + size : other] + first + data[other + size :]
    if kind == "repeated":
        return data[:start] + data[start : start + size] + data[start:]
    changed = bytearray(data)
    if size == 1 and data:
        changed[start] ^= 1 << rng.randrange(8)
    else:
        changed[start : start + size] = rng.randbytes(min(size, len(data) - start))
    return bytes(changed)


def _position(data: bytes, rng: random.Random) -> int:
    near_an_end = rng.random()
    if near_an_end < 0.3:
        return rng.randrange(min(len(data), ENDS_BYTES) or 1)
    if near_an_end < 0.45:
        return max(len(data) - 1 - rng.randrange(ENDS_BYTES), 0)
    return rng.randrange(max(len(data), 1))


def _change_member(data: bytes, rng: random.Random) -> bytes:
    """The archive with one member changed, left out or repeated, and all checksums right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as archive:
        # A tail of other bytes before the archive (.tflite) is left out with it.
        infos = source.infolist()
        chosen, way = rng.randrange(len(infos)), rng.random()
        for number, info in enumerate(infos):
            content = source.read(info)
            if number == chosen and way < 0.15:
                continue
            if number == chosen:
                content = _change_bytes(content, rng.choice(("1 byte", "16 bytes", "zeroed", CUT)), rng)
            archive.writestr(zipfile.ZipInfo(info.filename), content, info.compress_type)
    return target.getvalue()


def _change_values(data: bytes, form: str, rng: random.Random) -> bytes:
    text = data.decode("utf-8")
    if form == "json":
        changed = _dump(_change_value(json.loads(text), rng))
    elif form == "jsonl":
        lines = text.splitlines()
        number = rng.randrange(len(lines))
        lines[number] = _dump(_change_value(json.loads(lines[number]), rng))
        changed = "\n".join(lines) + "\n"
    elif form == "yaml":
        changed = yaml.safe_dump(_change_value(yaml.safe_load(text), rng), allow_unicode=True)
        changed = changed.replace(f"'{DEEP}'", _DEEP_TEXT)
    elif form == "csv":
        changed = _change_cell(text, rng)
    else:
        lines = text.splitlines()
        number = rng.choice([number for number, line in enumerate(lines) if "=" in line])
        name = lines[number].partition("=")[0]
        lines[number] = f"{name}={rng.choice([*ODD_CELLS, '${' + name + '}', '$(touch x)', chr(39)])}"
        changed = "\n".join(lines)
    return changed.encode("utf-8", "surrogatepass")


def _dump(value: Any) -> str:
    return json.dumps(value).replace(f'"{DEEP}"', _DEEP_TEXT)


def _change_value(value: Any, rng: random.Random) -> Any:
    """The value with one part replaced, removed or added; `value` itself may change."""
    path = rng.choice(list(_paths(value)))
    odd = rng.choice(ODD)
    if not path:
        return odd
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if rng.random() < 0.15:
        del parent[path[-1]]
    elif isinstance(parent, dict) and rng.random() < 0.1:
        parent["x" if isinstance(odd, list | dict) else str(odd)] = odd
    else:
        parent[path[-1]] = odd
    return value


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _change_cell(text: str, rng: random.Random) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    row = rng.choice(rows)
    column, way = rng.randrange(max(len(row), 1)), rng.random()
    if way < 0.1:
        del row[column:]
    elif way < 0.2:
        row += rng.choices(ODD_CELLS, k=3)
    else:
        row[column : column + 1] = [rng.choice(ODD_CELLS)]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()
