"""One still picture of a person: two portraits warped to the person's geometry, dissolved, toned, dressed.

A `Portrait` is drawn on a canvas somewhat finer than the frames, with the mouth shut and the eyes open; all
that moves later (mouth, expression, head) is a warp of this canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox_demo.example import sources
from facevox_demo.example.people import CASTS, Appearance, Person
from facevox_demo.example.warps import Floats, ThinPlateSpline, apply_geometry, bell, smooth_step

OVERSAMPLING = 1.5  # canvas pixels for one frame pixel: every later warp costs sharpness
FACE_UNIT_SHARE = 0.262  # distance between the outer eye corners against the width of the frame
EYE_LINE_SHARE = 0.43  # height of the eyes from the upper edge of the frame
GRID = 48  # cells of the coarse warp grid along each side

# Landmarks that hold the warps: outlines and features; the inner lips would fold where a mouth is open.
HOLD = tuple(
    dict.fromkeys(
        (
            *(*sources.OVAL, *sources.BROWS, *sources.EYES, *sources.NOSE, *sources.LIPS_OUTER),
            *sources.CHEEKS,
        )
    )
)
# Far points keep hair, neck and shoulders in place.
ANCHORS = np.array(
    [(x, y) for x in (-2.4, -1.2, 0.0, 1.2, 2.4) for y in (-2.2, 2.6)]
    + [(-2.4, 0.0), (2.4, 0.0), (-1.5, 1.6), (1.5, 1.6), (-1.3, -1.2), (1.3, -1.2), (0.0, 1.9)]
)


@dataclass(frozen=True)
class Portrait:
    """A person's canvas.

    Attributes:
        canvas: (C, C, 3) uint8 RGB.
        landmarks: (478, 2) float64 in canvas pixels, as the geometry puts them.
        unit_px: Length of a face unit in canvas pixels.
        centre: (2,) the origin of the face units in canvas pixels.
        skin_rgb: (3,) mean skin colour, 0 to 255.
    """

    canvas: NDArray[np.uint8]
    landmarks: Floats
    unit_px: float
    centre: Floats
    skin_rgb: Floats


def draw_portrait(person: Person, size: int = 256) -> Portrait:
    """The still picture of `person` for frames of `size` x `size` pixels."""
    canvas_px = round(size * OVERSAMPLING)
    unit_px = canvas_px * FACE_UNIT_SHARE
    centre = np.array([canvas_px / 2.0, canvas_px * EYE_LINE_SHARE])
    average = sources.template_landmarks()
    mirror = -1.0 if person.appearance.is_mirrored else 1.0
    astronaut, officer = sources.load_sources()
    goal = apply_geometry(average * (mirror, 1.0), person.geometry, 0.0)
    layers = [_warped(source, average, person, canvas_px, unit_px, centre) for source in (astronaut, officer)]
    lab, skin = _dissolved(layers, person.appearance, _face_units(canvas_px, unit_px, centre), goal)
    for trait, shift in CASTS.items():
        lab[..., 1:] += person.geometry[trait] * np.array(shift)
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    canvas = np.clip(rgb * 255.0 + 0.5, 0, 255).astype(np.uint8)
    if mirror < 0:  # the landmark on the left of the picture gets the number that FaceMesh gives it there
        goal = goal[mirrored_numbers()]
    landmarks = goal * unit_px + centre
    return Portrait(canvas, landmarks, unit_px, centre, canvas[skin > 0.9].mean(0))


def mirrored_numbers() -> NDArray[np.int64]:
    """(478,) for each landmark number the one on the other side of the face."""
    points = sources.template_landmarks()
    points = points - (float(points[:, :1].mean()), 0.0)
    distance = ((points[:, None, :] * (-1.0, 1.0) - points[None, :, :]) ** 2).sum(-1)
    # Edges of the inner lip nearly coincide: the canonical pairs of the lips are fixed by hand below.
    numbers: NDArray[np.int64] = distance.argmin(1)
    for row in (sources.UPPER_SEAM, sources.LOWER_SEAM):
        numbers[list(row)] = row[::-1]
    return numbers


def _face_units(canvas_px: int, unit_px: float, centre: Floats) -> Floats:
    """(C, C, 2) face units of every canvas pixel."""
    x = (np.arange(canvas_px) + 0.5 - centre[0]) / unit_px
    y = (np.arange(canvas_px) + 0.5 - centre[1]) / unit_px
    return np.stack(np.meshgrid(x, y), axis=-1)


def _warped(
    source: sources.Source,
    average: Floats,
    person: Person,
    canvas_px: int,
    unit_px: float,
    centre: Floats,
) -> tuple[Floats, Floats]:
    """Lab (C, C, 3) and masks (C, C, 4) of a portrait in the geometry of the person."""
    mirror = np.array([-1.0 if person.appearance.is_mirrored else 1.0, 1.0])
    hold = list(HOLD)
    goal = np.vstack([average[hold], ANCHORS]) * mirror
    goal = apply_geometry(goal, person.geometry, person.appearance.hair_volume)
    origin = source.pixels(np.vstack([source.landmarks[hold], ANCHORS]))
    spline = ThinPlateSpline(goal, origin, stiffness=2e-3)
    nodes = (np.arange(GRID + 1) * (canvas_px / GRID) - centre[:, None]) / unit_px
    coarse = spline(np.stack(np.meshgrid(nodes[0], nodes[1]), axis=-1)).astype(np.float32)
    full = refine_grid(coarse, canvas_px)
    lab = cv2.remap(source.lab, full, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    masks = cv2.remap(source.masks, full, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return lab, np.clip(masks, 0.0, 1.0)


def refine_grid(coarse: Floats, size_px: int) -> Floats:
    """Values (size, size, 2) at pixel centres of a grid (n + 1, n + 1, 2) whose nodes span the picture."""
    cells = coarse.shape[0] - 1
    scale = cells / size_px
    # A pixel centre (i + 0.5) is at (i + 0.5) * scale among the nodes.
    matrix = np.array([[scale, 0.0, 0.5 * scale], [0.0, scale, 0.5 * scale]])
    grid: Floats = cv2.warpAffine(
        coarse,
        matrix,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return grid


def _dissolved(
    layers: list[tuple[Floats, Floats]], look: Appearance, units: Floats, goal: Floats
) -> tuple[Floats, Floats]:
    """The dressed and toned person before the backdrop: Lab (C, C, 3), and the skin mask (C, C)."""
    (astronaut, astronaut_masks), (officer, officer_masks) = layers
    share = _officer_share(units, look, goal)
    y = units[..., 1]
    has_cap = look.head == "cap"
    if has_cap:
        # Where the astronaut has hair, the officer's forehead stays.
        share = 1.0 - (1.0 - share) * _tightened(astronaut_masks[..., sources.SKIN])
        share = np.maximum(share, 1.0 - _oval(units, goal))
    else:
        share = share * _tightened(officer_masks[..., sources.SKIN]) * _oval(units, goal)
        share = share * (1.0 - astronaut_masks[..., sources.TOP])
    head = astronaut + share[..., None] * (officer - astronaut)
    base = officer_masks if has_cap else astronaut_masks
    person, top, clothes = (base[..., k] for k in (sources.PERSON, sources.TOP, sources.CLOTHES))
    if not has_cap and look.body == "suit":
        chin = goal[152, 1]
        body = officer_masks[..., sources.PERSON] * smooth_step(y, chin - 0.22, chin - 0.12)
        above = person * (1.0 - clothes) * (1.0 - smooth_step(y, chin + 0.02, chin + 0.16))
        head = officer + above[..., None] * (head - officer)
        clothes = officer_masks[..., sources.CLOTHES] * (1.0 - above)
        top = top * (1.0 - smooth_step(y, chin - 0.1, chin))
        person = np.maximum(above, body)
    skin = person * (1.0 - top) * (1.0 - clothes)
    lab = _toned(head, skin, look.skin_lab, sources.SKIN_LAB[0], 1.0)
    if not has_cap:
        lab = _toned(lab, top, look.hair_lab, 40.0, look.hair_contrast)
    lab = _dressed(lab, clothes, top if has_cap else None, look)
    backdrop = _backdrop(units, look)
    return backdrop + person[..., None] * (lab - backdrop), skin * _oval(units, goal)


def _tightened(mask: Floats) -> Floats:
    """A mask drawn in by a few pixels, so that a border's mixed colours stay out."""
    tightened: Floats = np.clip(2.0 * cv2.GaussianBlur(mask, (0, 0), 4.0) - 1.0, 0.0, 1.0)
    return tightened


