"""One picture to the landmarks of its face: out of an archive, decoded no larger than the mesh needs.

FaceMesh searches a small copy of the picture for a face, then takes the face alone, as 192 x 192 pixels of
which it fills about two thirds. More pixels than that are decoded in vain: a twelve-megapixel JPEG is decoded
at a quarter. Where the face turns out too small, the picture is decoded again at the size that it needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.data.aihub.archives import Archive
from emotion.data.aihub.collection import read_picture
from emotion.data.boxes import SEARCHED_FACES, Box, annotated_box, choose_face, clean_box
from emotion.data.crops import face_box
from emotion.data.pictures import decode_reduced, reduction_for
from facevox.errors import NoFaceError
from facevox.mesh.face_landmarker import FaceLandmarker
from facevox.mesh.face_mesh import FaceMesh
from facevox.mesh.kinds import FACE_LANDMARKER, FACE_MESH
from facevox.workers import reuse_large_blocks

Edges = Sequence[float]  # left, top, right, bottom of a box as an annotator drew it
# Decoding smaller may move landmarks by this, as the median over the points of a face, in distances between
# the eyes. Measured on 12-megapixel pictures: 0.010 to 0.012 typically, 0.021 at worst; writing the same
# picture as a JPEG again, at another quality, moves them by 0.009 typically and 0.020 at worst.
TOLERANCE = 0.025
# Longer side of the box around a face's landmarks, in the decoded picture; from here on TOLERANCE is met.
FACE_PX = 192
# Of the decoded picture: the detector loses nothing, and a face of a fifth of it has FACE_PX at once.
LEAST_LONGEST_PX = 1000


@dataclass(frozen=True)
class FaceLandmarks:
    """The face of one picture.

    Attributes:
        points: (478, 3) float32 in MediaPipe's units: x by the width and y by the height of the whole
            picture, z by the width (smaller is nearer).
        width, height: Of the whole upright picture, in pixels.
        reduction: Factor by which it was decoded smaller.
        num_faces: Number of faces found in it.
        blendshapes: (52,) float32, 0 to 1; None for FaceMesh, which has none.
    """

    points: NDArray[np.float32]
    width: int
    height: int
    reduction: int
    num_faces: int
    blendshapes: NDArray[np.float32] | None = None


class _Face(NamedTuple):
    points: NDArray[np.float32]  # (478, 3) in pixels of the decoded picture
    blendshapes: NDArray[np.float32] | None


class PictureReader:
    """Reads pictures one after the other, with one mesh and one open archive; for one process alone.

    Use it as a context manager or call `close`.

    Args:
        mesh: One of `facevox.mesh.kinds.MESHES`.
        is_reduced: Decode no larger than needed; False decodes everything whole (slower, for comparisons).
    """

    def __init__(self, mesh: str = FACE_MESH, is_reduced: bool = True) -> None:
        cv2.setNumThreads(1)  # the workers share the cores
        reuse_large_blocks()
        self._is_reduced = is_reduced
        self._archive: Archive | None = None
        self._mesh: FaceMesh | FaceLandmarker = (
            FaceLandmarker(SEARCHED_FACES)
            if mesh == FACE_LANDMARKER
            else FaceMesh(static=True, max_faces=SEARCHED_FACES)
        )

    def read(self, container: str, offset: int, name: str, edges: Sequence[Edges] = ()) -> FaceLandmarks:
        """The landmarks of the face that the annotators marked; of the largest where they marked none.

        Args:
            container: The archive, or a picture file.
            offset: Of the archive's member; -1 for a picture file.
            name: For messages.
            edges: The annotators' boxes, in pixels of the whole upright picture.

        Raises:
            NoFaceError: There is none.
            UserError: The picture cannot be read.
        """
        data = read_picture(container, offset, self._opened(container) if offset >= 0 else None)
        face = self.find(data, name, edges)
        if face is None:
            raise NoFaceError("no face where the annotators marked one" if edges else "no face found")
        return face

    def find(self, data: bytes, name: str, edges: Sequence[Edges] = ()) -> FaceLandmarks | None:
        """The same for the bytes of a picture; None where there is no such face."""
        expected_px = float("inf")  # side of the face in the whole picture; inf before the first search
        most_reduced = 0  # largest reduction of this round; 0: as the size of the picture allows
        while True:

            def choose(
                width: int, height: int, face_px: float = expected_px, most: int = most_reduced
            ) -> int:
                annotated = annotated_box(edges, width, height)
                if annotated is not None:
                    face_px = min(face_px, annotated.width, annotated.height)
                reduction = reduction_for(face_px, FACE_PX, max(width, height), LEAST_LONGEST_PX)
                return min(reduction, most) if most else reduction if self._is_reduced else 1

            image, (width, height) = decode_reduced(data, name, choose)
            reduction = round(width / image.shape[1])
            annotated = annotated_box(edges, width, height)
            faces, chosen = self._faces(image, annotated.scaled(1 / reduction) if annotated else None)
            if reduction == 1 or (chosen is not None and _side(faces[chosen].points) >= FACE_PX):
                break
            # Too small a face at this size, or none: once more, at the size it needs or whole.
            expected_px = _side(faces[chosen].points) * reduction if chosen is not None else 0.0
            most_reduced = reduction // 2
        if chosen is None:
            return None
        scale = np.array([image.shape[1], image.shape[0], image.shape[1]], np.float32)
        face = faces[chosen]
        return FaceLandmarks(face.points / scale, width, height, reduction, len(faces), face.blendshapes)

    def _faces(self, image: NDArray[np.uint8], annotated: Box | None) -> tuple[list[_Face], int | None]:
        """All faces in pixels of `image`, and the index of the one that the annotators marked."""
        # Only the last search has the border: the piece around the box is surer than the border.
        faces = self._search(image, with_border=annotated is None)
        chosen = _choose(faces, annotated)
        if chosen is not None or annotated is None:
            return faces, chosen
        # Too small for the detector: it gets the piece around the annotators' box.
        height, width = image.shape[:2]
        (x, y), side_x, side_y = annotated.centre, annotated.width, annotated.height
        piece = clean_box((x - side_x, y - side_y, x + side_x, y + side_y), width, height)
        if piece is None:
            return faces, None
        left, top, right, bottom = (int(value) for value in piece)
        shift = np.array([left, top, 0], np.float32)
        moved = self._search(image[top : bottom + 1, left : right + 1], with_border=True)
        faces = faces + [_Face(face.points + shift, face.blendshapes) for face in moved]
        return faces, _choose(faces, annotated)

    def _search(self, image: NDArray[np.uint8], *, with_border: bool) -> list[_Face]:
        if isinstance(self._mesh, FaceMesh):
            return [_Face(points, None) for points in self._mesh.find(image, with_border)]
        return [_Face(face.points, face.blendshapes) for face in self._mesh.find(image, with_border)]

    def _opened(self, container: str) -> Archive:
        """The archive, kept open for the next picture."""
        if self._archive is None or str(self._archive.path) != container:
            if self._archive is not None:
                self._archive.close()
                self._archive = None
            self._archive = Archive(Path(container))
        return self._archive

    def close(self) -> None:
        """Closes the mesh and the archive."""
        self._mesh.close()
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def __enter__(self) -> "PictureReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _choose(faces: Sequence[_Face], annotated: Box | None) -> int | None:
    boxes = [face_box(face.points) for face in faces]
    face = choose_face(boxes, annotated)
    return None if face is None else boxes.index(face.box)


def _side(points: NDArray[np.float32]) -> float:
    box = face_box(points)
    return max(box.width, box.height)
