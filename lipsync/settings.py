"""Settings of the lip-sync programs: config.yaml or another file, and single values from the command line.

The dataclasses below define names, types, ranges and defaults; config.yaml lists them with their meaning. A
file may leave out what it does not change.
"""

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facevox.cli import argument_type
from facevox.errors import UserError, one_line
from facevox.options import (
    DEVICE,
    Kind,
    Option,
    choice,
    declared,
    number,
    option,
    path,
    read_plain,
    several,
    text,
    where,
    whole,
)
from facevox.sound_choice import CHANNEL, CHANNEL_HELP, MIX, TRACK, TRACK_HELP, SoundChoice
from facevox.yaml_text import parse_yaml
from lipsync.sync.methods import AUTO, METHODS

CONFIG_FILE = Path(__file__).resolve().parent / "config.yaml"
SMALL_SET_FILE = CONFIG_FILE.with_name("small.yaml")  # for minutes of clips
MAX_CONFIG_BYTES = 1_000_000


def _is_pattern(value: str) -> bool:
    try:
        return not value or re.compile(value).groups >= 1
    except (re.error, RecursionError, OverflowError):
        return False


_FOLDER = path("a folder")  # reads `~` as the home folder
FOLDER = Kind(lambda value: str(_FOLDER.read(value)), "a folder", lambda value: isinstance(value, str))
PATTERN = where(text(may_be_empty=True), _is_pattern, "a regular expression with a group, or nothing")
SPLIT = where(
    several(whole()),
    lambda parts: len(parts) == 3 and parts[0] > 0,
    "three whole numbers: training (above 0), validation, test",
)
WIDTH = where(whole(8, 1024), lambda width: width % 8 == 0, "a multiple of 8 from 8 to 1024")


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """Folders, relative to where the program is started."""

    videos_dir: str = option(
        "data/videos", FOLDER, "what data_processing.py reads, searched in all sub-folders"
    )
    audios_dir: str = option(
        "data/audios", FOLDER, "sounds of the same name without suffix; else the video's own track"
    )
    processed_dir: str = option("data/processed", FOLDER, "one .npz a clip, and manifest.csv")
    checkpoint_dir: str = option(
        "checkpoints", FOLDER, "the trained network, and what a training resumes from"
    )
    log_dir: str = option("logs", FOLDER, "curves of the training, for TensorBoard")
    output_dir: str = option("outputs", FOLDER, "results of inference.py --batch")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Size and number of the faces that are cut out of videos, and which videos are used."""

    mouth_crop_px: int = option(96, whole(32, 256), "side of the grey mouth crops, in pixels")
    max_faces: int = option(4, whole(1, 16), "followed at the same time; the largest ones")
    min_duration_s: float = option(
        1.0, number(0.2, 60), "shorter clips, and faces seen for less, are left out"
    )
    max_duration_s: float = option(600.0, number(1, 7200), "longer videos are used up to here")
    speaker_regex: str = option(
        "", PATTERN, 'its first group names the speaker, from the relative path; "": the top sub-folder'
    )


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """Size of the sound features, and their library; their clock is fixed (see `lipsync.clips.sounds`)."""

    num_mels: int = option(40, whole(8, 128), "bands of the log-mel, 0 to 8000 Hz")
    num_mfcc: int = option(13, whole(2, 128), "coefficients, the loudness (0th) among them")
    features: str = option(
        "numpy",
        choice("numpy", "librosa"),
        "library of log-mel and MFCC, equal within 1e-4 dB: numpy (starts at once) | librosa",
    )

    channel: str = option(MIX, CHANNEL, CHANNEL_HELP)
    track: str = option("", TRACK, TRACK_HELP)

    @property
    def choice(self) -> SoundChoice:
        """The track and the channel."""
        return SoundChoice(self.channel, self.track)

    def sizes(self) -> dict[str, object]:
        """The sizes of a clip's features."""
        return {"num_mels": self.num_mels, "num_mfcc": self.num_mfcc}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Kind and size of the network."""

    visual_frontend: str = option(
        "lip_landmarks",
        choice("mouth_cnn", "lip_landmarks", "lip_distances"),
        "lip_landmarks (CPU) | lip_distances (CPU, a minute of clips) | mouth_cnn (GPU, many clips)",
    )
    temporal: str = option(
        "lstm", choice("lstm", "transformer", "none"), "lstm | transformer | none (convolutions alone)"
    )
    sound_bands: int = option(
        0, whole(0, 128), "groups of log-mel bands whose means are all that it hears; 0: all bands and MFCC"
    )
    hidden_dim: int = option(32, WIDTH, "width of the layers, a multiple of 8; mouth_cnn on many clips: 128")
    embedding_dim: int = option(16, whole(2, 1024), "numbers of an embedding; mouth_cnn on many clips: 64")
    dropout: float = option(0.1, number(0, 0.9), "share of channels switched off in training")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Training of the network."""

    batch_size: int = option(16, whole(2, 4096), "8 to 16 for a GPU of 6 GB")
    learning_rate: float = option(1e-4, number(1e-8, 1), "at the start; it falls along a cosine")
    weight_decay: float = option(0.05, number(0, 10), "of AdamW, on matrices only")
    num_epochs: int = option(100, whole(1, 100_000), "passes over the clips")
    split: tuple[int, ...] = option(
        (8, 1, 1), SPLIT, "shares of training, validation and test, by speaker or by video"
    )
    checkpoint_interval: int = option(10, whole(1, 100_000), "epochs between checkpoints that are kept")
    offsets: str = option(
        "found",
        choice("found", "zero"),
        "of the clips: found by the model that comes with the package | zero, if all are known to be in sync",
    )
    seed: int = option(0, whole(0, 2**31 - 1), "of split, weights and order")
    device: str = option("auto", DEVICE, "auto | cpu | cuda")
    num_workers: int = option(0, whole(0, 256), "processes that load; a few for mouth_cnn on a GPU")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All sections; raises UserError with every fault at once."""

    paths: PathSettings = field(default_factory=PathSettings)
    data: DataSettings = field(default_factory=DataSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        faults = [
            f"{section.name}.{setting.name}: {fault}"
            for section in dataclasses.fields(self)
            for setting in declared(type(getattr(self, section.name)))
            if (fault := setting.fault(getattr(getattr(self, section.name), setting.name)))
        ]
        if self.audio.num_mfcc > self.audio.num_mels:
            faults.append(
                f"audio.num_mfcc: {self.audio.num_mfcc} coefficients cannot come from "
                f"audio.num_mels = {self.audio.num_mels} bands"
            )
        if self.model.sound_bands > self.audio.num_mels:
            faults.append(
                f"model.sound_bands: {self.model.sound_bands} groups of audio.num_mels = "
                f"{self.audio.num_mels} bands"
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


def add_method_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--method`."""
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=AUTO,
        help="without --checkpoint; auto, shipped: the small network that comes with the package; untrained: "
        "mouth opening against loudness",
    )


