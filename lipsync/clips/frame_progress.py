"""A bar for the frames of one clip, and a way out of them on a signal."""

import contextlib
from collections.abc import Callable, Iterator

from facevox.progress import Progress
from facevox.signals import StopFlag


@contextlib.contextmanager
def frame_progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A function to call for each frame: it moves the bar and raises KeyboardInterrupt on a signal.

    Args:
        label: Name of the clip.
        total: Expected number of frames.
    """
    if not Progress.is_wanted():
        yield lambda: None
        return

    with StopFlag() as stop, Progress(total, label, "frame") as progress:

        def on_frame() -> None:
            progress.update()
            if stop:  # nothing is kept of half a clip
                raise KeyboardInterrupt(stop.signal_name)

        yield on_frame
