"""FaceMesh: the 478 landmarks of faces, in pictures or followed through a video."""

from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from facevox.mesh.blazeface import BlazeFace
from facevox.mesh.network import Heads, MeshNetwork
from facevox.mesh.region import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CONFIDENCE = 0.5  # of the face detector, and of a face's points
_MOST_OVERLAP = 0.5  # from which two regions are of one face


class FaceMesh:
    """Finds the 478 landmarks of faces; use it as a context manager or call `close`.

    The points are those of mediapipe 0.10.21, whose network and graph
    (`mediapipe/modules/face_landmark/face_landmark_front_cpu.binarypb`) this is. Not thread-safe and not
    usable in a forked child: one per thread, made after the process starts.

    Args:
        static: True treats each picture by itself; False follows the faces of a video and is faster: the
            detector runs only while fewer than `max_faces` are followed.
        max_faces: Most faces that are searched for in a picture.
        min_confidence: Of the detector and of a face's points, 0 to 1.
        heads: "all"; "lips" or "none" take less time: points of the eyes, or of eyes and lips, are then
            less exact, and the irises are the middles of their eyes.
    """

    def __init__(
        self,
        static: bool = True,
        max_faces: int = 1,
        min_confidence: float = MIN_CONFIDENCE,
        heads: Heads = "all",
    ) -> None:
        self._static, self._max_faces, self._min_confidence = static, max_faces, min_confidence
        self._detector: BlazeFace | None = BlazeFace("short", min_confidence)
        self._network: MeshNetwork | None = MeshNetwork(heads)
        self._followed: list[Region] = []

    def find(self, image_rgb: "NDArray[np.uint8]", with_border: bool = False) -> "list[NDArray[np.float32]]":
        """The faces of an (H, W, 3) uint8 RGB picture, each as (478, 3) float32.

        x and y are pixels from the top left corner; z (depth, smaller is nearer) has the scale of x. Newly
        detected faces come first, the surest first, then the followed ones.

        Args:
            image_rgb: The picture.
            with_border: Where the detector finds nothing, it looks at the picture in a black border: faces
                that fill the picture or are cut by its edge are found then.

        Raises:
            ValueError: Not such a picture, or FaceMesh is closed.
        """
        if self._detector is None or self._network is None:
            raise ValueError("FaceMesh is closed")
        if image_rgb.dtype != np.uint8 or image_rgb.shape[2:] != (3,):
            raise ValueError(f"picture is {image_rgb.dtype} {image_rgb.shape}; expected uint8 (H, W, 3)")
        image_rgb = np.ascontiguousarray(image_rgb)  # once: OpenCV would copy it for each face
        regions = self._followed
        if len(regions) < self._max_faces:
            detections = self._detector.find(image_rgb)
            if with_border and not detections and not regions:
                height, width = image_rgb.shape[:2]
                detections = self._detector.find(image_rgb, border=(width // 2, height // 2))
            detected = map(Region.of_detection, detections[: self._max_faces])
            regions = _distinct([*detected, *regions], self._max_faces)
        faces, self._followed = [], []
        for region in regions:
            crop = region.crop(image_rgb)
            if crop is None:
                continue
            points, confidence = self._network.run(crop)
            if confidence > self._min_confidence:
                face = region.to_picture(points)
                faces.append(face)
                if not self._static:
                    self._followed.append(Region.of_landmarks(face))
        return faces

    def close(self) -> None:
        """Releases the networks; calling it twice is safe."""
        self._detector = self._network = None

    def __enter__(self) -> "FaceMesh":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _distinct(regions: list[Region], most: int) -> list[Region]:
    """The regions in their order; of those that overlap, the last one, and the last `most` of all.

    The followed ones come last: where they are is better known than where a detector saw a face.
    """
    distinct: list[Region] = []
    for region in regions:
        distinct = [other for other in distinct if region.overlap(other) <= _MOST_OVERLAP]
        distinct.append(region)
    return distinct[-most:]
