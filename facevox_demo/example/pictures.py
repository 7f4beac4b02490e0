"""Frames of a speaking person: the mouth is opened, the face moved, the head turned, the light set.

All movement is a displacement that is smooth except at the gap between the lips: the mouth is opened on a
small piece of the canvas, everything else goes through one coarse grid and a single `cv2.remap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox_demo.example import sources
from facevox_demo.example.expressions import Expression, action_fields, make_expression
from facevox_demo.example.people import Person, random_generator
from facevox_demo.example.portraits import GRID, Portrait, draw_portrait, refine_grid
from facevox_demo.example.warps import CHIN_Y, Floats, bell, smooth_step

# Sizes of the mouth in face units, at opening 1.
GAP_UP, GAP_DOWN = 0.055, 0.19  # how far the lips part from the seam
JAW_DROP = 0.13  # how far the chin follows
SPREAD_WIDER, ROUND_NARROWER = 0.13, 0.30  # change of width at spread 1 and -1
TEETH_HEIGHT = 0.075


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Position of the head: shifts in face units, roll in degrees (clockwise), turn and nod about -1 to 1."""

    shift_x: float = 0.0
    shift_y: float = 0.0
    roll_deg: float = 0.0
    scale: float = 1.0
    turn: float = 0.0
    nod: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Light:
    """Illumination: gain, its slope (share from edge to edge), warmth, and sensor noise."""

    gain: float = 1.0
    slope_x: float = 0.0
    slope_y: float = 0.0
    warmth: float = 0.0
    noise: float = 1.0  # deviation in grey levels
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """Opening 0 to 1, and spread from -1 (round and small) to 1 (wide)."""

    opening: float = 0.0
    spread: float = 0.0


@dataclass
class _Seam:
    """The piece of the canvas around the mouth; all lengths in canvas pixels."""

    left: int
    top: int
    width: int
    height: int
    x: Floats = field(repr=False)  # (H, W) columns of the piece, from the middle of the mouth
    y: Floats = field(repr=False)  # (H, W) rows
    half_px: float = 0.0
    curve_x: Floats = field(default_factory=lambda: np.zeros(0))
    curve_y: Floats = field(default_factory=lambda: np.zeros(0))


