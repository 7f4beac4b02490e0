"""Boxes and bars: where they are drawn, in which colours and words."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from emotion.live import annotation
from emotion.live.annotation import PALETTE, Annotator, _Rect, class_colours, find_korean_font, place_panel
from emotion.live.face_tracks import Face

CLASSES = ("happy", "sad", "neutral", "embarrassed", "anxiety")


def make_face(number: int = 1, box=(60.0, 50.0, 120.0, 140.0), shares=(0.5, 0.25, 0.125, 0.125, 0.0)) -> Face:
    values = np.array(shares, np.float32)
    return Face(track_id=number, box=box, probabilities=values, smoothed=values)


def test_picture_stays_as_it_is_outside_of_box_and_bars():
    image = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    before = image.copy()
    drawn = Annotator(CLASSES).draw(image, [make_face()])
    assert np.array_equal(image, before), "the input was drawn on"
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    changed = np.argwhere((drawn != image).any(axis=2))
    assert changed[:, 0].max() < 320
    assert changed[:, 1].max() < 420
    inside = (slice(60, 180), slice(70, 170))  # of the box: a face is never painted over
    assert np.array_equal(drawn[inside], image[inside])
    assert np.array_equal(Annotator(CLASSES).draw(image, []), image)


def test_bars_are_as_long_as_their_shares_and_in_the_colours_of_their_classes():
    image = np.zeros((700, 900, 3), np.uint8)
    shares = (0.5, 0.25, 0.125, 0.1, 0.025)
    drawn = Annotator(CLASSES).draw(image, [make_face(shares=shares, box=(40.0, 40.0, 200.0, 200.0))])
    panel = drawn[:, 260:]  # right of the box
    lengths = []
    for colour in class_colours(CLASSES):
        rows, columns = np.nonzero((panel == colour).all(axis=2))
        assert len(rows), colour
        lengths.append(columns.max() - columns.min() + 1)
    whole = lengths[0] / shares[0]
    assert lengths == pytest.approx([share * whole for share in shares], abs=1.5)


def test_box_has_the_colour_of_the_strongest_class():
    image = np.full((400, 600, 3), 90, np.uint8)
    drawn = Annotator(CLASSES).draw(image, [make_face(shares=(0.1, 0.1, 0.1, 0.1, 0.6))])
    edge = drawn[45:60, 120]  # across the upper edge of the box
    assert (edge == class_colours(CLASSES)[4]).all(axis=1).any()


@pytest.mark.parametrize(
    "box", [(-50.0, -40.0, 90.0, 90.0), (560.0, 370.0, 90.0, 90.0), (-20.0, -20.0, 900.0, 700.0)]
)
def test_face_over_the_border_is_drawn(box):
    drawn = Annotator(CLASSES).draw(np.full((400, 600, 3), 90, np.uint8), [make_face(box=box)])
    assert (drawn != 90).any()


def test_tiny_and_many_faced_pictures_are_drawn():
    for height, width in ((24, 16), (120, 160)):
        faces = [make_face(n, (4.0 * n, 3.0, 9.0, 12.0)) for n in range(1, 5)]
        assert Annotator(CLASSES).draw(np.zeros((height, width, 3), np.uint8), faces).shape == (
            height,
            width,
            3,
        )


def test_panel_goes_where_it_covers_least():
    size, picture = (100.0, 120.0), (600.0, 400.0)
    middle = _Rect(200, 100, 300, 220)
    assert place_panel(middle, size, picture, [], 4) == _Rect(304, 100, 404, 220)
    neighbour = _Rect(310, 90, 420, 230)
    assert place_panel(middle, size, picture, [neighbour], 4) == _Rect(96, 100, 196, 220)
    both = [neighbour, _Rect(80, 90, 190, 230)]
    assert place_panel(middle, size, picture, both, 4) == _Rect(200, 224, 300, 344)
    at_right_border = _Rect(490, 100, 595, 220)
    assert place_panel(at_right_border, size, picture, [], 4).right <= 490


def test_unknown_classes_get_colours_of_their_own():
    colours = class_colours(("happy", "hurt", "anger"))
    assert colours[0] == PALETTE[0]
    assert len(set(colours)) == 3


# Vienot, Brettel, Mollon (1999): what protanopes and deuteranopes see of linear RGB.
SIMULATIONS = {
    "all cones": np.eye(3),
    "no red cones": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "no green cones": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


@pytest.mark.parametrize("sight", SIMULATIONS)
@pytest.mark.parametrize("theme", ["--picture-", "light", "dark"])
def test_five_colours_are_told_apart_by_colour_blind_people(sight, theme, repository):
    from skimage.color import deltaE_ciede2000, rgb2lab

    colours = np.array(css_colours(repository, theme)[:5], np.float64) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ SIMULATIONS[sight].T, 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(srgb[None])[0]
    distances = [deltaE_ciede2000(a, b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 13, [round(float(d), 1) for d in distances]  # 2 is just noticeable


def css_colours(repository: Path, theme: str) -> list[tuple[int, int, int]]:
    """The colours of the expressions in the page's style sheet."""
    style = (repository / "emotion" / "static" / "style.css").read_text(encoding="utf-8")
    name = theme if theme.startswith("--") else "--emotion-"
    found = [tuple(bytes.fromhex(value)) for value in re.findall(rf"{name}\d: #([0-9a-f]{{6}});", style)]
    assert len(found) in (8, 16)
    return found[8:] if theme == "dark" else found[:8]


def test_page_and_annotated_files_have_the_same_colours(repository):
    assert css_colours(repository, "--picture-") == list(PALETTE)


def test_korean_labels_without_a_korean_font_become_english_and_say_so_once(monkeypatch, logged, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "Latin.ttf").write_bytes(b"")
    assert find_korean_font([tmp_path]) is None
    monkeypatch.setattr(annotation, "find_korean_font", lambda: None)
    annotator = Annotator(CLASSES, "ko")
    image = np.zeros((300, 400, 3), np.uint8)
    for _ in range(3):
        annotator.draw(image, [make_face()])
    assert annotator.labels[0] == "Happy"
    lines = logged.messages
    assert len(lines) == 1
    assert "fonts-nanum" in lines[0]


def test_best_korean_font_is_found_at_any_depth(tmp_path):
    for name in ("truetype/nanum/NanumGothic.ttf", "opentype/noto/NotoSansCJK-Regular.ttc", "x/Other.ttf"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    assert (
        find_korean_font([tmp_path / "none", tmp_path]) == tmp_path / "opentype/noto/NotoSansCJK-Regular.ttc"
    )


def test_korean_labels_are_drawn_where_there_is_a_font():
    if find_korean_font() is None:
        pytest.skip("no Korean font on this machine (Debian: fonts-nanum)")
    image = np.zeros((400, 600, 3), np.uint8)
    annotator = Annotator(CLASSES, "ko")
    assert annotator.labels == ["기쁨", "슬픔", "중립", "당황", "불안"]
    korean = annotator.draw(image, [make_face()])
    assert not np.array_equal(korean, Annotator(CLASSES, "en").draw(image, [make_face()]))
