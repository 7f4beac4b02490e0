"""An option, declared once: a dataclass field from which its flag, its check and its file reader are derived.

    @dataclass(frozen=True, kw_only=True)
    class VoiceConfig(Options):
        target_sr: int = option(16000, whole(4000, 192_000), "sample rate of the wavs, in Hz")

    cli.add_options(parser, VoiceConfig)         # --target_sr, its default and range
    config = cli.build(VoiceConfig, args)        # VoiceConfig(target_sr=1) raises UserError as well
    read_plain(declared(VoiceConfig)[0], "16k")  # a value of a YAML or .env file: ValueError

One declaration serves all sources: a list is `a,b,c` in .env, a YAML list in YAML, words on a command line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from facevox.errors import UserError
from facevox.file_kinds import special_kind

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_OPTION = "option"  # the key of a field's metadata


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


@dataclass(frozen=True)
class Kind(Generic[T_co]):
    """The values that an option takes.

    Attributes:
        read: Parses a text; raises ValueError (its message, if any, is shown instead of `expected`).
        expected: Description of a value: "a whole number of at least 1".
        is_valid: Whether a value made in Python is one.
        korean: `expected` in Korean, for the programs that use both languages.
        choices: The values, where there are few.
        is_switch: Yes or no: a flag without a value.
        has_no: There is a `--no-name` next to `--name` although the default is no.
        element: For several values, the kind of one; `read` takes them joined by commas.
    """

    read: Callable[[str], T_co]
    expected: str
    is_valid: Callable[[object], bool] = lambda value: True
    korean: str = ""
    choices: tuple[str, ...] = ()
    is_switch: bool = False
    has_no: bool = False
    element: Kind[object] | None = None


def whole(low: int = 0, high: int | None = None) -> Kind[int]:
    """A whole number from `low` to `high` (None: no limit)."""

    def is_valid(value: object) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return low <= value and (high is None or value <= high)

    def read(text: str) -> int:
        # At most 18 digits: Python takes quadratic time for long numbers.
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) or not is_valid(int(text)):
            raise ValueError
        return int(text)

    if high is None:
        return Kind(read, f"a whole number of at least {low}", is_valid, f"{low} 이상의 정수")
    return Kind(read, f"a whole number from {low} to {high}", is_valid, f"{low} 이상 {high} 이하의 정수")


def number(
    low: float = 0.0, high: float = math.inf, *, is_above: bool = False, is_below: bool = False
) -> Kind[float]:
    """A finite number from `low` to `high`; `is_above` and `is_below` exclude the ends themselves."""

    def is_valid(value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return (value > low if is_above else value >= low) and (value < high if is_below else value <= high)

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError from None  # without Python's message: `expected` is clearer
        if not is_valid(value):
            raise ValueError
        return value

    start = f"above {low:g}" if is_above else f"of at least {low:g}"
    korean = f"{low:g} {'초과' if is_above else '이상'}"
    if high == math.inf:
        return Kind(read, f"a number {start}", is_valid, f"{korean}의 수")
    korean += f" {high:g} {'미만' if is_below else '이하'}의 수"
    if is_above or is_below:
        end = f"{'below' if is_below else 'at most'} {high:g}"
        return Kind(read, f"a number {start} and {end}", is_valid, korean)
    return Kind(read, f"a number from {low:g} to {high:g}", is_valid, korean)


def choice(*names: str) -> Kind[str]:
    """One of `names`."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    listed = ", ".join(names)
    return Kind(read, f"one of {listed}", lambda value: value in names, f"{listed} 중 하나", names)


def switch(*, has_no: bool = False) -> Kind[bool]:
    """Yes or no: `--name`, and `--no-name` where the default is yes or with `has_no`."""
    return Kind(bool, "True or False", lambda value: isinstance(value, bool), is_switch=True, has_no=has_no)


def text(expected: str = "text", korean: str = "", *, may_be_empty: bool = False) -> Kind[str]:
    """A text."""
    return Kind(str if may_be_empty else _read_text, expected, lambda value: isinstance(value, str), korean)


def path(expected: str = "a path", korean: str = "") -> Kind[Path]:
    """The path of a file or folder, existing or not, with `~` as the home folder."""
    return Kind(_read_path, expected, _is_path, korean)