def add_audio_options(parser: argparse.ArgumentParser, *keys: str) -> None:
    """Adds `--features VALUE`, which is short for `--set audio.features=VALUE`, and others of `audio`.

    Args:
        parser: Of a program.
        keys: Of `audio`: features, and channel and track, which become --audio_channel and --audio_track.
    """
    metavars = {"channel": "mix|left|right|N", "track": "N|LANG"}
    for info in declared(AudioSettings):
        if info.name not in keys:
            continue
        parser.add_argument(
            f"--audio_{info.name}" if info.name in metavars else f"--{info.name}",
            dest="overrides",
            action="append",
            type=_override_of(f"audio.{info.name}", argument_type(info.kind)),
            default=[],
            metavar=metavars.get(info.name) or f"{{{','.join(info.kind.choices)}}}",
            help=f"{info.help} (default: audio.{info.name} of the settings)",
        )


def _override_of(key: str, read: Callable[[str], object]) -> Callable[[str], str]:
    return lambda text: f"{key}={read(text)}"


def folder_finder(key: str) -> Callable[[argparse.Namespace, Path], Path]:
    """A function that finds a folder of `paths` in the settings of a program, for its `Job`."""

    def find(args: argparse.Namespace, root: Path) -> Path:
        file = None if args.config is None else root / args.config
        return Path(getattr(load_settings(file, args.overrides).paths, key))

    return find


