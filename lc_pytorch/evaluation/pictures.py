"""The pictures of an evaluation: ROC curves, ranks, and queries next to their best matches.

All are drawn without a screen, and are the same for the same numbers.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from facevox.errors import UserError
from facevox.files import read_image, write_bytes
from lc_pytorch.evaluation.tables import DIRECTIONS, STRATUM_NAMES
from lc_pytorch.utils.chance import first_place
from lc_pytorch.utils.metrics import Evaluation

COLOURS = {"face_to_voice": "#0b6bcb", "voice_to_face": "#c2410c"}
STRATUM_STYLES = {
    "all": ("-", "#0b6bcb"),
    "gender": ("--", "#7c3aed"),
    "nationality": ("-.", "#0f766e"),
    "both": (":", "#111827"),
}
RIGHT, WRONG, QUERY = "#15803d", "#b91c1c", "#525252"
# gallery.png: a cell holds a line with the direction, a framed face, and three lines of caption.
THUMBNAIL_PX, FRAME_PX, LABEL_PX = 112, 4, 16
CELL_PX = (146, LABEL_PX + THUMBNAIL_PX + 2 * FRAME_PX + 56)
MARGIN_PX, TITLE_PX = 14, 26
MAX_CAPTION = 22  # characters of a line below a thumbnail
DPI = 110
# Where installed, these draw the names that the default font lacks (Korean, Chinese, Japanese).
CJK_FONTS = ("Noto Sans CJK KR", "NanumGothic", "Noto Sans KR", "Apple SD Gothic Neo", "WenQuanYi Zen Hei")


@dataclass(frozen=True)
class Shown:
    """A face in the gallery picture.

    Attributes:
        face_file: A picture of the person; None: there is none.
        label: First line below it.
        identity: Second line.
        similarity: In the third line; None for a query.
        is_right: Whether the match is the person of the query; None for a query.
    """

    face_file: Path | None
    label: str
    identity: str
    similarity: float | None = None
    is_right: bool | None = None


def plain_text(text: str, limit: int) -> str:
    """`text` on one line, of characters that can be drawn, cut in the middle to `limit`."""
    line = "".join(character if character.isprintable() else " " for character in text)
    if len(line) > limit:
        line = f"{line[: limit // 2]}…{line[len(line) - (limit - limit // 2 - 1) :]}"
    return line


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    installed = [name for name in CJK_FONTS if name in font_manager.get_font_names()]
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    with rc_context({"font.family": ["DejaVu Sans", *installed]}), warnings.catch_warnings():
        # A character that no font here has becomes an empty box; the table and the CSV hold the name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Without the version of matplotlib in the file, so that equal pictures are equal bytes.
        figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, data.getvalue())


def draw_roc(evaluation: Evaluation, title: str, path: Path) -> None:
    """Draws true against false acceptance, with the equal error rate marked; a curve for each stratum."""
    figure = _figure((6.2, 6.2))
    axes: Axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#9ca3af", linewidth=1, label="chance")
    for stratum, verification in evaluation.verification.items():
        if not len(verification.roc):
            continue
        name, rate = STRATUM_NAMES[stratum], verification.equal_error_rate.value
        label = f"{name}: AUC {verification.auc.value:.3f}, EER {rate:.3f}"
        style, colour = STRATUM_STYLES[stratum]
        axes.plot(*verification.roc.T, color=colour, linestyle=style, label=label)
        axes.plot([rate], [1 - rate], "o", color=colour, markersize=5)
    axes.set(xlabel="false acceptance rate", ylabel="true acceptance rate", xlim=(0, 1), ylim=(0, 1.005))
    axes.set_aspect("equal")
    _finish(axes, title)
    save_figure(figure, path)


def draw_rank_cdf(
    evaluation: Evaluation,
    face_identities: Sequence[str],
    voice_identities: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draws the share of queries whose first positive is among the first k, for every k; both directions."""
    figure = _figure((7.2, 5.2))
    axes: Axes = figure.subplots()
    sides = (face_identities, voice_identities)
    for (key, name), (queries, gallery) in zip(DIRECTIONS.items(), (sides, sides[::-1]), strict=True):
        ranks = evaluation.retrieval[key, "all"].ranks
        ranks = np.sort(ranks[np.isfinite(ranks)])
        if len(ranks):
            shares = np.arange(1, len(ranks) + 1) / len(ranks)
            # A step for each different rank, at the last query that has it; then on to the gallery's end.
            last = np.append(np.flatnonzero(np.diff(ranks)), len(ranks) - 1)
            x, y = np.append(ranks[last], len(gallery)), np.append(shares[last], 1.0)
            axes.step(
                np.append(1, x),
                np.append(y[0] if x[0] == 1 else 0, y),
                where="post",
                color=COLOURS[key],
                label=name,
            )
            expected = chance_rank_cdf(queries, gallery)
            drawn = _few(len(expected))
            label = f"chance, {name}"
            axes.plot(drawn + 1, expected[drawn], color=COLOURS[key], linewidth=1, linestyle=":", label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="rank k of the first right one", ylabel="share of queries", ylim=(0, 1.005))
    axes.set_xlim(left=1)
    _finish(axes, title)
    save_figure(figure, path)


