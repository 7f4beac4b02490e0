"""The folder of a training or an evaluation, locked against other runs while one works there."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from facevox.errors import UserError, one_line
from facevox.files import set_run_token
from facevox.locks import OutputLock
from facevox.logs import LOG_FILE, log_file
from facevox.signals import StopFlag
from facevox.training import distributed


@contextmanager
def run_folder(save_dir: Path, *, option: str = "--save_dir", work: str = "training") -> Iterator[None]:
    """Creates the folder of a run if it is missing, and locks it against other runs while the block lasts.

    All ranks enter it; rank 0 holds the lock, removes the half-written files of a run that was killed, and
    appends its log messages to log.txt. A signal that comes before the first step, while weights are loaded,
    is not lost: it stops the run after that step.

    Args:
        save_dir: The folder.
        option: The option that named it.
        work: Name of the work; other work may be done there at the same time.

    Raises:
        UserError: Another run writes there, or the folder cannot be written to.
    """
    with ExitStack() as stack:
        distributed.on_main(lambda: _lock(stack, save_dir, option, work))
        stack.enter_context(StopFlag())
        yield


def _lock(stack: ExitStack, save_dir: Path, option: str, work: str) -> None:
    file = save_dir / "locks" / f"{work}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {save_dir}: {one_line(error)}") from None
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise UserError(f"{option} {save_dir}: nothing can be written there")
    lock = stack.enter_context(OutputLock(file))
    stack.enter_context(log_file(save_dir / LOG_FILE))
    lock.clear_dead_run(work, save_dir)
    set_run_token(lock.token)
    stack.callback(set_run_token, "")
    stack.enter_context(_kept_folder(save_dir, lock))


@contextmanager
def _kept_folder(save_dir: Path, lock: OutputLock) -> Iterator[None]:
    """Checks at the end of a run that its folder is still the one that it began in."""
    yield
    if lock.lost or not lock.path.exists():
        raise UserError(
            f"{save_dir}: was removed or replaced while the run wrote into it; run the same command again"
        )
