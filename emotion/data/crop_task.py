"""From AIHub's pictures to face crops: what is planned for each picture, and how it is done.

A face is MediaPipe's (the box around its landmarks), and it must be the one that the annotators marked: of
several faces in a picture only theirs has the label.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.data.aihub.annotations import Edges
from emotion.data.aihub.archives import Archive
from emotion.data.aihub.collection import Collection, PictureFile, read_picture
from emotion.data.aihub.labels import majority_label
from emotion.data.aihub.names import parse_picture_name
from emotion.data.boxes import Box, clean_box, middle_box, overlap
from emotion.data.split import validation_people
from facevox.batch import Item, Outcome, Task
from facevox.errors import NoFaceError, UserError
from facevox.faces import MIN_CONFIDENCE
from facevox.manifest import LEFT_OUT
from facevox.naming import plan_names
from facevox.options import Options, number, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What the annotations say, known before a picture is opened …
LABEL_COLUMNS = (
    *("split", "class", "person", "gender", "age", "burst", "aihub_part"),
    *("uploader", "annot_A", "annot_B", "annot_C"),
)
# … and what is found in it. Boxes are in pixels of the whole upright picture.
FACE_COLUMNS = (
    *("crop", "width", "height", "reduction", "faces", "found_in"),
    *("left", "top", "right", "bottom", "overlap"),
)
COLUMNS = ("picture", *LABEL_COLUMNS, *FACE_COLUMNS)

SEARCHED_FACES = 5  # of one picture that are held against the annotators' boxes
# FaceMesh's detector looks at 192 pixels; a face of a tenth of the picture keeps 64 at this length.
LEAST_LONGEST_PX = 640
# MediaPipe's box ends at the forehead, annotators may draw hair and ears: half of the area is usual.
LEAST_OVERLAP = 0.25
LEAST_AREA_SHARE = 0.15  # of the annotators' box, for a face whose centre lies in it
JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class CropConfig(Options):
    """How crops are made; checks itself.

    Attributes:
        class_names: Labels that are kept, in English.
        train_dir, val_dir: Two folders of one parent, which holds the table and the manifest.
        img_size: Side of a crop, in pixels.
        crop_margin: Around the face box, on each side, as a share of the box.
        seed: Of the split.
    """

    class_names: tuple[str, ...]
    train_dir: Path
    val_dir: Path
    img_size: int
    crop_margin: float
    val_share: float = option(
        0.2, number(0, 1, is_above=True, is_below=True), "share of the people that go to validation"
    )
    seed: int

    def contradictions(self) -> list[str]:
        """Folders without a common parent."""
        if self.train_dir.parent == self.val_dir.parent:
            return []
        return [
            f"DATA_DIR_TRAIN {self.train_dir} and DATA_DIR_VAL {self.val_dir}: two folders of one parent are "
            "expected, which holds their table and manifest"
        ]

    @property
    def output_dir(self) -> Path:
        """Where the two folders lie."""
        return self.train_dir.parent

    def settings(self) -> dict[str, object]:
        """What changes the crops."""
        return {
            "class_names": list(self.class_names),
            "train_dir": self.train_dir.name,
            "val_dir": self.val_dir.name,
            "img_size": self.img_size,
            "crop_margin": self.crop_margin,
            "val_share": self.val_share,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class CropItem(Item):
    """A picture, and what is known of it before it is opened.

    Attributes:
        offset: Of its header in the archive; below 0 where it is a file of its own.
        labels: Of LABEL_COLUMNS; empty where name or annotations tell none.
        edges: The annotators' boxes.
        problem: Why it cannot be done, or "".
        left_out: Why no crop of it is wanted, or "".
    """

    offset: int = -1
    labels: tuple[str | int, ...] = ()
    edges: tuple[Edges, ...] = ()
    problem: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        items: For `CropTask`, in the order of the archives.
        left_out: Reason -> number of pictures that are not wanted.
    """

    items: list[CropItem]
    left_out: Counter[str]


