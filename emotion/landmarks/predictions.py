"""Expressions of pictures, folders and archives: the plan and the task of `predict.py`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emotion.data.aihub.collection import ARCHIVE_PATTERNS, Collection, add_file
from emotion.landmarks.network import load_model
from emotion.landmarks.reader import PictureReader
from facevox.batch import Item, Outcome, Task
from facevox.errors import UserError
from facevox.files import find_files
from facevox.mesh.face_landmarker import require_mediapipe
from facevox.mesh.kinds import FACE_LANDMARKER, describe_mesh
from facevox.suffixes import PICTURE_SUFFIXES, patterns

PROGRAM = "predict_landmarks"
TABLE = "predictions.csv"
PATTERNS = (*patterns(PICTURE_SUFFIXES), *ARCHIVE_PATTERNS)


@dataclass(frozen=True, kw_only=True)
class PredictItem(Item):
    """A picture, by its offset in an archive (below 0: a file itself); or the problem of an archive."""

    offset: int = -1
    problem: str = ""


def plan_predictions(inputs: Sequence[Path]) -> list[PredictItem]:
    """An item for each picture in files, folders and archives, and for each archive that cannot be read.

    Raises:
        UserError: No such file or folder, or no picture in any.
    """
    collection = Collection()
    for root in inputs:
        if root.is_dir():
            files = find_files(root, PATTERNS, what="--inputs")
        elif root.is_file():
            if root.suffix.lower() not in (*PICTURE_SUFFIXES, ".zip"):
                raise UserError(
                    f"--inputs: {root}: a picture ({', '.join(PICTURE_SUFFIXES)}), a folder or a ZIP"
                )
            files = [root]
        else:
            raise UserError(f"--inputs: no such file or folder: {root}")
        for path in files:
            add_file(collection, path, path.as_posix(), with_annotations=False)
    items = {
        picture.name: PredictItem(picture.name, picture.container, offset=picture.offset)
        for picture in collection.pictures
    }
    items |= {name: PredictItem(name, "", problem=reason) for name, reason in collection.problems}
    if not items:
        raise UserError(f"--inputs: no pictures in {', '.join(str(root) for root in inputs)}")
    return list(items.values())


class PredictTask(Task[PredictItem]):
    """The largest face of each picture and its expression.

    Args:
        model_file: Of `train.py`.
        mesh: The one that the model was trained on.
    """

    def __init__(self, model_file: Path, mesh: str) -> None:
        self._model_file, self._mesh = model_file, mesh
        self.detector = describe_mesh(mesh)

    def check(self) -> None:
        """Checks that the model's mesh can be run here.

        Raises:
            UserError: It needs mediapipe, which is not installed.
        """
        if self._mesh == FACE_LANDMARKER:
            require_mediapipe(f"the model {self._model_file}")

    def open(self, output_dir: Path) -> None:
        """Loads the model, and its mesh."""
        super().open(output_dir)
        torch.set_num_threads(1)  # the workers share the cores
        self._model = load_model(self._model_file)
        self._reader = PictureReader(self._mesh)

    def process(self, item: PredictItem) -> Outcome:
        """A row with the expression and its probabilities.

        Raises:
            NoFaceError: It shows no face.
            UserError: It cannot be read.
        """
        if item.problem:
            raise UserError(item.problem)
        face = self._reader.read(item.path, item.offset, item.name)
        sizes = np.array([[face.width, face.height]])
        blendshapes = None if face.blendshapes is None else face.blendshapes[None]
        shares = self._model.probabilities(face.points[None], sizes, blendshapes)[0]
        names = self._model.class_names
        row = {
            "expression": names[int(shares.argmax())],
            **{f"p_{name}": f"{share:.4f}" for name, share in zip(names, shares, strict=True)},
            "faces": face.num_faces,
        }
        return Outcome(rows=[row])

    def close(self) -> None:
        """Closes the mesh."""
        self._reader.close()


def columns_of(class_names: Sequence[str]) -> tuple[str, ...]:
    """The columns of `predictions.csv`, without status and reason."""
    return ("picture", "expression", *(f"p_{name}" for name in class_names), "faces")


def hash_file(path: Path) -> str:
    """Sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
