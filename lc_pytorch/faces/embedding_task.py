"""The batch step of deduplication: each face is located, rated and embedded once, and stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.batch import Item, Outcome, Task
from facevox.errors import one_line
from facevox.faces import align_five_points
from facevox.files import decode_image, read_image_bytes
from facevox.limits import HEAVY_SPARE_BYTES
from facevox.signs import report_progress
from facevox.workers import raise_if_disk_full
from lc_pytorch.faces.crops import cut_face
from lc_pytorch.faces.embedders import Embedder, FaceModel
from lc_pytorch.faces.embedding_store import FACTS, VectorStore
from lc_pytorch.faces.face_locator import FaceLocator, LocatedFace
from lc_pytorch.faces.face_table import ExtractedFace
from lc_pytorch.faces.onnx_models import Picture
from lc_pytorch.faces.quality import Quality, measure_quality

PROGRAM = "embed_faces"
TABLE = "embeddings.csv"
COLUMNS = ("file", "key", "quality", *FACTS)
STORE_FOLDER = "vectors"


@dataclass(frozen=True, kw_only=True)
class FaceItem(Item):
    """A face picture, and the facts that face extraction wrote about it."""

    extracted: ExtractedFace = field(default_factory=ExtractedFace)


@dataclass(frozen=True)
class _Prepared:
    """A face ready for the model, or one that is in the store."""

    key: bytes
    facts: dict[str, float]
    picture: Picture | None  # None: the store has its vector


class EmbedTask(Task[FaceItem]):
    """Embeds face pictures; the vectors go to `<output_dir>/vectors`, the facts to the table.

    Where extraction wrote no landmarks, FaceMesh finds the face. A picture without a face is embedded as a
    whole and marked (`is_detected` 0).

    Args:
        model: The model to embed with.
        device: "auto", "cpu" or "cuda".
        use_store: False embeds again what is stored already.
    """

    def __init__(self, model: FaceModel, device: str = "auto", use_store: bool = True) -> None:
        self._model = model
        self._device = device
        self._use_store = use_store
        if not model.preprocessing:  # torch; ONNX models run without it
            self.spare_bytes = HEAVY_SPARE_BYTES

    def open(self, output_dir: Path) -> None:
        """Opens the store; the model and FaceMesh are loaded when the first face needs them."""
        super().open(output_dir)
        self._store = VectorStore(output_dir / STORE_FOLDER)
        self._new: dict[bytes, dict[str, float]] = {}
        self._embedder: Embedder | None = None
        self._locator: FaceLocator | None = None

    def close(self) -> None:
        """Closes the store and FaceMesh."""
        self._store.close()
        if self._locator is not None:
            self._locator.close()

    def process_chunk(self, items: Sequence[FaceItem]) -> Iterator[Outcome]:
        """Yields one outcome per item, in order; the vectors are on the disk before the first."""
        prepared: list[_Prepared | Outcome] = []
        for item in items:
            try:
                prepared.append(self._prepare(item))
            except Exception as error:
                raise_if_disk_full(error)
                prepared.append(Outcome.without_result(error))
        # By key: two pictures of the same content are embedded once.
        fresh: dict[bytes, _Prepared] = {
            face.key: face for face in prepared if isinstance(face, _Prepared) and face.picture is not None
        }
        broken = self._embed(list(fresh.values()))
        for item, face in zip(items, prepared, strict=True):
            if isinstance(face, Outcome):
                yield face
            elif face.key in broken:
                yield Outcome.without_result(broken[face.key])
            else:
                yield Outcome(rows=[_row(item, face)])

    def _prepare(self, item: FaceItem) -> _Prepared:
        data = read_image_bytes(item.path)
        key = face_key(data, item.extracted)
        facts = self._new.get(key)
        if facts is None and self._use_store and key in self._store:
            facts = self._store.facts(key)
        if facts is not None:
            return _Prepared(key, facts, None)
        image = decode_image(data, item.path)
        face = self._locate(image, item.extracted)
        quality = measure_quality(
            image,
            face.points if face else None,
            item.extracted.get("confidence"),
            are_points_guessed=face is not None and face.is_guess,
        )
        facts = {
            "is_detected": float(face is not None),
            "sharpness": quality.sharpness,
            "size": quality.size,
            "frontality": quality.frontality,
            "confidence": quality.confidence,
        }
        # As stored, so that a row does not depend on whether its face came from the store.
        facts = {name: float(np.float32(value)) for name, value in facts.items()}
        return _Prepared(key, facts, self._picture(image, face))

    def _locate(self, image: Picture, extracted: ExtractedFace) -> LocatedFace | None:
        if extracted.get("points"):
            points = np.array(extracted["points"], np.float32).reshape(5, 2)
            return LocatedFace(points, None, bool(extracted.get("is_guess")))
        if self._locator is None:
            self._locator = FaceLocator()
        return self._locator.find(image)

    def _picture(self, image: Picture, face: LocatedFace | None) -> Picture:
        """Input of the model: the aligned face, or the crop for models that scale it themselves."""
        if self._model.num_aligned_points:
            width, height = self._model.input_size
            if face is not None:
                return align_five_points(image, face.points, width)
            shrinks = min(image.shape[:2]) > width
            whole: Picture = cv2.resize(
                image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            )
            return whole
        if face is None or face.box is None or face.fills(image):
            return image
        left, right = (tuple(int(value) for value in point) for point in face.points[:2])
        cut = cut_face(image, face.box, ((left[0], left[1]), (right[0], right[1])), align=True)
        return image if cut is None or cut.image.size == 0 else cut.image

    def _embed(self, faces: list[_Prepared]) -> dict[bytes, str]:
        """Embeds and stores faces; returns the reasons of those that failed, by key."""
        pictures = [face.picture for face in faces if face.picture is not None]
        if not pictures:
            return {}
        if self._embedder is None:
            self._embedder = self._model.load(self._device)
            report_progress()
        try:
            vectors = self._embedder.embed(pictures)
        except Exception as error:
            # A bad picture, or too little memory for the batch: one by one the others still succeed.
            if len(faces) == 1:
                return {faces[0].key: one_line(error)}
            return {key: reason for face in faces for key, reason in self._embed([face]).items()}
        is_good: NDArray[np.bool_] = np.all(np.isfinite(vectors), axis=1)
        good = [face for face, fine in zip(faces, is_good, strict=True) if fine]
        if good:
            facts = [[face.facts[name] for name in FACTS] for face in good]
            self._store.append([face.key for face in good], facts, vectors[is_good])
            self._new.update((face.key, face.facts) for face in good)
        return {
            face.key: "the model gave no finite embedding"
            for face, fine in zip(faces, is_good, strict=True)
            if not fine
        }


def face_key(data: bytes, extracted: ExtractedFace) -> bytes:
    """Key of a face in the store: a hash of its file's content and of the landmarks it is aligned on."""
    digest = hashlib.sha256(data)
    digest.update(json.dumps(extracted, sort_keys=True).encode())
    return digest.digest()


def _row(item: FaceItem, face: _Prepared) -> dict[str, object]:
    quality = Quality(**{name: face.facts[name] for name in FACTS[1:]})
    return {
        "file": item.name,
        "key": face.key.hex(),
        "quality": round(quality.score, 6),
        **{name: round(face.facts[name], 6) for name in FACTS[1:]},
        "is_detected": int(face.facts["is_detected"]),
    }
