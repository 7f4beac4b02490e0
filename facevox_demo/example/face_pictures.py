"""Aligned faces of example people, which the demo's embedder is trained on: one .npy a person.

Apart from `facevox_demo.embedder`, so that the worker processes that render them do not load torch.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.batch import Outcome, Task
from facevox.errors import UserError
from facevox.faces import align_five_points
from facevox.files import replacing
from facevox_demo.example.expressions import EXPRESSIONS
from facevox_demo.example.people import PersonItem, make_person
from facevox_demo.example.pictures import render_portrait
from facevox_demo.example.portraits import draw_portrait
from facevox_demo.options import DemoEmbedderConfig
from lc_pytorch.faces.crops import cut_face, widen
from lc_pytorch.faces.detectors import Detector, make_detector

SIZE_PX = 112  # as face-embedding models have it


class FacePictures(Task[PersonItem]):
    """Renders the pictures of an example person and cuts the aligned faces out: one .npy a person."""

    def __init__(self, config: DemoEmbedderConfig) -> None:
        self.config = config

    def open(self, output_dir: Path) -> None:
        """Opens the detector in the process that uses it."""
        super().open(output_dir)
        cv2.setNumThreads(1)
        self._detector: Detector = make_detector("mediapipe")

    def process(self, item: PersonItem) -> Outcome:
        """Writes (pictures, 112, 112, 3) uint8 RGB; pictures in which no face is found are left out."""
        person = make_person(self.config.seed, item.index)
        portrait = draw_portrait(person, 256)
        names = list(EXPRESSIONS)
        crops = []
        for number in range(self.config.pictures_per_person):
            picture = render_portrait(person, names[number % len(names)], number, 256, portrait)
            crops += self._aligned_faces(picture)
        if not crops:
            raise UserError("no face found in any of its pictures")
        target = f"faces/{item.name}.npy"
        with replacing(self.output_dir / target, sync=False) as file:
            np.save(file, np.stack(crops))
        return Outcome(rows=[{"pictures": len(crops)}], outputs=[target])

    def _aligned_faces(self, picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Faces as grouping will feed them to the model: cropped as extraction crops them, then aligned."""
        image = picture if self._detector.colour == "rgb" else np.ascontiguousarray(picture[..., ::-1])
        aligned = []
        for candidate in self._detector.find(image):
            points, _ = self._detector.landmarks(image, candidate)
            eyes = (tuple(points[0].tolist()), tuple(points[1].tolist()))
            box = widen(candidate.box, (picture.shape[1], picture.shape[0]), True, 0)
            crop = cut_face(picture, box, eyes, align=True)
            if crop is not None:
                aligned.append(align_five_points(crop.image, crop.to_crop(points), SIZE_PX))
        return aligned

    def close(self) -> None:
        """Closes the detector."""
        self._detector.close()


def picture_items(config: DemoEmbedderConfig) -> list[PersonItem]:
    """An item for each person, the held-out ones last."""
    total = config.num_people + config.num_held_out
    return [PersonItem(f"person-{index:04d}", "", index=index) for index in range(total)]


def load_pictures(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All aligned faces below `folder` as (N, 112, 112, 3) uint8, and whose they are as (N,)."""
    files = sorted((folder / "faces").glob("*.npy"))
    arrays = [np.load(file, allow_pickle=False) for file in files]
    labels = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    return np.concatenate(arrays), labels