def several(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """One or more values of `kind`."""

    def read(value: str) -> tuple[T, ...]:
        return tuple(kind.read(part.strip()) for part in value.split(","))

    def is_valid(value: object) -> bool:
        return isinstance(value, tuple) and all(map(kind.is_valid, value))

    return Kind(read, f"one or more, each {kind.expected}", is_valid, element=kind)


def where(kind: Kind[T], holds: Callable[[T], bool], expected: str, korean: str = "") -> Kind[T]:
    """The values of `kind` for which `holds` is true."""

    def is_valid(value: object) -> bool:
        return kind.is_valid(value) and holds(cast(T, value))

    def read(text: str) -> T:
        value = kind.read(text)
        if not holds(value):
            raise ValueError
        return value

    return dataclasses.replace(kind, read=read, is_valid=is_valid, expected=expected, korean=korean)


DEVICE = choice("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Option:
    """A field of a dataclass that its user sets.

    Attributes:
        kind: The values that it takes.
        help: Its meaning.
        flag_default: Makes the flag's default where it differs from the field's.
        metavar: Placeholder of the value in `--help`.
        group: Title of its section in `--help`; "": the first one.
        name: Name of the field, and of the flag after `--`.
        default: None also where it is required.
        is_required: It has no default.
    """

    kind: Kind[object]
    help: str
    flag_default: Callable[[], object] | None = None
    metavar: str | None = None
    group: str = ""
    # What only the field itself knows; `declared` fills it in.
    name: str = ""
    default: object = None
    is_required: bool = True

    def fault(self, value: object) -> str | None:
        """The fault of a value made in Python; None: it has none."""
        is_absent = value is None and self.default is None and not self.is_required
        if is_absent or self.kind.is_valid(value):
            return None
        return f"{value!r} is not {self.kind.expected}"


def option(
    default: T,
    kind: Kind[T],
    help: str,
    *,
    flag_default: Callable[[], T] | None = None,
    metavar: str | None = None,
    group: str = "",
) -> T:
    """A field with a default; None as the default allows None.

    Args:
        default: Default of the field, and of the flag.
        kind: The values that it takes.
        help: Its meaning, as `--help` shows it.
        flag_default: Makes the default of the flag where the machine or the environment decides it.
        metavar: Placeholder of the value in `--help`.
        group: Title of its section in `--help`; "": the first one.
    """
    return field(default=default, metadata={_OPTION: Option(kind, help, flag_default, metavar, group)})


def required(kind: Kind[T], help: str, *, metavar: str | None = None, group: str = "") -> T:
    """A field without a default; otherwise as `option`."""
    declaration: T = field(metadata={_OPTION: Option(kind, help, None, metavar, group)})
    return declaration


def changed(config: type[Dataclass], name: str, default: T) -> T:
    """The field `name` of a base class with another default."""
    base = next(info for info in dataclasses.fields(config) if info.name == name)
    return field(default=default, metadata=base.metadata)


def default_of(config: type[Dataclass], name: str) -> Any:
    """The default of the field `name`."""
    return next(info for info in dataclasses.fields(config) if info.name == name).default


def declared(config: type[Dataclass]) -> list[Option]:
    """The options among the fields of a dataclass in their order, its own before those of base classes."""

    def depth(name: str) -> int:
        """Of the class that declares the field first; one that only changes its default does not count."""
        bases = enumerate(config.__mro__)
        return max(index for index, base in bases if name in vars(base).get("__annotations__", ()))

    return [
        dataclasses.replace(
            info.metadata[_OPTION],
            name=info.name,
            default=None if info.default is dataclasses.MISSING else info.default,
            is_required=info.default is dataclasses.MISSING,
        )
        for info in sorted(dataclasses.fields(config), key=lambda info: depth(info.name))
        if _OPTION in info.metadata
    ]


def read_plain(info: Option, value: object) -> object:
    """The value of an option, parsed from a scalar or a list of a YAML, JSON or .env file.

    Raises:
        ValueError: It is not as `info.kind.expected` describes.
    """
    if isinstance(value, (bool, dict)):
        raise ValueError
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # 8.0 is a whole number
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return info.kind.read("" if value is None else str(value))


@dataclass(frozen=True, kw_only=True)
class Options:
    """A dataclass of options that checks itself.

    Raises:
        UserError: Values out of range and the `contradictions`, all in one line.
    """

    def __post_init__(self) -> None:
        faults = []
        for info in declared(type(self)):
            fault = info.fault(getattr(self, info.name))
            if fault:
                faults.append(f"--{info.name}: {fault}")
        try:
            faults += self.contradictions()
        except (TypeError, ValueError, AttributeError):
            if not faults:  # else a value of a wrong type, which is among the faults, caused it
                raise
        if faults:
            raise UserError("; ".join(faults))

    def contradictions(self) -> list[str]:
        """Values that do not go together, one sentence for each fault."""
        return []


def _read_text(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError
    return value


def _read_path(value: str) -> Path:
    try:
        file = Path(_read_text(value)).expanduser()
    except RuntimeError:
        raise ValueError(f"{value!r}: this user has no home folder; set HOME or give a whole path") from None
    if kind := special_kind(file):
        raise ValueError(f"{value!r} is {kind}, no file or folder")
    return file


def _is_path(value: object) -> bool:
    return isinstance(value, (str, Path)) and "\0" not in str(value)
