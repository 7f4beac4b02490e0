"""The module `mediapipe` as DeepFace's backend of that name uses it, with BlazeFace of facevox in it.

That backend calls `mediapipe.solutions.face_detection`, which ended with mediapipe 0.10.21. Tests and
benchmarks that compare facevox with DeepFace need it.
"""

from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

from facevox.mesh.blazeface import BlazeFace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FaceDetection:
    """mediapipe's class of that name, as far as DeepFace uses it.

    Args:
        min_detection_confidence: Has no effect, as in mediapipe 0.10.21.
        model_selection: 0 for close faces, 1 for all distances.
    """

    def __init__(self, min_detection_confidence: float, model_selection: int) -> None:
        self._model = BlazeFace("full" if model_selection else "short")

    def process(self, image: "NDArray[np.uint8]") -> SimpleNamespace:
        """The faces, in shares of the picture."""
        height, width = image.shape[:2]
        detections = []
        for face in self._model.find(image):
            x, y, box_width, box_height = face.box
            box = SimpleNamespace(
                xmin=x / width, ymin=y / height, width=box_width / width, height=box_height / height
            )
            points = [SimpleNamespace(x=float(x) / width, y=float(y) / height) for x, y in face.keypoints]
            data = SimpleNamespace(relative_bounding_box=box, relative_keypoints=points)
            detections.append(SimpleNamespace(score=[face.score], location_data=data))
        return SimpleNamespace(detections=detections or None)


def fake_mediapipe() -> ModuleType:
    """A module to put into `sys.modules`, which has nothing but `FaceDetection`."""
    module = ModuleType("mediapipe")
    face_detection = SimpleNamespace(FaceDetection=FaceDetection)
    module.solutions = SimpleNamespace(face_detection=face_detection)  # type: ignore[attr-defined]
    return module
