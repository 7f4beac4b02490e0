"""Options of the face programs, for the single steps and for both at once.

Imports nothing heavy, because `--help` must answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facevox.batch_options import BatchOptions
from facevox.options import DEVICE, Options, choice, number, option, path, required, switch, text, whole

BACKENDS = ("opencv", "ssd", "dlib", "mtcnn", "retinaface", "mediapipe", "yunet")
# Confidence from which a detector's face counts: its own least one. Two have more, as they see faces upside
# down with less than upright ones: yunet (none of 180 upright faces below 0.757) and mtcnn (none of 40 below
# 0.949, those upside down 0.85 to 0.88). Of opencv it says nothing: wrong faces have the highest.
MIN_CONFIDENCES = {
    "opencv": 0.0,
    "ssd": 0.9,
    "dlib": 0.0,
    "mtcnn": 0.9,
    "retinaface": 0.9,
    "mediapipe": 0.6,
    "yunet": 0.75,
}
ONNX_PREPROCESSINGS = ("auto", "insightface", "imagenet", "raw")


@dataclass(frozen=True, kw_only=True)
class FaceConfig(Options):
    """Options of face extraction; every field changes the output."""

    detector_backend: str = option(
        "retinaface",
        choice(*BACKENDS),
        "face detector; opencv and mediapipe need no downloaded weights",
        group="face extraction",
    )
    align_faces: bool = option(
        True, switch(), "turn each face so that its eyes are level", group="face extraction"
    )
    min_confidence: float | None = option(
        None,
        number(0, 1),
        "faces below this confidence of the detector are passed over, 0 to 1 (default: by detector, "
        + ", ".join(f"{name} {value:g}" for name, value in MIN_CONFIDENCES.items())
        + ")",
        group="face extraction",
    )
    max_frames: int = option(
        60,
        whole(1),
        "frames tried before a video is given up: the first 25 one after the other, the others at growing "
        "distance, by time in films of more than 25 a second (60 reach 27 s)",
        group="face extraction",
    )
    expand_percentage: int = option(
        0,
        whole(0),
        "make the box larger by this percentage of its sides before cutting",
        group="face extraction",
    )
    all_faces: bool = option(
        False, switch(), "write every face of the frame, not only the best", group="face extraction"
    )
    enforce_detection: bool = option(
        True,
        switch(),
        "record a video without a face as no_face; off: write the middle square of its first frame",
        group="face extraction",
    )


@dataclass(frozen=True, kw_only=True)
class DedupeConfig(BatchOptions):
    """Options of the grouping and its folders. A shard only embeds; a run without shards groups."""

    faces_dir: Path = required(path(), "folder of face pictures, searched recursively", metavar="DIR")
    dedupe_dir: Path = required(path(), "folder for all faces, named by group, and groups.csv", metavar="DIR")
    representative_dir: Path = required(path(), "folder for one face per person", metavar="DIR")
    model_name: str = option(
        "Facenet",
        text(),
        "face-embedding model: Facenet, Facenet512, VGG-Face, OpenFace, DeepFace, DeepID, ArcFace, "
        "SFace, GhostFaceNet, Dlib, Buffalo_L, or the path of an .onnx file (input 1 x 3 x 112 x 112, "
        "five-point aligned)",
        metavar="MODEL",
        group="deduplication",
    )
    threshold: float | None = option(
        None,
        number(0, 2),
        "largest mean cosine distance inside a group, 0 to 2 (default: DeepFace's for the model, 0.4 "
        "for Facenet; needed with an .onnx file)",
        group="deduplication",
    )
    batch_size: int = option(
        32, whole(1), "faces handed to a worker (and on a GPU embedded) at a time", group="deduplication"
    )
    onnx_preprocessing: str = option(
        "auto",
        choice(*ONNX_PREPROCESSINGS),
        "pixel values an .onnx file wants: insightface ((x - 127.5) / 127.5), imagenet (its mean and "
        "deviation), raw (0 to 255); auto: by the file's metadata and first operations, else insightface",
        group="deduplication",
    )
    device: str = option("auto", DEVICE, "where it runs; auto: GPU if any", group="deduplication")
    enforce_detection: bool = option(
        True,
        switch(),
        "leave out pictures in which no face is found; off: embed the whole picture",
        group="deduplication",
    )

    def contradictions(self) -> list[str]:
        """Faults of the batch options, and folders inside one another."""
        faults = super().contradictions()
        faces, dedupe, representatives = (
            folder.resolve() for folder in (self.faces_dir, self.dedupe_dir, self.representative_dir)
        )
        if dedupe.is_relative_to(representatives) or representatives.is_relative_to(dedupe):
            faults.append(
                f"--dedupe_dir {self.dedupe_dir} and --representative_dir {self.representative_dir}: two "
                "folders, neither inside the other, are expected"
            )
        for flag, folder in (("--dedupe_dir", dedupe), ("--representative_dir", representatives)):
            if faces.is_relative_to(folder):
                faults.append(f"{flag} {folder}: holds --faces_dir; results must be in another folder")
            elif folder.exists() and not folder.is_dir():
                faults.append(f"{flag} {folder}: is a file; a folder is expected")
        return faults
