"""The newer mesh of MediaPipe, of 256 pixels and with blendshapes, run by the package mediapipe.

Slower than `facevox.mesh.face_mesh`, and its points are no better; its blendshapes, 52 shares of movements
such as a smile or a closed eye, are the better input of a classifier that has few pictures to learn from
(docs/models.md). mediapipe is an extra.

Source: model card "MediaPipe Face Landmarker", and I. Grishchenko et al., Blendshapes GHUM, arXiv:2309.05782.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError
from facevox.mesh.litert import MODELS_DIR, model_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_BLENDSHAPES = 52
EXTRA = "mesh256"
_MODEL = "face_landmarker.task"
# With the border it is twice as much. From 32,767 on OpenCV, inside of mediapipe, ends the process.
_LONGEST_SIDE_PX = 8000
MIN_CONFIDENCE = 0.3  # of its detector: from 0.5 on it misses a face that fills a portrait


@dataclass(frozen=True)
class LandmarkerFace:
    """A face.

    Attributes:
        points: (478, 3) float32; x and y in pixels of the picture, z in the scale of x.
        blendshapes: (52,) float32, 0 to 1, in MediaPipe's order.
    """

    points: "NDArray[np.float32]"
    blendshapes: "NDArray[np.float32]"


class FaceLandmarker:
    """Finds faces with the newer mesh in single pictures; use it as a context manager or call `close`.

    Neither thread-safe nor usable in a forked child.

    Args:
        max_faces: Most faces that are searched for in a picture.

    Raises:
        UserError: mediapipe is not installed, or the model's file is damaged.
    """

    def __init__(self, max_faces: int = 1) -> None:
        require_mediapipe("FaceLandmarker")
        self._mediapipe = _import_mediapipe()
        tasks: Any = self._mediapipe.tasks
        try:
            self._model: Any = tasks.vision.FaceLandmarker.create_from_options(
                tasks.vision.FaceLandmarkerOptions(
                    base_options=tasks.BaseOptions(model_asset_buffer=(MODELS_DIR / _MODEL).read_bytes()),
                    num_faces=max_faces,
                    min_face_detection_confidence=MIN_CONFIDENCE,
                    output_face_blendshapes=True,
                )
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise model_error(MODELS_DIR / _MODEL, error) from None

    def find(self, image_rgb: "NDArray[np.uint8]", with_border: bool = False) -> list[LandmarkerFace]:
        """The faces of an (H, W, 3) uint8 RGB picture.

        Args:
            image_rgb: The picture.
            with_border: Where it finds none, it looks at the picture in a black border: faces that fill the
                picture or are cut by its edge are found then.

        Raises:
            ValueError: Not such a picture, or it is closed.
        """
        if self._model is None:
            raise ValueError("FaceLandmarker is closed")
        if image_rgb.dtype != np.uint8 or image_rgb.shape[2:] != (3,):
            raise ValueError(f"picture is {image_rgb.dtype} {image_rgb.shape}; expected uint8 (H, W, 3)")
        if not image_rgb.size:
            return []
        import cv2

        longest_px = max(image_rgb.shape[:2])
        if longest_px > _LONGEST_SIDE_PX:
            shrink = longest_px / _LONGEST_SIDE_PX
            size = tuple(max(round(side / shrink), 1) for side in image_rgb.shape[1::-1])
            small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
            scale = np.array([image_rgb.shape[1] / size[0], image_rgb.shape[0] / size[1], shrink], np.float32)
            return [
                LandmarkerFace(face.points * scale, face.blendshapes)
                for face in self.find(small, with_border)
            ]
        faces = self._find(image_rgb)
        if faces or not with_border:
            return faces
        height, width = image_rgb.shape[:2]
        rim_x, rim_y = width // 2, height // 2
        bordered = cv2.copyMakeBorder(image_rgb, rim_y, rim_y, rim_x, rim_x, cv2.BORDER_CONSTANT)
        shift = np.array([rim_x, rim_y, 0], np.float32)
        return [LandmarkerFace(face.points - shift, face.blendshapes) for face in self._find(bordered)]

    def _find(self, image_rgb: "NDArray[np.uint8]") -> list[LandmarkerFace]:
        height, width = image_rgb.shape[:2]
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image_rgb)
        )
        answer = self._model.detect(image)
        scale = np.array([width, height, width], np.float32)
        return [
            LandmarkerFace(
                np.array([(p.x, p.y, p.z) for p in points], np.float32) * scale,
                np.array([shape.score for shape in shapes], np.float32),
            )
            for points, shapes in zip(answer.face_landmarks, answer.face_blendshapes, strict=True)
        ]

    def close(self) -> None:
        """Releases the networks; calling it twice is safe."""
        model, self._model = self._model, None
        if model is not None:
            model.close()

    def __enter__(self) -> "FaceLandmarker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_mediapipe(user: str, alternative: str = "") -> None:
    """Checks that mediapipe is installed, without importing it.

    Args:
        user: What needs it, for the message.
        alternative: For the message: what works without it.

    Raises:
        UserError: It is not.
    """
    if importlib.util.find_spec("mediapipe") is None:
        raise UserError(
            f"{user} needs mediapipe, not installed here; run: uv pip install -e '.[{EXTRA}]' in the "
            f"repository{alternative}"
        )


def _import_mediapipe() -> ModuleType:
    """The package, without TensorFlow: 2 s of processor time instead of 10.

    Where TensorFlow is installed mediapipe imports it for its own documentation. A process that has imported
    it already keeps it.
    """
    if "mediapipe" in sys.modules or "tensorflow" in sys.modules:
        return importlib.import_module("mediapipe")
    # None makes "import tensorflow" raise ImportError; the stub of sys.modules does not know of it.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("mediapipe")
    finally:
        del sys.modules["tensorflow"]
