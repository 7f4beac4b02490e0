"""A window for pictures, where there is a screen."""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)
WINDOW = "facevox"
CLOSING_KEYS = (ord("q"), ord("Q"), 27)  # 27: Escape
KEY_WAIT_MS = 1


def has_screen(environ: Mapping[str, str] = os.environ) -> bool:
    """True if a window can be opened. Without a screen OpenCV's window functions end the whole process."""
    if sys.platform == "darwin":
        return not environ.get("SSH_CONNECTION")
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


class Viewer:
    """A window where there is a screen, and nothing where there is none; a context manager.

    Args:
        is_enabled: False: no window, although there is a screen.

    Attributes:
        is_open: False without a screen, and once somebody closed it (q, Escape).
    """

    def __init__(self, is_enabled: bool = True) -> None:
        self.is_open = is_enabled and has_screen()

    def show(self, image_rgb: NDArray[np.uint8], wait_ms: int = KEY_WAIT_MS) -> None:
        """Shows an (H, W, 3) uint8 RGB picture; `wait_ms` of 0 waits for a key."""
        if not self.is_open:
            return
        try:
            cv2.imshow(WINDOW, image_rgb[..., ::-1])
            if cv2.waitKey(wait_ms) & 0xFF in CLOSING_KEYS:
                self.close()
        except cv2.error:  # this build of OpenCV has no windows
            logger.warning("OpenCV opens no window here; continuing without one")
            self.is_open = False

    def close(self) -> None:
        """Closes the window; calling it twice is safe."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(cv2.error):
                cv2.destroyWindow(WINDOW)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
