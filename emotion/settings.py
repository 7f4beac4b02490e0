"""The settings of all emotion programs: `.env`, the process environment, and an option for each.

An option (`--batch_size`) wins over a variable of the process (`BATCH_SIZE`), and that over `.env` in the
repository root. Everything that is missing or malformed is reported at once, in English and Korean.
"""

import argparse
import difflib
import io
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from facevox.errors import UserError
from facevox.options import Kind, Option, choice, declared, number, option, path, required, text, whole

ENV_FILE = Path(__file__).resolve().parent.parent / ".env"
MAX_ENV_BYTES = 200_000
FREEZE_BN_MODES = ("all", "s3", "adaptive", "none")
TEST_MODES = ("webcam", "image", "video")
# A name this close to a setting's counts as misspelt (difflib's ratio).
NEAR_NAME = 0.8


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


def _read_networks(text: str) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(part)) for part in map(str.strip, text.split(",")) if part)


@dataclass(frozen=True)
class Secret:
    """A text that no log, message or list of settings shows."""

    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return "(hidden)" if self.text else ""


def _read_token(text: str) -> Secret:
    if text and not re.fullmatch(r"[A-Za-z0-9._~-]{16,256}", text):
        raise ValueError
    return Secret(text)


CLASS_NAMES = Kind(
    _read_class_names,
    "two or more different names of letters, digits, _ and -, separated by commas",
    korean="쉼표로 구분한 서로 다른 이름 두 개 이상(글자, 숫자, _, -)",
)
FOLDER = path("the path of a folder", "폴더 경로")
INPUT = Kind(
    lambda text: FOLDER.read(text) if text else None,
    "the path of a picture or video",
    korean="이미지 또는 영상 파일 경로",
)
WEIGHTS = text("imagenet, none, or the path of a weight file", "imagenet, none 또는 가중치 파일 경로")
HOST = text("a host name or address", "호스트 이름 또는 주소")
ORIGINS = Kind(
    _read_origins,
    "origins such as https://example.org, separated by commas",
    korean="쉼표로 구분한 출처(https://example.org)",
)
NETWORKS = Kind(
    _read_networks,
    "addresses or networks such as 10.0.0.0/8, separated by commas",
    korean="쉼표로 구분한 주소 또는 네트워크(10.0.0.0/8)",
)
TOKEN = Kind(
    _read_token,
    "16 to 256 letters, digits and . _ ~ -",
    korean="영문자, 숫자, . _ ~ - 16자 이상 256자 이하",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, read and checked one by one; `__post_init__` checks them against each other.

    Raises:
        SettingsError: Some contradict each other.
    """

    class_names: tuple[str, ...] = required(CLASS_NAMES, "classes in the order of the model's outputs")
    data_dir_raw: Path = required(FOLDER, "folder with AIHub's pictures and annotations (folders or ZIPs)")
    data_dir_train: Path = required(FOLDER, "folder of the face crops for training, one sub-folder per class")
    data_dir_val: Path = required(FOLDER, "folder of the face crops for validation, of other people")
    img_size: int = required(whole(32, 1_024), "side of the square input picture, in pixels")
    batch_size: int = required(whole(1, 4_096), "pictures in a training step")
    val_steps: int = required(whole(1, 1_000_000), "validation batches an epoch at most")
    epochs_head: int = required(whole(0, 10_000), "epochs that train the classification head alone")
    epochs_finetune: int = required(
        whole(0, 10_000), "epochs that train the head and the upper part of the backbone"
    )
    learning_rate_head: float = required(number(0, 1, is_above=True), "learning rate of the head epochs")
    learning_rate_finetune: float = required(
        number(0, 1, is_above=True), "learning rate of the fine-tuning epochs"
    )
    dropout_rate: float = required(
        number(0, 1, is_below=True), "share of the head's units dropped in each step"
    )
    weight_decay: float = required(number(0, 1), "weight decay (L2), 0 for none")
    freeze_bn_mode: str = required(
        choice(*FREEZE_BN_MODES), "which BatchNorm layers stay frozen in fine-tuning"
    )
    unfreeze_from: float = required(
        number(0, 1), "share of the backbone's depth from which on it trains in fine-tuning"
    )
    mixup_alpha: float = required(
        number(0, 100, is_above=True), "alpha of the Beta distribution of MixUp's share"
    )
    cutmix_alpha: float = required(
        number(0, 100, is_above=True), "alpha of the Beta distribution of CutMix's share"
    )
    p_mixup: float = required(number(0, 1), "probability that a batch is mixed by MixUp")
    p_cutmix: float = required(number(0, 1), "probability that a batch is mixed by CutMix")
    ema_decay: float = required(
        number(0, 1, is_below=True), "decay of the moving average of the weights, per step"
    )
    early_stopping_patience: int = required(
        whole(1, 10_000), "epochs without a better validation loss after which training stops"
    )
    reduce_lr_patience: int = required(
        whole(1, 10_000), "epochs without a better validation loss after which the learning rate falls"
    )
    reduce_lr_factor: float = required(
        number(0, 1, is_above=True, is_below=True), "what the learning rate is multiplied by then"
    )
    model_dir: Path = required(FOLDER, "folder of the trained models")
    log_dir: Path = required(FOLDER, "folder of the log files")
    crop_margin: float = required(
        number(0, 2), "margin around the face box on each side, as a share of the box"
    )
    test_mode: str = required(choice(*TEST_MODES), "what run_model.py reads")
    input_path: Path | None = required(
        INPUT, "the picture or video that run_model.py reads when TEST_MODE is image or video"
    )
    server_port: int = required(whole(1, 65_535), "port of the web server")

    backbone_weights: str = option("imagenet", WEIGHTS, "where the backbone starts")
    seed: int = option(0, whole(0, 2**31 - 1), "seed of the split by person and of training")
    server_host: str = option("127.0.0.1", HOST, "address that the web server listens on")
    allowed_origins: tuple[str, ...] = option(
        (), ORIGINS, "other pages that may use the server, and its own names; empty: its own page only"
    )
    server_token: Secret = option(
        Secret(), TOKEN, "token that page, WebSocket and API of the server ask for; empty: none"
    )
    trusted_proxies: tuple[str, ...] = option(
        (), NETWORKS, "reverse proxies whose X-Forwarded-For says where a client is; empty: none"
    )
    max_faces: int = option(4, whole(1, 32), "faces looked for in a picture")
    max_frame_bytes: int = option(
        2_000_000, whole(1_000, 100_000_000), "largest frame that the server takes, in bytes"
    )
    max_frame_pixels: int = option(
        4_000_000, whole(10_000, 130_000_000), "largest frame that the server decodes, in pixels"
    )
    max_frames_per_s: int = option(60, whole(1, 1_000), "frames a second taken from one client")
    max_connections: int = option(32, whole(1, 10_000), "clients of the server at a time")
    max_connections_per_address: int = option(
        32, whole(1, 10_000), "connections to the server from one address at a time"
    )
    max_upload_bytes: int = option(
        30_000_000, whole(1_000, 10_000_000_000), "largest picture or video that may be uploaded, in bytes"
    )
    max_upload_pixels: int = option(
        30_000_000,
        whole(10_000, 130_000_000),
        "largest JPEG, HEIC or AVIF that may be uploaded, in pixels (other formats: an eighth of it)",
    )
    max_video_s: int = option(60, whole(1, 3_600), "longest video that may be uploaded, in seconds")
    server_workers: int = option(
        0, whole(0, 64), "threads of the server that analyse pictures; 0: one a core, at most 3"
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
                f"DATA_DIR_TRAIN={self.data_dir_train}, DATA_DIR_VAL={self.data_dir_val}: two separate "
                "folders are required | 서로 다른 폴더여야 합니다"
            )
        if self.test_mode != "webcam" and self.input_path is None:
            faults.append(
                f"INPUT_PATH: missing; required with TEST_MODE={self.test_mode}: {INPUT.expected} | "
                f"없음; 필요한 값: {INPUT.korean}"
            )
        if faults:
            raise SettingsError(faults)

    def as_text(self) -> dict[str, str]:
        """NAME -> value in the form of `.env`, in the order of the fields."""
        return {info.name.upper(): text_of(getattr(self, info.name)) for info in fields(self)}


class SettingsError(UserError):
    """Settings that are missing or wrong; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        names = ", ".join(dict.fromkeys(re.split(r"[=: ]", fault)[0] for fault in faults))
        super().__init__(
            f"{len(faults)} settings are missing or wrong: {names}; set them in .env (cp .env.example .env), "
            "in the environment or as options | 없거나 잘못된 설정이 있습니다: .env를 확인하세요"
        )


def list_settings() -> list[Option]:
    """All settings in their order, the required ones first."""
    return declared(Settings)


def add_setting_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each setting, named like it in lower case; without it .env decides."""
    group = parser.add_argument_group("settings (win over the environment and .env)")
    for info in list_settings():
        source = f"{info.name.upper()} of the environment or .env"
        if not info.is_required:
            source += f", or {text_of(info.default) or 'empty'}"
        meaning = f"{info.help}: {info.kind.expected} (default: {source})"
        group.add_argument(f"--{info.name}", metavar="VALUE", help=meaning.replace("%", "%%"))


def folder_finder(name: str) -> Callable[[argparse.Namespace, Path], Path]:
    """A function that finds a folder of a program: its option, else the environment or .env.

    For the program's `facevox.cluster.job.Job`.
    """

    def find(args: argparse.Namespace, root: Path) -> Path:
        folder = getattr(args, name)
        if folder is not None:
            return Path(folder.strip()).expanduser()
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
        options: Option name (lower case) -> text, or None for an option that is not used.

    Raises:
        SettingsError: Some are missing or wrong.
    """
    in_file, faults = _read_env_file(env_file)
    infos = list_settings()
    faults += _misspelt(in_file, [info.name.upper() for info in infos])
    values: dict[str, Any] = {}
    for info in infos:
        name = info.name.upper()
        if options.get(info.name) is not None:
            value, source = str(options[info.name]), f"--{info.name}"
        elif name in environ:
            value, source = environ[name], "environment"
        else:
            value, source = in_file.get(name) or "", env_file.name
            if name not in in_file and not info.is_required:
                value = text_of(info.default)
        value = value.strip()
        english, korean = f"expected: {info.kind.expected}", f"필요한 값: {info.kind.korean}"
        try:
            values[info.name] = info.kind.read(value)
        except ValueError as error:
            if str(error) and info.kind is not TOKEN:  # a reason, with the value
                faults.append(f"{name} ({source}): {error}")
            elif value:
                short = repr(value if len(value) <= 60 else value[:59] + "…")
                if info.kind is TOKEN:
                    short = "(hidden)"
                faults.append(f"{name}={short} ({source}): {english} | {korean}")
            else:
                faults.append(f"{name}: missing; {english} | 없음; {korean}")
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _read_env_file(env_file: Path) -> tuple[dict[str, str | None], list[str]]:
    """(NAME -> value, None for a name without one; faults) of `.env`; nothing where there is none."""
    import dotenv.parser  # here: jobs are submitted where the emotion extras are not installed

    try:
        if env_file.stat().st_size > MAX_ENV_BYTES:
            return {}, [f"{env_file.name}: more than {MAX_ENV_BYTES} bytes | 파일이 너무 큽니다"]
        text = env_file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}, []
    except UnicodeDecodeError:
        return {}, [f"{env_file.name}: not UTF-8 text; save it as UTF-8 | UTF-8로 저장하세요"]
    except OSError as error:
        return {}, [f"{env_file.name}: {error.strerror} | 파일을 읽을 수 없습니다"]
    faults, lines = [], []
    for binding in dotenv.parser.parse_stream(io.StringIO(text)):
        if binding.error:
            faults.append(
                f"{env_file.name}:{binding.original.line}: NAME=value is expected | 이름=값 형식이어야 합니다"
            )
        else:
            lines.append(binding.original.string)
    return dict(dotenv.dotenv_values(stream=io.StringIO("".join(lines)))), faults


def _misspelt(in_file: Mapping[str, str | None], names: list[str]) -> list[str]:
    """Faults of names in `.env` that are nearly a setting's; others belong to other programs."""
    faults = []
    for name in in_file:
        if name in names:
            continue
        near = difflib.get_close_matches(name.upper(), names, n=1, cutoff=NEAR_NAME)
        if near:
            faults.append(f"{name}: no such setting; did you mean {near[0]}? | {near[0]}의 오타가 아닌가요?")
    return faults


def text_of(value: Any) -> str:
    """The value in the form of `.env`."""
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)
