"""Face boxes with a bar for each class, drawn onto pictures.

The server's page draws the same in the browser, with the same colours (`static/style.css`).
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emotion.live.analysis import Classifier, FaceAnalyser, translate_labels
from emotion.live.face_tracks import Face

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

logger = logging.getLogger(__name__)
LANGUAGES = ("en", "ko")

# Bright on a dark ground. The first five differ by at least 16 (CIEDE2000) for people without red or green
# cones as well, because they differ in lightness and between yellow and blue, not in red and green alone.
PALETTE = (
    (240, 180, 41),
    (86, 180, 233),
    (201, 206, 216),
    (217, 70, 143),
    (53, 217, 164),
    (240, 228, 66),
    (240, 116, 58),
    (143, 160, 255),
)
_CLASS_COLOURS = {"happy": 0, "sad": 1, "neutral": 2, "embarrassed": 3, "anxiety": 4}
INK = (255, 255, 255)
GROUND = (16, 18, 22)
GROUND_SHARE = 0.72  # opacity of the panel's ground over the picture

# Font folders of Linux, macOS and WSL; fonts with Hangul, best first.
FONT_FOLDERS = (
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "/mnt/c/Windows/Fonts",
)
KOREAN_FONTS = (
    "pretendard-medium.otf", "notosanskr-medium.otf", "notosanscjk-medium.ttc", "notosanscjk-regular.ttc",
    "notosanskr-regular.otf", "nanumgothic.ttf", "nanumbarungothic.ttf", "applesdgothicneo.ttc",
    "malgun.ttf", "undotum.ttf", "baekmuk.ttf",
)  # fmt: skip


def class_colours(class_names: Sequence[str]) -> list[tuple[int, int, int]]:
    """An RGB colour for each class: the five have theirs, others get the remaining ones in their order."""
    remaining = [index for index in range(len(PALETTE)) if index not in _CLASS_COLOURS.values()]
    others = [name for name in class_names if name not in _CLASS_COLOURS]
    index_of = _CLASS_COLOURS | {name: remaining[k % len(remaining)] for k, name in enumerate(others)}
    return [PALETTE[index_of[name]] for name in class_names]


def find_korean_font(folders: Iterable[str | Path] = FONT_FOLDERS) -> Path | None:
    """The best font with Hangul below `folders`, or None."""
    fonts: dict[str, Path] = {}
    for folder in folders:
        # Not by Path, which refuses ~ for a user without a home folder.
        for path in Path(os.path.expanduser(folder)).rglob("*.[oOtT][tT][fFcC]"):  # noqa: PTH111
            fonts.setdefault(path.name.lower(), path)
    return next((fonts[name] for name in KOREAN_FONTS if name in fonts), None)


class _Rect(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: "_Rect") -> float:
        """Area of the overlap, square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def place_panel(
    box: _Rect, size: tuple[float, float], picture: tuple[float, float], taken: Sequence[_Rect], gap: float
) -> _Rect:
    """The panel with the bars of a face: next to, below or above its box, where it covers least.

    Args:
        box: The face.
        size, picture: (width, height) of the panel and of the picture, pixels.
        taken: Other faces and the panels so far; to be kept free.
        gap: Between box and panel, pixels.

    Returns:
        The panel, inside the picture where it is large enough.
    """
    width, height = size
    corners = [
        (box.right + gap, box.top),
        (box.left - gap - width, box.top),
        (box.left, box.bottom + gap),
        (box.left, box.top - gap - height),
        (box.left + gap, box.bottom - gap - height),
    ]
    best, least = _Rect(0, 0, width, height), float("inf")
    for order, (x, y) in enumerate(corners):
        left, top = max(min(x, picture[0] - width), 0.0), max(min(y, picture[1] - height), 0.0)
        panel = _Rect(left, top, left + width, top + height)
        # To cover somebody else is worse than to cover this face; of equals the first corner wins.
        cost = panel.shared(box) + 3 * sum(panel.shared(other) for other in taken) + order
        if cost < least:
            best, least = panel, cost
    return best


