"""Settings of the lip-sync programs: config.yaml, another file in its place, single values from the command.

The dataclasses below are the truth about names, types, ranges and defaults; config.yaml shows them with
their meaning. A file may leave out what it does not change.
"""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facevox.errors import UserError, one_line

CONFIG_FILE = Path(__file__).resolve().parent / "config.yaml"
SMALL_SET_FILE = CONFIG_FILE.with_name("small.yaml")  # for minutes of clips
MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True)
class _Rule:
    """What a value must be beyond its type."""

    is_met: Callable[[Any], bool]
    wanted: str


def _between(least: float, most: float) -> _Rule:
    return _Rule(lambda value: least <= value <= most, f"a number from {least:g} to {most:g}")


def _one_of(*choices: str) -> _Rule:
    return _Rule(lambda value: value in choices, " or ".join(choices))


def _is_pattern(text: str) -> bool:
    try:
        return not text or re.compile(text).groups >= 1
    except re.error:
        return False


def _setting(default: Any, rule: _Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


_FOLDER = _Rule(lambda text: bool(text) and "\0" not in text, "a folder")


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """Folders, relative to where the program is started."""

    videos_dir: str = _setting("data/videos", _FOLDER)
    audios_dir: str = _setting("data/audios", _FOLDER)
    processed_dir: str = _setting("data/processed", _FOLDER)
    checkpoint_dir: str = _setting("checkpoints", _FOLDER)
    log_dir: str = _setting("logs", _FOLDER)
    output_dir: str = _setting("outputs", _FOLDER)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is cut out of videos, and which of them are used."""

    mouth_crop_px: int = _setting(96, _between(32, 256))
    max_faces: int = _setting(4, _between(1, 16))
    min_duration_s: float = _setting(1.0, _between(0.2, 60))
    max_duration_s: float = _setting(600.0, _between(1, 7200))
    speaker_regex: str = _setting("", _Rule(_is_pattern, "a regular expression with a group, or nothing"))


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """Size of the sound features; their clock is fixed (100 a second, see `lipsync.clips.sounds`)."""

    num_mels: int = _setting(40, _between(8, 128))
    num_mfcc: int = _setting(13, _between(2, 128))


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which network."""

    visual_frontend: str = _setting("lip_landmarks", _one_of("mouth_cnn", "lip_landmarks"))
    temporal: str = _setting("lstm", _one_of("lstm", "transformer"))
    hidden_dim: int = _setting(
        32, _Rule(lambda width: 8 <= width <= 1024 and width % 8 == 0, "a multiple of 8 from 8 to 1024")
    )
    embedding_dim: int = _setting(16, _between(2, 1024))
    dropout: float = _setting(0.1, _between(0, 0.9))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How it is trained."""

    batch_size: int = _setting(16, _between(2, 4096))
    learning_rate: float = _setting(1e-4, _between(1e-8, 1))
    weight_decay: float = _setting(0.05, _between(0, 10))
    num_epochs: int = _setting(100, _between(1, 100_000))
    split: tuple[int, ...] = _setting(
        (8, 1, 1),
        _Rule(
            lambda parts: len(parts) == 3 and min(parts) >= 0 and parts[0] > 0,
            "three whole numbers: training (above 0), validation, test",
        ),
    )
    checkpoint_interval: int = _setting(10, _between(1, 100_000))
    seed: int = _setting(0, _between(0, 2**31 - 1))
    device: str = _setting("auto", _one_of("auto", "cpu", "cuda"))
    num_workers: int = _setting(0, _between(0, 256))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All sections; raises UserError with every fault at once."""

    paths: PathSettings = field(default_factory=PathSettings)
    data: DataSettings = field(default_factory=DataSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        faults = []
        for section in dataclasses.fields(self):
            values = getattr(self, section.name)
            for key in dataclasses.fields(values):
                rule, value = key.metadata["rule"], getattr(values, key.name)
                if not rule.is_met(value):
                    faults.append(f"{section.name}.{key.name}: {value!r} is not {rule.wanted}")
        if self.audio.num_mfcc > self.audio.num_mels:
            faults.append(
                f"audio.num_mfcc: {self.audio.num_mfcc} coefficients cannot come from "
                f"audio.num_mels = {self.audio.num_mels} bands"
            )
        if faults:
            raise UserError("; ".join(faults))


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config` and `--set`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (default: lipsync/config.yaml)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting, as in training.batch_size=8; may be repeated (default: none)",
    )


def folder_finder(key: str) -> Callable[[argparse.Namespace, Path], Path]:
    """What finds a folder of `paths` in the settings of a program, for its `facevox.cluster.job.Job`."""

    def find(args: argparse.Namespace, root: Path) -> Path:
        file = None if args.config is None else root / args.config
        return Path(getattr(load_settings(file, args.overrides).paths, key))

    return find


def load_settings(config_file: str | Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a YAML file, with `overrides` ("section.key=value") put on top.

    Raises:
        UserError: No such file, not YAML, or anything in it is unknown, of the wrong type or out of
            range; one line that names all of it, the valid names with each unknown one.
    """
    file = CONFIG_FILE if config_file is None else Path(config_file)
    faults: list[str] = []
    content = _read_yaml(file)
    sections = typing.get_type_hints(Settings)
    built: dict[str, Any] = {}
    faults += [
        f"{name}: no such section; there are {', '.join(sections)}"
        for name in content
        if name not in sections
    ]
    given: dict[str, dict[str, Any]] = {}
    for name in sections:
        values = content.get(name)
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            faults.append(f"{name}: a section with keys is wanted, not {values!r}")
            values = {}
        given[name] = dict(values)
    for text in overrides:
        _override(given, text, faults)
    for name, kind in sections.items():
        built[name] = kind(**_checked(name, kind, given[name], faults))
    try:
        settings = Settings(**built)
    except UserError as error:
        faults.append(str(error))
    if faults:
        raise UserError(f"{file}: {'; '.join(faults)}")
    return settings


def _read_yaml(file: Path) -> Mapping[Any, Any]:
    import yaml

    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{file}: more than {MAX_CONFIG_BYTES} bytes; that is no settings file")
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"--config: {file}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}); a YAML file is wanted") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{file}: not YAML: {one_line(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: sections with keys are wanted, not {type(content).__name__}")
    return content


def _override(given: dict[str, dict[str, Any]], text: str, faults: list[str]) -> None:
    import yaml

    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        faults.append(f"--set {text}: section.key=value is wanted, as in training.batch_size=8")
    elif section not in given:
        faults.append(f"--set {text}: no such section; there are {', '.join(given)}")
    else:
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError, ValueError):
            parsed = value
        if isinstance(parsed, (str, dict)) and not value.strip().startswith(("'", '"')):
            parsed = value.strip()  # in a folder's name " #" begins no comment, and ": " no mapping
        given[section][key] = "" if parsed is None else parsed


def _checked(section: str, kind: type, values: dict[str, Any], faults: list[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    checked = {}
    for key, value in values.items():
        if key not in hints:
            faults.append(f"{section}.{key}: no such setting; there are {', '.join(hints)}")
            continue
        try:
            checked[key] = _converted(value, hints[key])
        except (TypeError, ValueError, OverflowError):
            faults.append(f"{section}.{key}: {value!r} is not {_type_text(hints[key])}")
    return checked


def _converted(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`; ValueError or TypeError where it is of another."""
    if isinstance(hint, types.GenericAlias):  # tuple[int, ...]
        if not isinstance(value, list):
            raise TypeError("a list is wanted")
        return tuple(_converted(part, typing.get_args(hint)[0]) for part in value)
    if hint is str:
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise TypeError("text is wanted")
        return str(value)  # a folder named 2024
    if isinstance(value, bool):
        raise TypeError("a number is wanted")
    if hint is float:
        return float(value)  # YAML takes 1e-4, without a point, for text
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("a whole number is wanted")
    return int(value)


def _type_text(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text"}.get(hint, "a list of whole numbers")