def load_settings(config_file: str | Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a YAML file, changed by `overrides` ("section.key=value").

    Raises:
        UserError: No such file, not YAML, or anything in it is unknown, of the wrong type or out of
            range; one line that lists all of it, with the valid names for each unknown one.
    """
    file = CONFIG_FILE if config_file is None else Path(config_file)
    faults: list[str] = []
    content = _read_yaml(file)
    sections = typing.get_type_hints(Settings)
    faults += [
        f"{name}: no such section; there are {', '.join(sections)}"
        for name in content
        if name not in sections
    ]
    plain: dict[str, dict[object, object]] = {name: {} for name in sections}
    for name in sections:
        values = content.get(name)
        if isinstance(values, Mapping):
            plain[name] = dict(values)
        elif values is not None:
            faults.append(f"{name}: a section with keys is expected, not {values!r}")
    kinds = {name: {info.name: info.kind for info in declared(kind)} for name, kind in sections.items()}
    for override in overrides:
        _override(plain, kinds, override, faults)
    # Sections are made of their valid values even where others are not: one message lists all faults.
    checked = {name: kind(**_checked(name, kind, plain[name], faults)) for name, kind in sections.items()}
    try:
        settings = Settings(**checked)
    except UserError as error:
        faults.append(str(error))
    if faults:
        raise UserError(f"{file}: {'; '.join(faults)}")
    return settings


def _read_yaml(file: Path) -> Mapping[object, object]:
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{file}: more than {MAX_CONFIG_BYTES} bytes; this is not a settings file")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--config: {file}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}); a YAML file is expected") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{file}: not YAML: {one_line(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: sections with keys are expected, not {type(content).__name__}")
    return content


def _override(
    plain: dict[str, dict[object, object]],
    kinds: Mapping[str, Mapping[str, Kind[Any]]],
    text: str,
    faults: list[str],
) -> None:
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        faults.append(f"--set {text}: section.key=value is expected, as in training.batch_size=8")
    elif section not in plain:
        faults.append(f"--set {text}: no such section; there are {', '.join(plain)}")
    else:
        try:
            parsed = parse_yaml(value)
        except ValueError:
            parsed = value
        is_text = kinds[section].get(key) in (FOLDER, PATTERN) or isinstance(parsed, (str, dict))
        if is_text and not value.strip().startswith(("'", '"')):
            # In a folder's name " #" begins no comment, and ": " no mapping; 2024_01 is no number.
            parsed = value.strip()
        plain[section][key] = "" if parsed is None else parsed


def _checked(section: str, kind: type, values: dict[object, object], faults: list[str]) -> dict[str, object]:
    """The valid values of a section; the others are added to `faults`."""
    settings: dict[object, Option] = {setting.name: setting for setting in declared(kind)}
    checked = {}
    for key, value in values.items():
        if key not in settings:
            faults.append(f"{section}.{key}: no such setting; there are {', '.join(map(str, settings))}")
            continue
        if settings[key].kind in (FOLDER, PATTERN) and not isinstance(value, (str, type(None))):
            # YAML has made something else of the text: 2024_01 is 202401 to it, and 010 is 8.
            faults.append(f"{section}.{key}: {value!r} is not text: put the value in quotes")
            continue
        try:
            checked[settings[key].name] = read_plain(settings[key], value)
        except ValueError:
            faults.append(f"{section}.{key}: {value!r} is not {settings[key].kind.expected}")
    return checked
