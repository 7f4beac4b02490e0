"""The two public-domain portraits inside installed packages, with landmarks and masks.

Both are photographs by NASA and the US Navy and free to use: scikit-image's `astronaut.png` (in the wheel, no
download) and matplotlib's `grace_hopper.jpg`. FaceMesh gives their landmarks. The outlines of the two people
are in `masks/`: shares of the person in 65535ths, by the selfie segmentation of mediapipe 0.10.21 (general
model). The borders of hair, cap and clothes are drawn by hand, in pixels of exactly those files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError
from facevox.mesh.face_mesh import FaceMesh
from facevox_demo.example.warps import Floats

MASK_DIR = Path(__file__).parent / "masks"
MASKS = {"astronaut.png": "astronaut.png", "grace_hopper.jpg": "officer.png"}
LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners of the eyes among FaceMesh's 478 points
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
UPPER_SEAM = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_SEAM = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
EYES = (*(33, 160, 158, 133, 153, 144), *(362, 385, 387, 263, 373, 380))
NOSE = (168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 48, 278, 64, 294)
CHEEKS = (50, 280, 205, 425, 187, 411, 117, 346, 151, 9, 108, 337, 199, 200, 18)


@dataclass(frozen=True)
class Outline:
    """Hand-drawn borders in pixels of one portrait."""

    top: tuple[tuple[int, int], ...]  # hair or cap
    neckline: tuple[tuple[int, int], ...]  # from the left shoulder over the neck to the right one


ASTRONAUT = Outline(
    top=(
        *((140, 60), (190, 10), (235, 6), (275, 15), (312, 60), (312, 100), (296, 122), (272, 131)),
        *((269, 124), (267, 108), (262, 91), (248, 85), (232, 83), (215, 81), (198, 80), (188, 81)),
        *((185, 98), (184, 112), (182, 121), (176, 122), (160, 112), (140, 95)),
    ),
    # The right end climbs along jaw and neck: the bright wall behind them passes for a person.
    neckline=(
        *((100, 130), (165, 132), (181, 143), (185, 160), (187, 178), (200, 187), (235, 190), (252, 186)),
        *((256, 170), (262, 153), (267, 141), (275, 141), (350, 130)),
    ),
)
OFFICER = Outline(
    top=(
        *((140, 195), (140, 100), (200, 10), (320, 10), (385, 90), (385, 175), (364, 168), (347, 150)),
        *((312, 138), (260, 133), (210, 139), (185, 149), (168, 160), (158, 190)),
    ),
    neckline=(
        *((80, 340), (190, 318), (200, 318), (203, 350), (225, 385), (247, 405), (285, 405)),
        *((310, 370), (325, 340), (328, 314), (340, 312), (520, 380)),
    ),
)


@dataclass(frozen=True)
class Source:
    """One portrait.

    Attributes:
        lab: (H, W, 3) float32 CIE Lab, skin shifted to `SKIN_LAB` in the mean.
        masks: (H, W, 4) float32 in [0, 1]: person, top (hair or cap), clothes, skin; top and clothes reach
            beyond the outline of the person.
        landmarks: (478, 2) float64 in face units (see `warps`).
        to_pixels: (2, 3) matrix from face units to pixels of the portrait.
    """

    lab: Floats
    masks: Floats
    landmarks: Floats
    to_pixels: Floats

    def pixels(self, points: Floats) -> Floats:
        """Pixels (..., 2) of the portrait at `points` (..., 2) in face units of this portrait."""
        pixels: Floats = points @ self.to_pixels[:, :2].T + self.to_pixels[:, 2]
        return pixels


SKIN_LAB = (68.0, 16.0, 17.0)  # both portraits are shifted here; a person's own skin is a shift from it
PERSON, TOP, CLOTHES, SKIN = range(4)


@lru_cache(maxsize=1)
def load_sources() -> tuple[Source, Source]:
    """The astronaut and the officer, once per process.

    Raises:
        UserError: A picture is not inside the installed package.
    """
    # Two numbers each: contrast of lightness against the original (the officer was lit by a hard flash).
    return _load(_astronaut_file(), ASTRONAUT, 1.0), _load(_officer_file(), OFFICER, 0.8)


def check_files() -> None:
    """Checks that both portraits are in their packages.

    Raises:
        UserError: One does not, or its package is not installed.
    """
    for find, package in ((_astronaut_file, "scikit-image"), (_officer_file, "matplotlib")):
        try:
            path = find()
        except ImportError as error:
            raise UserError(f"{package}: not installed ({error}); install it with: make install") from error
        if not path.is_file():
            raise UserError(f"{path}: not there; install {package} again with: make install")


def template_landmarks() -> Floats:
    """(478, 2) of the average face in face units; the mouth is the officer's, which is shut."""
    astronaut, officer = load_sources()
    average: Floats = 0.5 * (astronaut.landmarks + officer.landmarks)
    # Shares fall off smoothly around the lips, so that the cheeks stay an average.
    centre = officer.landmarks[list(LIPS_OUTER)].mean(0)
    distance = np.hypot(*((average - centre) / (0.55, 0.30)).T)
    share = np.clip(2.0 - distance, 0.0, 1.0)[:, None]
    template: Floats = average + share * (officer.landmarks - average)
    return template


