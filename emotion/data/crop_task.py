"""From AIHub's pictures to face crops: the plan for each picture, and the task that carries it out.

A face is MediaPipe's (the box around its landmarks), and it must be the one that the annotators marked: of
several faces in a picture only theirs has the label.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.data.aihub.annotations import Edges
from emotion.data.aihub.archives import Archive
from emotion.data.aihub.collection import Collection, PictureFile, read_picture
from emotion.data.aihub.labels import majority_label
from emotion.data.aihub.names import parse_picture_name
from emotion.data.boxes import (
    SEARCHED_FACES,
    Box,
    FoundFace,
    annotated_box,
    choose_face,
    overlap,
)
from emotion.data.crops import cut_square, face_box, square_around
from emotion.data.options import CropConfig
from emotion.data.pictures import decode_reduced, reduction_for
from emotion.data.split import validation_people
from facevox.batch import Item, Outcome, Task
from facevox.errors import NoFaceError, UserError
from facevox.files import write_image
from facevox.manifest import LEFT_OUT
from facevox.mesh.face_mesh import FaceMesh
from facevox.mesh.kinds import FACE_MESH, describe_mesh
from facevox.naming import plan_names

# From the annotations, before a picture is opened …
LABEL_COLUMNS = (
    *("split", "class", "person", "gender", "age", "burst", "aihub_part"),
    *("uploader", "annot_A", "annot_B", "annot_C"),
)
# … and from the picture itself. Boxes are in pixels of the whole upright picture.
FACE_COLUMNS = (
    *("crop", "width", "height", "reduction", "faces", "found_in"),
    *("left", "top", "right", "bottom", "overlap"),
)
COLUMNS = ("picture", *LABEL_COLUMNS, *FACE_COLUMNS)

# FaceMesh's detector looks at 192 pixels; a face of a tenth of the picture keeps 64 at this length.
LEAST_LONGEST_PX = 640
JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class CropItem(Item):
    """A picture with its labels from name and annotations.

    Attributes:
        offset: Of its header in the archive; below 0 for a picture that is a file itself.
        labels: Values of LABEL_COLUMNS; empty where name or annotations have none.
        edges: The annotators' boxes.
        problem: The reason why it cannot be processed, or "".
        left_out: The reason why it gets no crop, or "".
    """

    offset: int = -1
    labels: tuple[str | int, ...] = ()
    edges: tuple[Edges, ...] = ()
    problem: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Plan:
    """The items of a run.

    Attributes:
        items: For `CropTask`, in the order of the archives.
        left_out: Reason -> number of pictures that get no crop.
    """

    items: list[CropItem]
    left_out: Counter[str]


def plan_crops(collection: Collection, config: CropConfig) -> Plan:
    """An item for each picture: its label and its part by person, or the reason why it gets no crop.

    Raises:
        UserError: No pictures, no annotations, or fewer than two people.
    """
    if not collection.pictures or not collection.annotations:
        missing = "pictures (원천데이터)" if not collection.pictures else "annotations (라벨링데이터)"
        problems = collection.problems
        first = f"; {problems[0][0]}: {problems[0][1]}" if problems else ""
        raise UserError(f"DATA_DIR_RAW: no {missing} that can be read below it{first}")
    people = [parsed.person for p in collection.pictures if (parsed := parse_picture_name(p.filename))]
    in_validation = validation_people(people, config.seed, config.val_share)
    items = [CropItem(name, "", problem=reason) for name, reason in collection.problems]
    left_out: Counter[str] = Counter()
    first_names: dict[str, str] = {}
    for picture in collection.pictures:
        item = CropItem(picture.name, picture.container, offset=picture.offset)
        first_name = first_names.setdefault(picture.filename, picture.name)
        if first_name != picture.name:
            item = replace(item, left_out=f"the same picture as {first_name}")
            left_out["the same picture again"] += 1
        else:
            item = _plan_picture(item, picture, collection, config, in_validation)
            if item.left_out:
                left_out[item.left_out] += 1
        items.append(item)
    # Archives may hold pictures of one name; on some disks names differ in case alone.
    outputs = {index: item.output for index, item in enumerate(items) if item.output is not None}
    for index, output in zip(outputs, plan_names(list(outputs.values()), ".jpg"), strict=True):
        items[index] = replace(items[index], output=output)
    return Plan(items, left_out)


def _plan_picture(
    item: CropItem, picture: PictureFile, collection: Collection, config: CropConfig, in_validation: set[str]
) -> CropItem:
    """The item with its labels, and `output`, `left_out` or `problem`.

    Pictures of several archives may have the same `output` still.
    """
    parsed = parse_picture_name(picture.filename)
    annotation = collection.annotations.get(picture.filename)
    if parsed is None:
        return replace(item, problem="its name names no person (AIHub's: uploader_gender_age_emotion_…)")
    if annotation is None:
        return replace(item, problem="no annotation names it")
    label = majority_label(annotation.votes, annotation.uploader)
    folder = config.val_dir.name if parsed.person in in_validation else config.train_dir.name
    labels = (
        folder,
        label,
        parsed.person,
        annotation.gender or parsed.gender,
        annotation.age if annotation.age >= 0 else parsed.age,
        parsed.burst,
        picture.part,
        annotation.uploader,
        *annotation.votes,
    )
    if label not in config.class_names:
        return replace(item, labels=labels, left_out=f"its label is {label or 'missing'}")
    output = f"{folder}/{label}/{picture.filename}"
    return replace(item, labels=labels, edges=annotation.boxes, output=output)


class CropTask(Task[CropItem]):
    """Writes the face crop of each picture."""

    detector = describe_mesh(FACE_MESH)

    def __init__(self, config: CropConfig) -> None:
        self.config = config
        self._archive: Archive | None = None

    def open(self, output_dir: Path) -> None:
        """Makes this process's FaceMesh; OpenCV keeps to one thread, the workers share the cores."""
        super().open(output_dir)
        cv2.setNumThreads(1)
        self._mesh = FaceMesh(static=True, max_faces=SEARCHED_FACES, heads="none")

    def close(self) -> None:
        """Closes FaceMesh and the open archive."""
        self._mesh.close()
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def process(self, item: CropItem) -> Outcome:
        """Finds the face that the annotators marked, and writes its crop.

        Raises:
            UserError: The picture cannot be read, or shows no such face.
        """
        if item.problem:
            raise UserError(item.problem)
        labels = dict(zip(LABEL_COLUMNS, item.labels, strict=True)) if item.labels else {}
        if item.left_out:
            return Outcome(rows=[labels], status=LEFT_OUT, reason=item.left_out)
        output = item.output
        assert output is not None, "planned where there is no problem and nothing is left out"
        data = read_picture(item.path, item.offset, self._opened(item))
        # The annotators' box is cut at the border of the picture, whose size is known while it is decoded.
        annotated_boxes: list[Box | None] = []

        def choose(width: int, height: int) -> int:
            annotated_boxes.append(annotated_box(item.edges, width, height))
            return self._reduction(annotated_boxes[0], max(width, height))

        image, (width, height) = decode_reduced(data, item.name, choose)
        # `choose` is called for JPEGs alone.
        annotated = annotated_boxes[0] if annotated_boxes else annotated_box(item.edges, width, height)
        reduction = width / image.shape[1]
        face = self._find(image, annotated.scaled(1 / reduction) if annotated else None)
        crop = cut_square(image, square_around(face.box, self.config.crop_margin), self.config.img_size)
        write_image(self.output_dir / output, crop, JPEG_QUALITY, sync=False)
        box = face.box.scaled(reduction)
        row = {
            **labels,
            "crop": output,
            "width": width,
            "height": height,
            "reduction": round(reduction),
            "faces": face.num_faces,
            "found_in": face.where,
            **{name: round(value, 1) for name, value in zip(Box._fields, box, strict=True)},
            "overlap": round(face.overlap, 3) if annotated else "",
        }
        return Outcome(rows=[row], outputs=[output])

    def _opened(self, item: CropItem) -> Archive | None:
        """The archive of an item, kept open for the next; None for a picture that is a file itself."""
        if item.offset < 0:
            return None
        if self._archive is None or str(self._archive.path) != item.path:
            if self._archive is not None:
                self._archive.close()
                self._archive = None
            self._archive = Archive(item.path)
        return self._archive

    def _reduction(self, annotated: Box | None, longest_px: int) -> int:
        if annotated is None:
            return 1
        crop_px = min(annotated.width, annotated.height) * (1 + 2 * self.config.crop_margin)
        return reduction_for(crop_px, self.config.img_size, longest_px, LEAST_LONGEST_PX)

    def _find(self, image: NDArray[np.uint8], annotated: Box | None) -> "FoundFace":
        """The annotated face in the whole picture, or else in the piece around the annotators' box."""
        # Only the last search has the border: the piece around the box is surer than the border.
        faces = self._mesh.find(image, with_border=annotated is None)
        boxes = [face_box(points) for points in faces]
        face = choose_face(boxes, annotated)
        if face is not None:
            return face
        if annotated is not None:
            height, width = image.shape[:2]
            left, top, right, bottom = _piece_around(annotated, width, height)
            faces = self._mesh.find(image[top:bottom, left:right], with_border=True)
            piece = [face_box(points) for points in faces]
            moved = [Box(b.left + left, b.top + top, b.right + left, b.bottom + top) for b in piece]
            face = choose_face(moved, annotated)
            if face is not None:
                return FoundFace(face.box, face.overlap, max(len(boxes), face.num_faces), "piece")
            boxes += moved
        if not boxes:
            raise NoFaceError("no face found")
        best = max(overlap(box, annotated) for box in boxes) if annotated else 0.0
        raise NoFaceError(
            f"{len(boxes)} faces found, none where the annotators marked one (best overlap {best:.2f})"
        )


def _piece_around(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of twice the box, within the picture."""
    return (
        max(int(box.left - box.width / 2), 0),
        max(int(box.top - box.height / 2), 0),
        min(int(box.right + box.width / 2) + 1, width),
        min(int(box.bottom + box.height / 2) + 1, height),
    )
