"""The HTML report."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from facevox_demo.report.page import Report


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


def make_page(tmp_path: Path) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    report = Report("Title <b>", "sub & title")
    report.section("Faces")
    report.text("<script>alert(1)</script>")
    report.table(["name", "value"], [["a<b", 3], ["c", 0.123456789]])
    report.images([(np.zeros((300, 400, 3), np.uint8), 'x"><script>.jpg')], row=True)
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([1, 2])
    report.figure(figure, "a plot")
    report.code("make demo")
    report.write(tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    checker = _Checker()
    checker.feed(make_page(tmp_path))
    assert checker.open_tags == []
    assert len(checker.sources) == 3
    assert all(source.startswith(("data:", "#")) for source in checker.sources)


def test_every_text_is_escaped(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_numbers_are_rounded_and_stand_right(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    assert re.search(r"<td class=number>0\.1235</td>", page)
    assert "<td class=number>3</td>" in page


def test_video_is_inside_the_page(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"\x00\x01film")
    report = Report("title")
    report.video(tmp_path / "x.mp4", "<clip>", width_px=99)
    report.write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'width="99" src="data:video/mp4;base64,AAFmaWxt"' in page
    assert "&lt;clip&gt;" in page
