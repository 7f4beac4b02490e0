"""FaceMesh's network on one crop of a face: 478 points, and the probability that there is a face.

Source: I. Grishchenko et al., Attention Mesh: high-fidelity face mesh prediction in real-time,
arXiv:2006.10962, and the graph of mediapipe 0.10.21. `base` gives 468 points and features of the crop; a head
takes the features around the lips or an eye, turned upright, and gives finer points there.
"""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from facevox.mesh.litert import MODELS_DIR, LiteRtModel, model_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

CROP_PX = 192  # side of the crop
NUM_MESH_POINTS = 468  # without the irises
NUM_POINTS = 478
# Points around each eye, left and right as seen in the picture. The irises follow the mesh, five points each.
EYE_CONTOURS = np.array(
    [
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
    ]
)

Heads = Literal["all", "lips", "none"]
_HEADS: dict[Heads, tuple[str, ...]] = {
    "all": ("lips", "left_eye", "right_eye"),
    "lips": ("lips",),
    "none": (),
}

_MAP_PX = 48  # side of the map of features
_PX_PER_FEATURE = CROP_PX // _MAP_PX
_NUM_FEATURES = 32
_CORNERS = np.array([[0], [1], [_MAP_PX], [_MAP_PX + 1]])  # of four neighbours, from the first
_PATCH_PX = 16  # side of the part of the map that a head gets
_LARGEST_LOGIT = 80.0  # float32 ends at exp(88)


@dataclass(frozen=True)
class _Head:
    """A head and the settings of its patch, which is the box of its points, turned and enlarged.

    Attributes:
        points: Numbers of the mesh's points that it refines, in its order.
        turned_by: Two points whose line is level in the patch.
        scale: Side of the patch over that of the points' box.
    """

    model: LiteRtModel
    points: "NDArray[np.intp]"
    turned_by: tuple[int, int]
    scale: float


class MeshNetwork:
    """The network; neither thread-safe nor usable in a forked child.

    Args:
        heads: The heads that run. The points of the others are the coarse ones of the mesh, and without
            the eyes each point of an iris is the middle of its eye.
    """

    def __init__(self, heads: Heads = "all") -> None:
        file = MODELS_DIR / "face_mesh_heads.json"
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise model_error(file, error) from None
        self._base = LiteRtModel("face_mesh_base.tflite")
        self._heads = [
            _Head(
                model=LiteRtModel(f"face_mesh_{name}.tflite"),
                points=np.array(settings[name]["points"]),
                turned_by=tuple(settings[name]["turned_by"]),
                scale=settings[name]["scale"],
            )
            for name in _HEADS[heads]
        ]
        y, x = np.mgrid[:_PATCH_PX, :_PATCH_PX].reshape(2, -1) + 0.5
        self._patch = np.stack([x, y, np.ones_like(x)])  # (3, 256): middles of its pixels
        # Four corners of each sample of all patches. Kept: new memory would cost more than the samples.
        self._corners = np.empty((4, len(self._heads) * _PATCH_PX**2, _NUM_FEATURES), np.float32)

    def run(self, crop_rgb: "NDArray[np.uint8]") -> tuple["NDArray[np.float32]", float]:
        """Points (478, 3) in pixels of a (192, 192, 3) uint8 crop, and the probability of a face.

        z has the scale of x.
        """
        np.multiply(crop_rgb, np.float32(1 / 255), out=self._base.memory("picture")[0])
        self._base.run()
        logit = float(self._base.memory("flag").item())
        points = np.empty((NUM_POINTS, 3), np.float32)
        points[:NUM_MESH_POINTS] = self._base.memory("points").reshape(-1, 3)
        self._refine(points)
        return points, 1 / (1 + math.exp(-min(max(logit, -_LARGEST_LOGIT), _LARGEST_LOGIT)))

    def _refine(self, points: "NDArray[np.float32]") -> None:
        """Replaces x and y of the points that a head gives, and sets the irises."""
        irises = []
        if self._heads:
            # All patches come from the coarse points: no head sees what another one made of them.
            matrices = np.stack([_patch_matrix(points, head) for head in self._heads])
            patches = self._sampled(matrices)
            for index, head in enumerate(self._heads):
                refined = head.model(patches[index : index + 1])
                # A head answers in pixels of the crop, turned and scaled like the patch.
                turn, shift = matrices[index, :, :2].T, matrices[index, :, 2] * _PX_PER_FEATURE
                points[head.points, :2] = refined["points"].reshape(-1, 2) @ turn + shift
                if "iris" in refined:
                    irises.append(refined["iris"].reshape(-1, 2) @ turn + shift)
        iris_points = points[NUM_MESH_POINTS:].reshape(len(EYE_CONTOURS), -1, 3)
        iris_points[:] = points.take(EYE_CONTOURS, axis=0).mean(axis=1, keepdims=True)
        if irises:
            iris_points[..., :2] = irises

    def _sampled(self, matrices: "NDArray[np.float64]") -> "NDArray[np.float32]":
        """Patches (N, 16, 16, 32) of the map of features: bilinear, and 0 outside of it.

        Args:
            matrices: (N, 2, 3) from pixels of the patch to those of the map.
        """
        features = self._base.memory("features").reshape(-1, _NUM_FEATURES)
        xy = (matrices @ self._patch).transpose(1, 0, 2).reshape(2, -1) - 0.5  # 0 is a feature's middle
        low = xy.astype(np.intp)
        part = (xy - low).astype(np.float32)
        sides = np.stack([1 - part, part])  # weights of (lower and upper, x and y) corners
        weights = (sides[:, None, 1] * sides[None, :, 0]).reshape(4, -1)
        if xy.min() < 0 or xy.max() > _MAP_PX - 1:
            weights *= ((xy >= 0) & (xy <= _MAP_PX - 1)).all(axis=0)
        # On the last row or column the upper corners have no weight, so that they may be any feature.
        features.take(low[1] * _MAP_PX + low[0] + _CORNERS, axis=0, out=self._corners, mode="clip")
        samples: NDArray[np.float32] = np.einsum("kn,knc->nc", weights, self._corners)
        return samples.reshape(-1, _PATCH_PX, _PATCH_PX, _NUM_FEATURES)


def _patch_matrix(points: "NDArray[np.float32]", head: _Head) -> "NDArray[np.float64]":
    """(2, 3) from pixels of a head's patch to those of the map of features."""
    first, last = points[head.turned_by[0]].tolist(), points[head.turned_by[1]].tolist()
    angle = math.atan2(last[1] - first[1], last[0] - first[0])
    cos, sin = math.cos(angle), math.sin(angle)
    upright = np.array([[cos, sin, 0], [-sin, cos, 0]]) @ points.take(head.points, axis=0).T
    (left, top), (right, bottom) = upright.min(axis=1).tolist(), upright.max(axis=1).tolist()
    factor = head.scale / (_PATCH_PX * _PX_PER_FEATURE)
    width, height = (right - left) * factor, (bottom - top) * factor
    u = (left + right) / 2 / _PX_PER_FEATURE - width * _PATCH_PX / 2
    v = (top + bottom) / 2 / _PX_PER_FEATURE - height * _PATCH_PX / 2
    return np.array(
        [[cos * width, -sin * height, cos * u - sin * v], [sin * width, cos * height, sin * u + cos * v]]
    )
