"""Checkpoints: written whole or not at all, read as weights only, refused if they are another model's."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn

from facevox.archives import check_members
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault
from facevox.files import refuse_special, replacing
from facevox.training import distributed

LAST_FILE = "last.pth"  # the whole state of a run, in its folder


class _Output:
    """A file that keeps the error of its writes, instead of which torch raises a RuntimeError of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(path: str | Path, content: Mapping[str, object]) -> None:
    """Writes tensors, plain numbers, strings, lists and dicts in torch's format.

    Nothing else is allowed: `load_checkpoint` reads weights only, and even a NumPy number would make the file
    unreadable.
    """
    with replacing(path) as file:
        output = _Output(file)
        try:
            torch.save(dict(content), cast(IO[bytes], output))
        except RuntimeError:
            if output.error is not None:
                raise output.error from None
            raise


def load_checkpoint(
    path: str | Path, device: str | torch.device = "cpu", what: str = "checkpoint of facevox"
) -> dict[str, Any]:
    """The content of a file of `save_checkpoint`; reading it cannot run code.

    Args:
        path: The file.
        device: Device of its tensors.
        what: The expected content, for messages: "file of SyncNet's weights".

    Raises:
        UserError: There is no such file, or it is not a checkpoint.
    """
    try:
        _check_records(Path(path))
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UserError:
        raise
    except Exception as error:  # on a file of another kind the unpickler may raise anything
        # Cut off before torch's own advice, which is to switch the protection off.
        reason = one_line(error, limit=2000).split(" Please file an issue")[0].split(". ")[0]
        reason = file_fault(path, "weights") or reason[:120]
        raise UserError(f"{path}: no {what}, or a damaged one ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: no {what}: it holds a {type(content).__name__}")
    return content


def _check_records(path: Path) -> None:
    """Compares the records of torch's ZIP with their checksums, which torch itself does not.

    Raises:
        UserError: A record is damaged, or packed: torch packs none, and it could unpack to anything.
        Exception: It is a damaged ZIP.
    """
    refuse_special(path)
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":  # the format before torch 1.6, which has no checksums, or another file
            _check_pickle(path, file.read())
            return
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            packed = [info.filename for info in members if info.compress_type]
            if not packed:
                check_members(members, path.stat().st_size)  # records that share their bytes have more
            damaged = packed[0] if packed else archive.testzip()
            for info in members if not damaged else ():
                if info.filename.endswith(".pkl"):
                    _check_pickle(path, archive.read(info))
    if damaged:
        kind = "packed, which torch writes none of" if packed else "damaged"
        raise UserError(f"{path}: its record {damaged} is {kind}; restore the file, or train again")


def _check_pickle(path: Path, content: bytes) -> None:
    """Refuses a pickle that makes byte arrays: torch allows them, of any size, and weights have none."""
    if any(b"c" + module + b"\nbytearray\n" in content for module in (b"builtins", b"__builtin__")):
        raise UserError(f"{path}: it has a byte array, which no checkpoint of facevox has")


def checkpoint_to_resume(save_dir: Path, resume: str) -> Path | None:
    """The checkpoint that a run starts from; None: it starts from scratch.

    Called on every rank.

    Args:
        save_dir: Folder of the run, with its last.pth if it has been stopped before.
        resume: `auto` (last.pth if it is there), `never`, or a checkpoint. A run that started from that very
            checkpoint and was stopped continues from its own last.pth, which is further.

    Raises:
        UserError: Some ranks see the file and this one does not.
    """
    if resume == "never":
        return None
    last = save_dir / LAST_FILE
    file = last if resume == "auto" else Path(resume)
    if file != last and last.exists() and load_checkpoint(last).get("began_from") == named_checkpoint(resume):
        file = last
    exists_anywhere = distributed.any_rank(file.exists())
    if exists_anywhere and not file.exists():
        raise UserError(f"{file}: not visible on every rank; --save_dir must be on a shared disk")
    return file if exists_anywhere or resume != "auto" else None


def named_checkpoint(resume: str) -> str:
    """Absolute path of the checkpoint that --resume named, which last.pth records; empty without one."""
    return "" if resume in ("auto", "never") else str(Path(resume).absolute())


def load_weights(module: nn.Module, state: object, path: str | Path) -> None:
    """Loads `state` into `module`, all of it and nothing else.

    Raises:
        UserError: Names or sizes differ; nothing has been changed then.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: it holds no weights")
    expected = module.state_dict()
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or surplus:
        example = min(missing or surplus)
        raise UserError(
            f"{path}: weights of another model ({len(missing)} of this one's are missing, {len(surplus)} are "
            f"unknown to it, such as {example})"
        )
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise UserError(
                f"{path}: weights of another size: {name} is {tuple(state[name].shape)}, this model's is "
                f"{tuple(value.shape)}"
            )
    module.load_state_dict(dict(state))