def plan_crops(found: Collection, config: CropConfig) -> Plan:
    """An item for each picture: its label and its side by person, or why there will be no crop of it.

    Raises:
        UserError: No pictures, no annotations, or fewer than two people.
    """
    if not found.pictures or not found.annotations:
        missing = "pictures (원천데이터)" if not found.pictures else "annotations (라벨링데이터)"
        first = f"; {found.problems[0][0]}: {found.problems[0][1]}" if found.problems else ""
        raise UserError(f"DATA_DIR_RAW: no {missing} that can be read below it{first}")
    people = [parsed.person for p in found.pictures if (parsed := parse_picture_name(p.filename))]
    in_validation = validation_people(people, config.seed, config.val_share)
    items = [CropItem(name, "", problem=reason) for name, reason in found.problems]
    left_out: Counter[str] = Counter()
    seen: dict[str, str] = {}
    for picture in found.pictures:
        item = CropItem(picture.name, picture.container, offset=picture.offset)
        first_name = seen.setdefault(picture.filename, picture.name)
        if first_name != picture.name:
            item = replace(item, left_out=f"the same picture as {first_name}")
            left_out["the same picture again"] += 1
        else:
            item = _plan_picture(item, picture, found, config, in_validation)
            if item.left_out:
                left_out[item.left_out] += 1
        items.append(item)
    wanted = {place: item.output for place, item in enumerate(items) if item.output is not None}
    for place, output in zip(wanted, plan_names(list(wanted.values()), ".jpg"), strict=True):
        items[place] = replace(items[place], output=output)
    return Plan(items, left_out)


def _plan_picture(
    item: CropItem, picture: PictureFile, found: Collection, config: CropConfig, in_validation: set[str]
) -> CropItem:
    """The item with what is known of its picture: labels, and `output`, `left_out` or `problem`.

    Pictures of several archives may want the same `output` still.
    """
    parsed = parse_picture_name(picture.filename)
    annotation = found.annotations.get(picture.filename)
    if parsed is None:
        return replace(item, problem="its name tells no person (AIHub's: uploader_gender_age_emotion_…)")
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

    detector = f"FaceMesh, min_confidence {MIN_CONFIDENCE}"

    def __init__(self, config: CropConfig) -> None:
        self.config = config
        self._archive: Archive | None = None

    def open(self, output_dir: Path) -> None:
        """Makes this process's FaceMesh; OpenCV keeps to one thread, the workers share the cores."""
        import cv2

        from facevox.faces import FaceMesh

        super().open(output_dir)
        cv2.setNumThreads(1)
        self._mesh = FaceMesh(static=True, max_faces=SEARCHED_FACES)

    def close(self) -> None:
        """Gives FaceMesh and the open archive back."""
        self._mesh.close()
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def process(self, item: CropItem) -> Outcome:
        """Finds the face that the annotators marked, and writes its crop.

        Raises:
            UserError: The picture cannot be read, or shows no such face.
        """
        from emotion.data.crops import cut_square, square_around
        from emotion.data.pictures import decode_reduced
        from facevox.files import write_image

        if item.problem:
            raise UserError(item.problem)
        labels = dict(zip(LABEL_COLUMNS, item.labels, strict=True)) if item.labels else {}
        if item.left_out:
            return Outcome(rows=[labels], status=LEFT_OUT, reason=item.left_out)
        output = item.output
        assert output is not None, "planned where there is no problem and nothing is left out"
        data = read_picture(item.path, item.offset, self._opened(item))
        # Whose face is wanted is known only when the size of the picture is.
        drawn: list[Box | None] = []

        def choose(width: int, height: int) -> int:
            drawn.append(annotated_box(item.edges, width, height))
            return self._reduction(drawn[0], max(width, height))

        image, (width, height) = decode_reduced(data, item.name, choose)
        annotated = drawn[0] if drawn else annotated_box(item.edges, width, height)
        reduction = width / image.shape[1]
        found = self._find(image, annotated.scaled(1 / reduction) if annotated else None)
        crop = cut_square(image, square_around(found.box, self.config.crop_margin), self.config.img_size)
        write_image(self.output_dir / output, crop, JPEG_QUALITY, sync=False)
        box = found.box.scaled(reduction)
        row = {
            **labels,
            "crop": output,
            "width": width,
            "height": height,
            "reduction": round(reduction),
            "faces": found.num_faces,
            "found_in": found.where,
            **{name: round(value, 1) for name, value in zip(Box._fields, box, strict=True)},
            "overlap": round(found.overlap, 3) if annotated else "",
        }
        return Outcome(rows=[row], outputs=[output])

    def _opened(self, item: CropItem) -> Archive | None:
        """The archive of an item, kept open for the next; None where the picture is a file of its own."""
        if item.offset < 0:
            return None
        if self._archive is None or str(self._archive.path) != item.path:
            if self._archive is not None:
                self._archive.close()
                self._archive = None
            self._archive = Archive(item.path)
        return self._archive

    def _reduction(self, annotated: Box | None, longest_px: int) -> int:
        from emotion.data.pictures import reduction_for

        if annotated is None:
            return 1
        crop_px = min(annotated.width, annotated.height) * (1 + 2 * self.config.crop_margin)
        return reduction_for(crop_px, self.config.img_size, longest_px, LEAST_LONGEST_PX)

    def _find(self, image: "NDArray[np.uint8]", annotated: Box | None) -> "FoundFace":
        """The annotated face in the whole picture, or else in the piece around the annotators' box."""
        from emotion.data.crops import face_box

        boxes = [face_box(points) for points in self._mesh.find(image)]
        found = choose_face(boxes, annotated)
        if found is not None:
            return found
        if annotated is not None:
            height, width = image.shape[:2]
            left, top, right, bottom = _piece_around(annotated, width, height)
            piece = [face_box(points) for points in self._mesh.find(image[top:bottom, left:right])]
            moved = [Box(b.left + left, b.top + top, b.right + left, b.bottom + top) for b in piece]
            found = choose_face(moved, annotated)
            if found is not None:
                return FoundFace(found.box, found.overlap, max(len(boxes), found.num_faces), "piece")
            boxes += moved
        if not boxes:
            raise NoFaceError("no face found")
        best = max(overlap(box, annotated) for box in boxes) if annotated else 0.0
        raise NoFaceError(
            f"{len(boxes)} faces found, none where the annotators marked one (best overlap {best:.2f})"
        )


