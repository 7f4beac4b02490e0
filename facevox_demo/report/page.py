"""One self-contained HTML file: headings, text, tables, pictures, plots; opens without a network."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from facevox.errors import printable
from facevox.files import encode_image, write_text

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0.2rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
nav a { margin-right: 1rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.8rem; text-align: left; border-bottom: 1px solid var(--line); }
th { background: var(--soft); } td.number { text-align: right; }
figure { display: inline-block; margin: 0.3rem; vertical-align: top; }
figcaption { font-size: 0.8rem; max-width: 12rem; overflow-wrap: anywhere; }
img { max-width: 100%; border-radius: 4px; } .row { border-left: 4px solid var(--line); padding-left: 0.5rem;
margin: 0.6rem 0; } pre { background: var(--soft); padding: 0.6rem; overflow-x: auto; }
"""


class Report:
    """Collects parts in order and writes them as one page.

    Every text is escaped: file names come from anywhere.

    Args:
        title: Of the page.
        subtitle: One line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._subtitle = subtitle
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str) -> None:
        """Begins a section, listed at the top of the page."""
        self._sections.append(title)
        self._parts.append(f'<h2 id="s{len(self._sections)}">{html.escape(title)}</h2>')

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Commands or output, as they are."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; numbers are aligned to the right, floats with four significant digits."""
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        self._parts.append(f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')

    def images(
        self, images: Iterable[tuple[NDArray[np.uint8], str]], *, width_px: int = 112, row: bool = False
    ) -> None:
        """Pictures side by side, each (H, W, 3) uint8 RGB with a caption, drawn `width_px` wide.

        `row` marks them as belonging together (the faces of one person).
        """
        figures = []
        for image, caption in images:
            height, width = image.shape[:2]
            if width > 2 * width_px:  # twice the drawn size is enough for fine screens
                size = (2 * width_px, max(round(height * 2 * width_px / width), 1))
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype)
            data = base64.b64encode(encode_image(image, ".jpg", 85)).decode()
            figures.append(_figure(f"data:image/jpeg;base64,{data}", caption, width_px))
        self._parts.append(f'<div class="{"row" if row else "images"}">{"".join(figures)}</div>')

    def video(self, file: str | Path, caption: str = "", *, width_px: int = 320) -> None:
        """An mp4 of a few seconds, inside the page."""
        data = base64.b64encode(Path(file).read_bytes()).decode("ascii")
        self._parts.append(
            f'<figure><video controls loop muted playsinline width="{width_px}" '
            f'src="data:video/mp4;base64,{data}"></video>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def figure(self, figure: Figure, caption: str = "") -> None:
        """A matplotlib figure, kept as a vector drawing."""
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight")
        data = base64.b64encode(buffer.getvalue().encode()).decode()
        self._parts.append(_figure(f"data:image/svg+xml;base64,{data}", caption, None))

    def write(self, path: str | Path) -> None:
        """Writes the page, whole."""
        links = "".join(
            f'<a href="#s{number}">{html.escape(name)}</a>'
            for number, name in enumerate(self._sections, start=1)
        )
        title = html.escape(self._title)
        text = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1><p>{html.escape(self._subtitle)}</p>"
            f"<nav>{links}</nav>\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )
        write_text(path, printable(text, keep="\n\t"))


def _cell(value: object) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"<td{' class=number' if is_number else ''}>{html.escape(text)}</td>"


def _figure(source: str, caption: str, width_px: int | None) -> str:
    width = f' width="{width_px}"' if width_px else ""
    text = html.escape(caption)
    label = f"<figcaption>{text}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{html.escape(caption, quote=True)}"{width}>{label}</figure>'
