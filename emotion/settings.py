"""The settings of all emotion programs: `.env`, the process environment, and an option for each.

An option (`--batch_size`) wins over a variable of the process (`BATCH_SIZE`), and that over `.env` in the
repository root. Everything that is missing or malformed is told at once, in English and Korean.
"""

import argparse
import difflib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from facevox.errors import UserError

ENV_FILE = Path(__file__).resolve().parent.parent / ".env"
FREEZE_BN_MODES = ("all", "s3", "adaptive", "none")
TEST_MODES = ("webcam", "image", "video")
# A name this close to a setting's is taken for a slip of the pen (difflib's ratio).
NEAR_NAME = 0.8


@dataclass(frozen=True)
class Kind:
    """What a value must be: how its text is read (ValueError where it cannot be), and that in words."""

    read: Callable[[str], Any]
    english: str
    korean: str


def _whole(low: int, high: int) -> Kind:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Kind(read, f"a whole number from {low} to {high}", f"{low} 이상 {high} 이하의 정수")


def _real(low: float, high: float, *, above: bool = False, below: bool = False) -> Kind:
    """A number from `low` to `high`; `above` and `below` leave the ends themselves out."""

    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError
        if (above and value == low) or (below and value == high):
            raise ValueError
        return value

    lower, upper = "above" if above else "of at least", "below" if below else "at most"
    english = f"a number {lower} {low:g} and {upper} {high:g}"
    korean = f"{low:g} {'초과' if above else '이상'} {high:g} {'미만' if below else '이하'}의 수"
    return Kind(read, english, korean)


def _choice(*names: str) -> Kind:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return Kind(read, f"one of {', '.join(names)}", f"{', '.join(names)} 중 하나")


def _read_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError
    return text


def _read_path(text: str) -> Path:
    return Path(_read_text(text)).expanduser()


def _read_optional_path(text: str) -> Path | None:
    return _read_path(text) if text else None


def _read_class_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if (
        len(names) < 2
        or len(set(names)) != len(names)
        or not all(re.fullmatch(r"\w[\w-]*", n) for n in names)
    ):
        raise ValueError
    return names


def _read_origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, (part.strip().rstrip("/") for part in text.split(","))))
    if not all(re.fullmatch(r"https?://[^/\s]+", origin) for origin in origins):
        raise ValueError
    return origins


CLASS_NAMES = Kind(
    _read_class_names,
    "two or more different names of letters, digits, _ and -, separated by commas",
    "쉼표로 구분한 서로 다른 이름 두 개 이상(글자, 숫자, _, -)",
)
FOLDER = Kind(_read_path, "the path of a folder", "폴더 경로")
INPUT = Kind(_read_optional_path, "the path of a picture or video", "이미지 또는 영상 파일 경로")
WEIGHTS = Kind(
    _read_text, "imagenet, none, or the path of a weight file", "imagenet, none 또는 가중치 파일 경로"
)
HOST = Kind(_read_text, "a host name or address", "호스트 이름 또는 주소")
ORIGINS = Kind(
    _read_origins,
    "origins such as https://example.org, separated by commas",
    "쉼표로 구분한 출처(https://example.org)",
)