# Imported where they are needed, so that `check_files` can say which of them is not installed.
def _astronaut_file() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / "astronaut.png"


def _officer_file() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def _load(path: Path, outline: Outline, contrast: float) -> Source:
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise UserError(f"{path}: not there or not readable; install the package again (make install)")
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    points, person = _detect(rgb, path)
    left, right = points[LEFT_EYE], points[RIGHT_EYE]
    across = right - left
    # The rotation, scale and shift that put the outer corners of the eyes at x = -0.5 and 0.5, y = 0.
    to_pixels = np.array(
        [[across[0], -across[1], (left[0] + right[0]) / 2], [across[1], across[0], (left[1] + right[1]) / 2]]
    )
    landmarks = (points - to_pixels[:, 2]) @ np.linalg.inv(to_pixels[:, :2]).T
    masks = _masks(rgb.shape[:2], person, outline)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    oval = _polygon(rgb.shape[:2], points[list(OVAL)], 0.0)
    # Only what is surely skin, and the median: shadows and highlights must not shift the colour.
    core = (oval > 0.5) & (masks[..., SKIN] > 0.9)
    mean = np.median(lab[core], axis=0)
    skin = masks[..., SKIN, None]
    matched = (lab - mean) * (contrast, 1.0, 1.0) + SKIN_LAB
    return Source((lab + skin * (matched - lab)).astype(np.float32), masks, landmarks, to_pixels)


def _detect(rgb: NDArray[np.uint8], path: Path) -> tuple[Floats, Floats]:
    """Landmarks (478, 2) in pixels and the person mask (H, W) of a portrait."""
    with FaceMesh() as mesh:
        faces = mesh.find(rgb)
    if not faces:
        raise UserError(f"{path}: FaceMesh finds no face in it; the package's picture has changed")
    mask = cv2.imread(str(MASK_DIR / MASKS[path.name]), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.shape != rgb.shape[:2]:
        raise UserError(f"{path}: {rgb.shape[1]} x {rgb.shape[0]} pixels; the package's picture has changed")
    return faces[0][:, :2].astype(np.float64), mask.astype(np.float32) / 65535.0


def _masks(shape: tuple[int, int], person: Floats, outline: Outline) -> Floats:
    height, width = shape
    # The network's border is soft and a little wide: tightened, or the old background shines through.
    person = np.clip((cv2.GaussianBlur(person.astype(np.float32), (0, 0), 1.0) - 0.62) / 0.33, 0.0, 1.0)
    top = _polygon(shape, np.array(outline.top), 1.5)
    below = np.array([*outline.neckline, (width + 400, outline.neckline[-1][1]), (width + 400, height + 400)])
    below = np.vstack([below, [(-400, height + 400), (-400, outline.neckline[0][1])]])
    clothes = _polygon(shape, below, 1.0)
    skin = person * (1.0 - top) * (1.0 - clothes)
    masks: Floats = np.stack([person, top, clothes, skin], axis=-1).astype(np.float32)
    return masks


def _polygon(shape: tuple[int, int], points: Floats, feather_px: float) -> Floats:
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(mask, (0, 0), feather_px) if feather_px > 0 else mask