def _oval(units: Floats, goal: Floats) -> Floats:
    """1 inside the outline of the face, 0 outside, soft over about a tenth of a face unit."""
    size = units.shape[0]
    step = units[0, 1, 0] - units[0, 0, 0]
    polygon = (goal[list(sources.OVAL)] - units[0, 0]) / step
    mask = np.zeros((size, size), np.float32)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1.0)
    blurred = cv2.GaussianBlur(mask, (0, 0), 0.045 / step)
    return smooth_step(blurred, 0.4, 1.0).astype(np.float32)


def _officer_share(units: Floats, look: Appearance, goal: Floats) -> Floats:
    """Share of the officer in each pixel of the face: `dissolve` except for eyes and mouth.

    Glasses and an open smile do not dissolve into anything decent: eyes are wholly one portrait's, the mouth
    is always the officer's, which is shut.
    """
    x, y = units[..., 0], units[..., 1]
    share: Floats = np.full(x.shape, look.dissolve)
    band = smooth_step(y, -0.36, -0.24) * (1.0 - smooth_step(y, 0.34, 0.50))
    share = share + band * ((1.0 if look.has_glasses else 0.0) - share)
    lips = goal[list(sources.LIPS_OUTER)]
    middle, half = lips.mean(0), 0.5 * np.ptp(lips, axis=0)
    distance = np.hypot((x - middle[0]) / (half[0] + 0.05), (y - middle[1]) / (half[1] + 0.04))
    mouth = 1.0 - smooth_step(distance, 0.95, 1.45)
    share = share + mouth * (1.0 - share)
    return share.astype(np.float32)