def _setting(kind: Kind, meaning: str, default: str | None = None) -> dict[str, Any]:
    """What a field of `Settings` is; without a default it is required."""
    return {"kind": kind, "meaning": meaning, "default": default}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, read and checked one by one; `__post_init__` checks what lies between them.

    Raises:
        SettingsError: Some contradict each other.
    """

    class_names: tuple[str, ...] = field(
        metadata=_setting(CLASS_NAMES, "classes in the order of the model's outputs")
    )
    data_dir_raw: Path = field(
        metadata=_setting(FOLDER, "folder with AIHub's pictures and annotations (folders or ZIPs)")
    )
    data_dir_train: Path = field(
        metadata=_setting(FOLDER, "folder of the face crops for training, one sub-folder per class")
    )
    data_dir_val: Path = field(
        metadata=_setting(FOLDER, "folder of the face crops for validation, of other people")
    )
    img_size: int = field(metadata=_setting(_whole(32, 1024), "side of the square input picture, in pixels"))
    batch_size: int = field(metadata=_setting(_whole(1, 4096), "pictures in a training step"))
    val_steps: int = field(metadata=_setting(_whole(1, 1_000_000), "validation batches an epoch at most"))
    epochs_head: int = field(
        metadata=_setting(_whole(0, 10_000), "epochs that train the classification head alone")
    )
    epochs_finetune: int = field(
        metadata=_setting(_whole(0, 10_000), "epochs that train the head and the upper part of the backbone")
    )
    learning_rate_head: float = field(
        metadata=_setting(_real(0, 1, above=True), "learning rate of the head epochs")
    )
    learning_rate_finetune: float = field(
        metadata=_setting(_real(0, 1, above=True), "learning rate of the fine-tuning epochs")
    )
    dropout_rate: float = field(
        metadata=_setting(_real(0, 1, below=True), "share of the head's units dropped in each step")
    )
    weight_decay: float = field(metadata=_setting(_real(0, 1), "weight decay (L2), 0 for none"))
    freeze_bn_mode: str = field(
        metadata=_setting(_choice(*FREEZE_BN_MODES), "which BatchNorm layers stay frozen in fine-tuning")
    )
    unfreeze_from: float = field(
        metadata=_setting(_real(0, 1), "share of the backbone's depth from which on it trains in fine-tuning")
    )
    mixup_alpha: float = field(
        metadata=_setting(_real(0, 100, above=True), "alpha of the Beta distribution of MixUp's share")
    )
    cutmix_alpha: float = field(
        metadata=_setting(_real(0, 100, above=True), "alpha of the Beta distribution of CutMix's share")
    )
    p_mixup: float = field(metadata=_setting(_real(0, 1), "probability that a batch is mixed by MixUp"))
    p_cutmix: float = field(metadata=_setting(_real(0, 1), "probability that a batch is mixed by CutMix"))
    ema_decay: float = field(
        metadata=_setting(_real(0, 1, below=True), "decay of the moving average of the weights, per step")
    )
    early_stopping_patience: int = field(
        metadata=_setting(
            _whole(1, 10_000), "epochs without a better validation loss after which training stops"
        )
    )
    reduce_lr_patience: int = field(
        metadata=_setting(
            _whole(1, 10_000), "epochs without a better validation loss after which the learning rate falls"
        )
    )
    reduce_lr_factor: float = field(
        metadata=_setting(_real(0, 1, above=True, below=True), "what the learning rate is multiplied by then")
    )
    model_dir: Path = field(metadata=_setting(FOLDER, "folder of the trained models"))
    log_dir: Path = field(metadata=_setting(FOLDER, "folder of the log files"))
    crop_margin: float = field(
        metadata=_setting(_real(0, 2), "margin around the face box on each side, as a share of the box")
    )
    test_mode: str = field(metadata=_setting(_choice(*TEST_MODES), "what run_model.py reads"))
    input_path: Path | None = field(
        metadata=_setting(
            INPUT, "the picture or video that run_model.py reads when TEST_MODE is image or video"
        )
    )
    server_port: int = field(metadata=_setting(_whole(1, 65535), "port of the web server"))

    backbone_weights: str = field(metadata=_setting(WEIGHTS, "where the backbone starts", "imagenet"))
    seed: int = field(
        metadata=_setting(_whole(0, 2**31 - 1), "seed of the split by person and of training", "0")
    )
    server_host: str = field(metadata=_setting(HOST, "address that the web server listens on", "127.0.0.1"))
    allowed_origins: tuple[str, ...] = field(
        metadata=_setting(ORIGINS, "other pages that may use the server; empty: its own page only", "")
    )
    max_faces: int = field(metadata=_setting(_whole(1, 32), "faces looked for in a picture", "4"))
    max_frame_bytes: int = field(
        metadata=_setting(
            _whole(1000, 100_000_000), "largest frame that the server takes, in bytes", "2000000"
        )
    )
    max_frame_pixels: int = field(
        metadata=_setting(
            _whole(10_000, 170_000_000), "largest frame that the server decodes, in pixels", "4000000"
        )
    )
    max_frames_per_s: int = field(
        metadata=_setting(_whole(1, 1000), "frames a second taken from one client", "60")
    )
    max_connections: int = field(
        metadata=_setting(_whole(1, 10_000), "clients of the server at a time", "32")
    )
    max_upload_bytes: int = field(
        metadata=_setting(
            _whole(1000, 10_000_000_000),
            "largest picture or video that may be uploaded, in bytes",
            "30000000",
        )
    )
    max_upload_pixels: int = field(
        metadata=_setting(
            _whole(10_000, 170_000_000),
            "largest JPEG that may be uploaded, in pixels (other formats: an eighth of it)",
            "30000000",
        )
    )
    max_video_s: int = field(
        metadata=_setting(_whole(1, 3600), "longest video that may be uploaded, in seconds", "60")
    )
    server_workers: int = field(
        metadata=_setting(
            _whole(0, 64), "threads of the server that analyse pictures; 0: one a core, at most 3", "0"
        )
    )

    def __post_init__(self) -> None:
        faults = []
        if self.p_mixup + self.p_cutmix > 1 + 1e-9:
            faults.append(
                f"P_MIXUP={self.p_mixup:g}, P_CUTMIX={self.p_cutmix:g}: together at most 1, a batch gets one "
                "of them | 두 값의 합은 1 이하여야 합니다"
            )
        if self.epochs_head + self.epochs_finetune == 0:
            faults.append(
                "EPOCHS_HEAD=0, EPOCHS_FINETUNE=0: one must be above 0 | 둘 중 하나는 1 이상이어야 합니다"
            )
        train, val = (Path(os.path.abspath(folder)) for folder in (self.data_dir_train, self.data_dir_val))  # noqa: PTH100
        if train == val or train in val.parents or val in train.parents:
            faults.append(
                f"DATA_DIR_TRAIN={self.data_dir_train}, DATA_DIR_VAL={self.data_dir_val}: two folders "
                "apart are wanted | 서로 다른 폴더여야 합니다"
            )
        if self.test_mode != "webcam" and self.input_path is None:
            faults.append(
                f"INPUT_PATH: missing; wanted with TEST_MODE={self.test_mode}: {INPUT.english} | "
                f"없음; 필요한 값: {INPUT.korean}"
            )
        if faults:
            raise SettingsError(faults)

    def as_text(self) -> dict[str, str]:
        """NAME -> value as `.env` has it, in the order of the fields."""
        return {info.name.upper(): _text_of(getattr(self, info.name)) for info in fields(self)}


class SettingsError(UserError):
    """Settings that are missing or wrong; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        named = ", ".join(dict.fromkeys(re.split(r"[=: ]", fault)[0] for fault in faults))
        super().__init__(
            f"{len(faults)} settings are missing or wrong: {named}; set them in .env (cp .env.example .env), "
            "in the environment or as options | 없거나 잘못된 설정이 있습니다: .env를 확인하세요"
        )