class PictureMaker:
    """Makes the frames of one person; deterministic, no state but the person's.

    Args:
        person: Whom to show.
        size: Width and height of the frames in pixels.
        light: Illumination of all frames of this maker.
        portrait: The person's still picture if it is at hand already (it takes a tenth of a second).
        blush: Share of red in the cheeks, 0 to 1.
    """

    def __init__(
        self,
        person: Person,
        size: int = 256,
        light: Light | None = None,
        portrait: Portrait | None = None,
        blush: float = 0.0,
    ) -> None:
        self.person = person
        self.size = size
        self.portrait = portrait or draw_portrait(person, size)
        self._canvas = _blushed(self.portrait, blush) if blush > 0 else self.portrait.canvas
        self._canvas_px = self._canvas.shape[0]
        unit, centre = self.portrait.unit_px, self.portrait.centre
        nodes = np.arange(GRID + 1) * (self._canvas_px / GRID)
        self._nodes = np.stack(np.meshgrid((nodes - centre[0]) / unit, (nodes - centre[1]) / unit), axis=-1)
        self._fields = action_fields(
            self._nodes, (self.portrait.landmarks - centre) / unit, person.appearance.has_glasses
        )
        x, y = self._nodes[..., 0], self._nodes[..., 1]
        # The head moves as a whole, the shoulders a little, the backdrop not at all.
        follows = 1.0 - 0.85 * smooth_step(y, 1.15, 2.0)
        self._follows = follows * (1.0 - smooth_step(np.hypot(x, np.minimum(y + 0.2, 0) / 1.15), 1.15, 1.85))
        self._seam = _cut_seam(self.portrait)
        self._set_light(light or Light())

    def _set_light(self, light: Light) -> None:
        across = np.linspace(-0.5, 0.5, self.size, dtype=np.float32)
        gain = light.gain * (1.0 + light.slope_x * across[None, :] + light.slope_y * across[:, None])
        warm = np.array([1.0 + light.warmth, 1.0, 1.0 - light.warmth], np.float32)
        self._gain = (gain[..., None] * warm).astype(np.float32)
        rng = random_generator(self.person.seed, self.person.index, 3, light.seed)
        noise_px = self.size + 32  # frames take different cuts of one field
        noise = rng.normal(0.0, light.noise, (noise_px, noise_px, 1))
        colour = rng.normal(0.0, 0.4 * light.noise, (noise_px, noise_px, 3))
        self._noise = (noise + colour).astype(np.float32)
        self._noise_cuts = rng.integers(0, 33, (997, 2))  # repeats after 40 s at 25 frames a second

    def frame(
        self,
        mouth: Mouth = Mouth(),
        pose: Pose = Pose(),
        actions: Mapping[str, float] | None = None,
        number: int = 0,
    ) -> NDArray[np.uint8]:
        """One frame, (size, size, 3) uint8 RGB; `number` chooses the noise."""
        canvas = self._opened(mouth)
        unit, centre = self.portrait.unit_px, self.portrait.centre
        nodes = self._placed(pose)
        shift = np.zeros_like(nodes)
        for action, strength in {**(actions or {}), "turn": pose.turn, "nod": pose.nod}.items():
            if strength:
                shift += strength * self._fields[action]
        # Fields are those of the head in its neutral pose; within a few degrees the difference is invisible.
        coarse = ((nodes - shift) * unit + centre - 0.5).astype(np.float32)
        picture = cv2.remap(
            canvas, refine_grid(coarse, self.size), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        x, y = self._noise_cuts[number % len(self._noise_cuts)]
        lit = cv2.multiply(picture, self._gain, dtype=cv2.CV_32F)
        # convertScaleAbs takes the absolute value: what noise makes negative must be 0 before it.
        lit += self._noise[y : y + self.size, x : x + self.size]
        frame: NDArray[np.uint8] = cv2.convertScaleAbs(np.maximum(lit, 0.0, out=lit))
        return frame

    def _placed(self, pose: Pose) -> Floats:
        """Face units (in the neutral pose) that appear at each node when the head is in `pose`."""
        angle = np.deg2rad(pose.roll_deg)
        pivot = np.array([0.0, CHIN_Y + 0.5])
        back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / pose.scale
        moved = (self._nodes - pivot - (pose.shift_x, pose.shift_y)) @ back.T + pivot
        placed: Floats = self._nodes + self._follows[..., None] * (moved - self._nodes)
        return placed

    def _opened(self, mouth: Mouth) -> NDArray[np.uint8]:
        """The canvas with the mouth in the given shape (the canvas itself when it is shut)."""
        if mouth.opening < 0.01 and abs(mouth.spread) < 0.01:
            return self._canvas
        seam, unit = self._seam, self.portrait.unit_px
        spread = mouth.spread
        widening = SPREAD_WIDER * spread if spread > 0 else ROUND_NARROWER * spread
        x, y = seam.x, seam.y
        falloff = bell(x / unit, 0.45) * bell((y - seam.curve_y.mean()) / unit, 0.22)
        # From here on maps go backwards: for each pixel of the result, where its colour comes from.
        source_x = x / (1.0 + widening * falloff)
        along = source_x / seam.half_px
        shape = np.clip(1.0 - along**2, 0.0, None) ** 0.6
        gap_up, gap_down = GAP_UP * unit * mouth.opening * shape, GAP_DOWN * unit * mouth.opening * shape
        # Each column has its own seam; rows above it move up with the upper lip, rows below with jaw and lip.
        line = np.interp(along.ravel(), seam.curve_x, seam.curve_y).reshape(x.shape)
        upper, lower = line - gap_up, line + gap_down
        above, below = np.minimum(y - upper, 0.0), np.maximum(y - lower, 0.0)
        lift = gap_up * bell(above / unit, 0.10)
        jaw = JAW_DROP * unit * mouth.opening * bell(x / unit, 0.5)
        near = bell(below / unit, 0.10)
        neck = 1.0 - smooth_step(y / unit, *self._chin_fade)
        drop = (gap_down * near + jaw * (1.0 - near)) * neck
        source_y = np.where(y < 0.5 * (upper + lower), y + lift, y - drop)
        middle = seam.left + 0.5 * seam.width
        piece = cv2.remap(
            self._canvas,
            (source_x + middle).astype(np.float32),
            source_y.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        box = _inside_box(y, upper, lower, along)
        if box is not None:
            level = float(self.portrait.skin_rgb.mean())
            piece[box] = _with_inside(piece[box], y[box], upper[box], lower[box], along[box], unit, level)
        canvas = self._canvas.copy()
        canvas[seam.top : seam.top + seam.height, seam.left : seam.left + seam.width] = piece
        return canvas

    @property
    def _chin_fade(self) -> tuple[float, float]:
        """Rows (in face units from the upper edge of the canvas) over which the neck comes to rest."""
        chin = self.portrait.landmarks[152, 1] / self.portrait.unit_px
        return chin - 0.02, chin + 0.48


def render_portrait(
    person: Person,
    expression: str = "neutral",
    seed: int = 0,
    size: int = 256,
    portrait: Portrait | None = None,
) -> NDArray[np.uint8]:
    """A still picture of `person` with one of the five expressions, (size, size, 3) uint8 RGB.

    Args:
        person: From `people.make_person`.
        expression: One of `expressions.EXPRESSIONS`.
        seed: Another seed gives another pose, light and strength of the expression.
        size: Width and height in pixels.
        portrait: `portraits.draw_portrait(person, size)`, to make several pictures faster.
    """
    rng = random_generator(person.seed, person.index, 4, seed)
    expression_moves: Expression = make_expression(
        expression, float(rng.uniform(0.85, 1.25)), float(rng.choice((-1, 1)))
    )
    pose = Pose(
        shift_x=float(rng.uniform(-0.06, 0.06)),
        shift_y=float(rng.uniform(-0.04, 0.04)),
        roll_deg=expression_moves.roll_deg + float(rng.uniform(-3, 3)),
        scale=float(rng.uniform(0.96, 1.04)),
        turn=expression_moves.turn + float(rng.uniform(-0.3, 0.3)),
        nod=expression_moves.nod + float(rng.uniform(-0.2, 0.2)),
    )
    maker = PictureMaker(person, size, random_light(rng), portrait, expression_moves.blush)
    return maker.frame(
        Mouth(opening=expression_moves.opening, spread=expression_moves.spread),
        pose,
        expression_moves.actions,
    )


def random_light(rng: np.random.Generator) -> Light:
    """Light as it differs between two photographs of the same person."""
    return Light(
        gain=float(rng.uniform(0.88, 1.08)),
        slope_x=float(rng.uniform(-0.18, 0.18)),
        slope_y=float(rng.uniform(-0.12, 0.12)),
        warmth=float(rng.uniform(-0.02, 0.02)),
        noise=float(rng.uniform(0.8, 2.0)),
        seed=int(rng.integers(1 << 31)),
    )


def _cut_seam(portrait: Portrait) -> _Seam:
    """The piece of the canvas that a moving mouth changes, and the line on which the lips meet."""
    unit = portrait.unit_px
    upper = portrait.landmarks[list(sources.UPPER_SEAM)]
    lower = portrait.landmarks[list(sources.LOWER_SEAM)]
    curve = 0.5 * (upper + lower)
    middle_x = 0.5 * (curve[0, 0] + curve[-1, 0])
    half_px = 0.5 * (curve[-1, 0] - curve[0, 0])
    left = int(middle_x - 0.85 * unit)
    width = int(1.7 * unit)
    top = int(curve[:, 1].mean() - 0.35 * unit)
    bottom = min(int(portrait.landmarks[152, 1] + 0.55 * unit), portrait.canvas.shape[0])
    columns = np.arange(width) - 0.5 * width
    rows = np.arange(top, bottom, dtype=np.float64)
    x, y = np.meshgrid(columns, rows)
    curve_x = (curve[:, 0] - (left + 0.5 * width)) / half_px
    return _Seam(left, top, width, bottom - top, x, y, half_px, curve_x, curve[:, 1])


def _inside_box(y: Floats, upper: Floats, lower: Floats, along: Floats) -> tuple[slice, slice] | None:
    """The rows and columns that hold the gap between the lips; None where there is no gap."""
    is_inside = (y > upper - 1.0) & (y < lower + 1.0) & (np.abs(along) < 1.0)
    rows, columns = np.flatnonzero(is_inside.any(axis=1)), np.flatnonzero(is_inside.any(axis=0))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _with_inside(
    piece: NDArray[np.uint8],
    y: Floats,
    upper: Floats,
    lower: Floats,
    along: Floats,
    unit: float,
    skin_level: float,
) -> NDArray[np.uint8]:
    """The piece with the inside of the mouth between the lips: dark, upper teeth, tongue."""
    inside = np.clip(y - upper + 0.5, 0, 1) * np.clip(lower - y + 0.5, 0, 1) * (np.abs(along) < 1.0)
    gap = np.maximum(lower - upper, 1e-3)
    light = np.clip(skin_level / 170.0, 0.55, 1.1) * (1.0 - 0.45 * along**2)
    depth = (y - upper) / gap
    colour = np.empty_like(piece, dtype=np.float32)
    colour[:] = (46, 20, 20)
    tongue = smooth_step(depth, 0.55, 0.85) * smooth_step(gap / unit, 0.08, 0.2) * (np.abs(along) < 0.8)
    colour += (tongue * light)[..., None] * (80, 34, 34)
    height = np.minimum(TEETH_HEIGHT * unit, 0.42 * gap)
    teeth = (1.0 - smooth_step(y - upper, height - 1.5, height + 1.0)) * smooth_step(
        0.82 - np.abs(along), 0, 0.2
    )
    teeth = teeth * smooth_step(gap / unit, 0.02, 0.08)
    # Shade under the upper lip and towards the corners keeps the teeth from glowing.
    shade = (0.62 + 0.38 * smooth_step((y - upper) / np.maximum(height, 1.0), 0.0, 0.6)) * light
    colour += teeth[..., None] * (shade[..., None] * (205, 192, 175) - colour)
    mixed = piece + inside[..., None] * (colour - piece)
    pixels: NDArray[np.uint8] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return pixels


def _blushed(portrait: Portrait, share: float) -> NDArray[np.uint8]:
    """The canvas with reddened cheeks."""
    size = portrait.canvas.shape[0]
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    red = np.zeros((size, size))
    for number in (50, 280):
        cheek = portrait.landmarks[number] + (0.0, 0.06 * portrait.unit_px)
        red = np.maximum(red, bell(np.hypot(x - cheek[0], y - cheek[1]) / portrait.unit_px, 0.17))
    lab = cv2.cvtColor(portrait.canvas.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    lab[..., 0] -= 4.0 * share * red
    lab[..., 1] += 14.0 * share * red
    rgb: Floats = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    blushed: NDArray[np.uint8] = np.clip(rgb * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return blushed