@dataclass(frozen=True)
class FoundFace:
    """A face in the decoded picture: its box, its overlap with the annotators', and where it was found."""

    box: Box
    overlap: float
    num_faces: int
    where: str  # "picture" or "piece"


def annotated_box(edges: Sequence[Sequence[float]], width: int, height: int) -> Box | None:
    """The annotators' box in a picture of this upright size, or None where they left none that is usable."""
    cleaned = (clean_box(box, width, height) for box in edges)
    return middle_box([box for box in cleaned if box is not None])


def choose_face(boxes: Sequence[Box], annotated: Box | None) -> FoundFace | None:
    """The face that the annotators marked; the largest where they marked none.

    A face is theirs if it overlaps their box enough, or lies with its centre in it and is not much smaller:
    boxes are drawn tightly by some and around the whole head by others.
    """
    if annotated is None:
        best = max(boxes, key=lambda box: box.area, default=None)
        return None if best is None else FoundFace(best, 0.0, len(boxes), "picture")
    theirs = [
        (overlap(box, annotated), box)
        for box in boxes
        if overlap(box, annotated) >= LEAST_OVERLAP
        or (annotated.contains(box.centre) and LEAST_AREA_SHARE <= box.area / annotated.area <= 1)
    ]
    if not theirs:
        return None
    share, box = max(theirs)
    return FoundFace(box, share, len(boxes), "picture")


def _piece_around(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of twice the box, within the picture."""
    return (
        max(int(box.left - box.width / 2), 0),
        max(int(box.top - box.height / 2), 0),
        min(int(box.right + box.width / 2) + 1, width),
        min(int(box.bottom + box.height / 2) + 1, height),
    )