def _toned(
    lab: Floats, mask: Floats, shift: tuple[float, float, float], middle: float, contrast: float
) -> Floats:
    """Lab with the masked part shifted; lightness by a factor, so that shadows stay shadows."""
    lightness = lab[..., 0]
    changed = np.clip(middle + contrast * (lightness - middle), 0, None) * (middle + shift[0]) / middle
    # Dark and very light spots (pupils, highlights) keep their neutral colour.
    weight = mask * smooth_step(lightness, 5.0, 30.0)
    result = lab.copy()
    result[..., 0] += mask * (changed - lightness)
    result[..., 1] += weight * shift[1]
    result[..., 2] += weight * shift[2]
    return result


def _dressed(lab: Floats, clothes: Floats, cap: Floats | None, look: Appearance) -> Floats:
    """Lab with clothes in the person's colours."""
    result = lab.copy()
    if look.body == "spacesuit":
        faded = 0.35 + 0.65 * look.cloth_lab[0] / 30.0
        result[..., 1:] *= (1.0 - clothes * (1.0 - faded))[..., None]
        return result
    # What is dark is jacket or cap, what is light is the shirt.
    dark = 1.0 - smooth_step(lab[..., 0], 35.0, 60.0)
    cloth = clothes * dark
    if cap is not None:
        cloth = cloth + cap * dark * smooth_step(25.0 - np.hypot(lab[..., 1], lab[..., 2]), 0.0, 8.0)
    shirt = clothes * smooth_step(lab[..., 0], 60.0, 80.0)
    result += cloth[..., None] * np.array(look.cloth_lab) + shirt[..., None] * np.array(look.shirt_lab)
    return result


def _backdrop(units: Floats, look: Appearance) -> Floats:
    """A painted studio backdrop (C, C, 3) in Lab: soft blotches, lighter behind the head."""
    rng = np.random.default_rng(look.backdrop_seed)
    blotches = rng.normal(0, 1, (7, 7)).astype(np.float32)
    blotches = cv2.resize(blotches, units.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    glow = bell(np.hypot(units[..., 0], units[..., 1] - 0.2), 1.3)
    backdrop = np.empty((*units.shape[:2], 3), np.float32)
    backdrop[:] = look.backdrop_lab
    backdrop[..., 0] += 4.0 * blotches + 12.0 * (glow - 0.6)
    backdrop[..., 0] = np.clip(backdrop[..., 0], 5.0, 95.0)
    return backdrop