def chance_rank_cdf(queries: Sequence[str], gallery: Sequence[str]) -> NDArray[np.float64]:
    """(M,) share of the queries that a random order of the gallery answers within the first 1, 2, … M.

    Queries whose person is not in the gallery are left out.
    """
    counts: dict[str, int] = {}
    for name in gallery:
        counts[name] = counts.get(name, 0) + 1
    num_positives = np.array([counts.get(name, 0) for name in queries])
    # Queries with equally many positives have the same curve: one curve for each number, weighted.
    cases, weights = np.unique(num_positives[num_positives > 0], return_counts=True)
    shares = np.ones(len(gallery))
    if len(cases):
        shares[:] = 0.0
    for positives, weight in zip(cases.tolist(), weights, strict=True):
        reached = np.cumsum(first_place(len(gallery) - positives, positives))
        shares += np.append(reached, np.ones(len(gallery) - len(reached))) * weight / weights.sum()
    return shares


def draw_gallery(rows: Sequence[tuple[str, Sequence[Shown]]], title: str, path: Path) -> None:
    """Draws queries with their best matches next to them.

    Args:
        rows: (direction, query and its matches); matches of the query's person get a green frame, others a
            red one.
        title: Heading of the picture.
        path: Of the PNG.
    """
    columns = max(len(shown) for _, shown in rows)
    size_px = (MARGIN_PX + columns * CELL_PX[0], TITLE_PX + len(rows) * CELL_PX[1])
    # One picture and texts upon it: a drawing area for each face would take ten times as long.
    canvas = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    figure = _figure((size_px[0] / DPI, size_px[1] / DPI), layout=None)
    axes: Axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size_px[0]), ylim=(size_px[1], 0))
    axes.set_axis_off()
    _write(axes, size_px[0] / 2, 6, plain_text(title, size_px[0] // 8), size_pt=8, align="center")
    for row, (direction, shown) in enumerate(rows):
        top = TITLE_PX + row * CELL_PX[1]
        _write(axes, MARGIN_PX, top, DIRECTIONS[direction], size_pt=7)
        for column, face in enumerate(shown):
            _draw_face(axes, canvas, MARGIN_PX + column * CELL_PX[0], top + LABEL_PX, face)
    axes.imshow(canvas, extent=(0, size_px[0], size_px[1], 0), interpolation="none", aspect="auto")
    save_figure(figure, path)


def _draw_face(axes: Axes, canvas: NDArray[np.uint8], left: int, top: int, shown: Shown) -> None:
    """Draws a framed face into the canvas, and its caption below."""
    colour = QUERY if shown.is_right is None else RIGHT if shown.is_right else WRONG
    side = THUMBNAIL_PX + 2 * FRAME_PX
    canvas[top : top + side, left : left + side] = [int(colour[index : index + 2], 16) for index in (1, 3, 5)]
    inner = slice(top + FRAME_PX, top + side - FRAME_PX), slice(left + FRAME_PX, left + side - FRAME_PX)
    canvas[inner] = _thumbnail(shown.face_file)
    lines = [shown.label, shown.identity]
    if shown.similarity is not None:
        verdict = "right" if shown.is_right else "wrong"  # in words too: not everybody tells red from green
        lines.append(f"{shown.similarity:.3f}, {verdict}")
    for number, line in enumerate(lines):
        text = plain_text(line, MAX_CAPTION)
        _write(
            axes,
            left + side / 2,
            top + side + 3 + 13 * number,
            text,
            size_pt=7,
            align="center",
            colour=colour,
        )


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size_pt: float,
    align: Literal["left", "center"] = "left",
    colour: str = "black",
) -> None:
    """Writes text whose upper edge is at y pixels."""
    # No formulas: a name may hold dollar signs.
    axes.text(x, y, text, fontsize=size_pt, ha=align, va="top", color=colour, parse_math=False)


def _thumbnail(file: Path | None) -> NDArray[np.uint8]:
    """(112, 112, 3) RGB on grey, the picture whole and in its own proportions; grey where there is none."""
    canvas = np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), 229, np.uint8)
    if file is None:
        return canvas
    try:
        image = read_image(file)
    except (UserError, OSError):  # it was there when it was embedded
        return canvas
    scale = THUMBNAIL_PX / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    top, left = (THUMBNAIL_PX - height) // 2, (THUMBNAIL_PX - width) // 2
    canvas[top : top + height, left : left + width] = small
    return canvas


def _figure(size_inch: tuple[float, float], layout: Literal["constrained"] | None = "constrained") -> Figure:
    return Figure(figsize=size_inch, layout=layout)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(plain_text(title, 90), fontsize=9, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)


def _few(count: int) -> NDArray[np.int64]:
    """At most some hundred of the numbers 0 … count - 1, evenly on a logarithmic scale."""
    spread: NDArray[np.int64] = np.geomspace(1, count, min(count, 400)).round().astype(np.int64) - 1
    return np.unique(spread)