class Annotator:
    """Draws the faces of pictures, one after the other.

    Args:
        class_names: In the order of the probabilities.
        language: "en" or "ko". Without a Korean font on the machine the labels are English, which is
            logged once.
    """

    def __init__(self, class_names: Sequence[str], language: str = "en") -> None:
        self.font_file = find_korean_font() if language == "ko" else None
        if language == "ko" and self.font_file is None:
            logger.warning(
                "no font with Hangul on this machine (apt-get install fonts-nanum); English labels"
            )
            language = "en"
        self.language = language
        self.labels = translate_labels(class_names)[language]
        self._colours = class_colours(class_names)
        self._fonts: dict[int, Font] = {}

    def draw(self, image_rgb: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.uint8]:
        """A copy of an (H, W, 3) uint8 RGB picture with a box and bars for each face.

        The bars show the smoothed probabilities.
        """
        picture = Image.fromarray(np.ascontiguousarray(image_rgb))
        draw = ImageDraw.Draw(picture)
        size = picture.size
        boxes = [_Rect(f.box[0], f.box[1], f.box[0] + f.box[2], f.box[1] + f.box[3]) for f in faces]
        font_px = min(max(round(min(size) / 26), 10), 44)
        line = max(font_px // 7, 1)
        panels: list[_Rect] = []
        for number, (face, box) in enumerate(zip(faces, boxes, strict=True)):
            best = int(np.argmax(face.smoothed))
            draw.rectangle(
                box, outline=GROUND, width=line + 2
            )  # a dark rim, for bright colours on bright skin
            draw.rectangle(box, outline=self._colours[best], width=line)
            others = boxes[:number] + boxes[number + 1 :] + panels
            panel = place_panel(box, self._panel_size(font_px), size, others, 2.0 * line)
            panels.append(panel)
        for face, panel in zip(faces, panels, strict=True):
            self._draw_panel(picture, draw, panel, [float(p) for p in face.smoothed], font_px)
        return np.asarray(picture, dtype=np.uint8).copy()

    def _font(self, font_px: int) -> Font:
        if font_px not in self._fonts:
            file = self.font_file
            self._fonts[font_px] = (
                ImageFont.truetype(str(file), font_px) if file else ImageFont.load_default(font_px)
            )
        return self._fonts[font_px]

    def _panel_size(self, font_px: int) -> tuple[float, float]:
        font = self._font(font_px)
        text = max(font.getlength(label) for label in self.labels) + font.getlength("  100 %")
        return text + 1.2 * font_px, len(self.labels) * 1.75 * font_px + 0.6 * font_px

    def _draw_panel(
        self,
        picture: Image.Image,
        draw: ImageDraw.ImageDraw,
        panel: _Rect,
        probabilities: Sequence[float],
        font_px: int,
    ) -> None:
        """A row for each class: its name, its share in percent, and a bar below."""
        font = self._font(font_px)
        corner = round(panel.left), round(panel.top)
        under = picture.crop((*corner, round(panel.right), round(panel.bottom)))
        picture.paste(Image.blend(under, Image.new("RGB", under.size, GROUND), GROUND_SHARE), corner)
        left, right = panel.left + 0.6 * font_px, panel.right - 0.6 * font_px
        bar_px = max(font_px // 5, 2)
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        for index, (label, share) in enumerate(zip(self.labels, probabilities, strict=True)):
            colour = self._colours[index]
            middle = panel.top + (0.3 + 0.7 + 1.75 * index) * font_px
            ink = INK if index == best else (205, 209, 216)
            draw.text((left, middle), label, font=font, fill=ink, anchor="lm")
            draw.text((right, middle), f"{100 * share:.0f} %", font=font, fill=ink, anchor="rm")
            top = middle + 0.62 * font_px
            draw.rectangle((left, top, right, top + bar_px), fill=(74, 79, 88))
            if share > 0:
                draw.rectangle(
                    (left, top, left + (right - left) * min(share, 1.0), top + bar_px), fill=colour
                )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Configuration of analysis and annotation.

    Attributes:
        model_file: The exported `.tflite`.
        max_faces: Largest number of faces in a picture.
        language: Of the labels in the pictures.
        spreadsheet_safe: Of the tables, see `facevox.spreadsheets`.
    """

    model_file: Path
    max_faces: int
    language: str
    spreadsheet_safe: bool = False

    def open(self) -> tuple[Classifier, FaceAnalyser, Annotator]:
        """The model, an analyser with it, and an annotator; for one thread."""
        classifier = Classifier(self.model_file)
        analyser = FaceAnalyser(classifier, max_faces=self.max_faces)
        return classifier, analyser, Annotator(classifier.class_names, self.language)