@dataclass(frozen=True)
class SettingInfo:
    """One setting for documents and options: NAME, what it means, what its value must be, its default."""

    name: str
    meaning: str
    kind: Kind
    default: str | None  # None: required

    @property
    def option(self) -> str:
        """`--batch_size`."""
        return f"--{self.name.lower()}"


def list_settings() -> list[SettingInfo]:
    """All settings in their order, the required ones first."""
    return [
        SettingInfo(f.name.upper(), f.metadata["meaning"], f.metadata["kind"], f.metadata["default"])
        for f in fields(Settings)
    ]


def add_setting_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each setting, named like it in lower case; without it .env has its say."""
    group = parser.add_argument_group("settings (win over the environment and .env)")
    for info in list_settings():
        source = f"{info.name} of the environment or .env"
        if info.default is not None:
            source += f", or {info.default or 'empty'}"
        text = f"{info.meaning}: {info.kind.english} (default: {source})"
        group.add_argument(info.option, metavar="VALUE", help=text.replace("%", "%%"))


def folder_finder(name: str) -> Callable[[argparse.Namespace, Path], Path]:
    """What finds a folder of a program: its option, else the environment or .env.

    For its `facevox.cluster.job.Job`.
    """

    def find(args: argparse.Namespace, root: Path) -> Path:
        given = getattr(args, name)
        if given is not None:
            return Path(given.strip()).expanduser()
        return Path(getattr(load_settings(args), name))

    return find


def load_settings(args: argparse.Namespace | None = None) -> Settings:
    """The settings of a program; a fault of any is printed on stderr, a line each, before it raises.

    Args:
        args: Parsed options of `add_setting_arguments`.

    Raises:
        SettingsError: Some are missing or wrong.
    """
    try:
        return read_settings(ENV_FILE, os.environ, vars(args) if args is not None else {})
    except SettingsError as error:
        for fault in error.faults:
            print(f"  {fault}", file=sys.stderr)
        raise


def read_settings(env_file: Path, environ: Mapping[str, str], options: Mapping[str, Any]) -> Settings:
    """The settings from their three sources.

    Args:
        env_file: May be missing.
        environ: Variables of the process.
        options: Option name (lower case) -> text, or None where it was not given.

    Raises:
        SettingsError: Some are missing or wrong.
    """
    in_file, faults = _read_env_file(env_file)
    infos = list_settings()
    faults += _misspelt(in_file, [info.name for info in infos])
    values: dict[str, Any] = {}
    for info in infos:
        option = options.get(info.name.lower())
        if option is not None:
            text, source = str(option), info.option
        elif info.name in environ:
            text, source = environ[info.name], "environment"
        else:
            given = in_file.get(info.name)
            text, source = given if given is not None else info.default or "", env_file.name
        text = text.strip()
        english, korean = f"wanted: {info.kind.english}", f"필요한 값: {info.kind.korean}"
        try:
            values[info.name.lower()] = info.kind.read(text)
        except ValueError:
            if text:
                shown = text if len(text) <= 60 else text[:59] + "…"
                faults.append(f"{info.name}={shown!r} ({source}): {english} | {korean}")
            else:
                faults.append(f"{info.name}: missing; {english} | 없음; {korean}")
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _read_env_file(env_file: Path) -> tuple[dict[str, str | None], list[str]]:
    """(NAME -> value, None for a name without one; faults) of `.env`; nothing where there is none."""
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        text = env_file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}, []
    except UnicodeDecodeError:
        return {}, [f"{env_file.name}: not UTF-8 text; save it as UTF-8 | UTF-8로 저장하세요"]
    except OSError as error:
        return {}, [f"{env_file.name}: {error.strerror} | 파일을 읽을 수 없습니다"]
    faults, kept = [], []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            faults.append(
                f"{env_file.name}:{binding.original.line}: NAME=value is wanted | 이름=값 형식이어야 합니다"
            )
        else:
            kept.append(binding.original.string)
    return dict(dotenv_values(stream=io.StringIO("".join(kept)))), faults


def _misspelt(in_file: Mapping[str, str | None], names: list[str]) -> list[str]:
    """Faults of names in `.env` that are nearly a setting's; others belong to other programs."""
    faults = []
    for given in in_file:
        if given in names:
            continue
        near = difflib.get_close_matches(given.upper(), names, n=1, cutoff=NEAR_NAME)
        if near:
            faults.append(f"{given}: no such setting; did you mean {near[0]}? | {near[0]}의 오타가 아닌가요?")
    return faults


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)
