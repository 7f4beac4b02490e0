"""A set of five expressions of synthetic people, in the shape of AIHub's "한국인 감정인식을 위한 복합 영상".

    folders/092.…/01.데이터/1.Training/원천데이터/EMOIMG_기쁨_TRAIN_01/<picture>.jpg
    folders/092.…/01.데이터/1.Training/라벨링데이터/EMOIMG_기쁨_TRAIN/img_emotion_training_data(기쁨).json
    archives/092.…/01.데이터/1.Training/원천데이터/[원천]EMOIMG_기쁨_TRAIN_01.zip     the same pictures
    archives/092.…/01.데이터/1.Training/라벨링데이터/[라벨]EMOIMG_기쁨_TRAIN.zip
    aihub.csv, manifests/                       the batch's table and manifest

and the same below 2.Validation. It has what the real set has: pictures that are stored turned and say so in
their EXIF data, passers-by, annotators who disagree or cannot tell, boxes that are swapped, negative or
empty, lists in three encodings, and people in both Training and Validation. The boxes fit a head that is held
straight; a tilted one sits in them as loosely as in boxes that people draw.

A picture depends on (seed, person, expression, number, size) alone: on one kind of processor to the last
byte, on another except for last digits.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facevox.batch import Outcome
from facevox.files import replacing, write_bytes
from facevox_demo.example import people, sources
from facevox_demo.example.expressions import EXPRESSIONS
from facevox_demo.example.people import Person, PersonItem, make_person, random_generator
from facevox_demo.example.person_task import PersonTask
from facevox_demo.example.pictures import render_portrait
from facevox_demo.example.portraits import EYE_LINE_SHARE, FACE_UNIT_SHARE, draw_portrait
from facevox_demo.example.warps import apply_geometry
from facevox_demo.options import AihubConfig

PROGRAM = "make_example_aihub"
TABLE = "aihub.csv"
COLUMNS = ("person", "uploader", "training", "validation")
KOREAN = dict(zip(EXPRESSIONS, ("기쁨", "슬픔", "중립", "당황", "불안"), strict=True))
OTHER_ANSWERS = ("분노", "상처", "알수없음")  # what annotators may answer besides the five
ROOT = "092.한국인 감정인식을 위한 복합 영상 데이터/01.데이터"
# Folder, word in archive and folder names, word in JSON names.
PARTS = {"train": ("1.Training", "TRAIN", "training"), "valid": ("2.Validation", "VALID", "validation")}
VALIDATION_SHARE = 0.12  # of the pictures, drawn picture by picture: hence people in both
AGREES = 0.92  # an annotator with the truth; two of them agree 0.92^2, about 0.85
TURNED_SHARE, COMPANY_SHARE, BAD_BOX_SHARE = 0.12, 0.1, 0.03
COMPANION = 1_000_000  # added to the index of a person for the number of the passer-by
BACKGROUNDS = ("도심 환경", "가정 및 실내", "오락공간", "사무 환경")
JSON_ENCODINGS = dict(zip(EXPRESSIONS, ("utf-8", "utf-8-sig", "cp949", "utf-8", "utf-8"), strict=True))
TIME = (2021, 1, 28, 0, 0, 0)  # of all members: the same bytes on every day
JPEG_QUALITY = 92
_ORIENTATION, _TURN_CLOCKWISE = 0x0112, 6  # EXIF: to be turned by 90° clockwise for showing


@dataclass(frozen=True)
class Shot:
    """One picture: its person and expression, the position of the portrait in it, and its annotation."""

    person: Person
    expression: str
    number: int
    part: str  # of PARTS
    filename: str
    width: int
    height: int
    left: int  # of the portrait
    top: int
    is_turned: bool
    has_company: bool
    annotation: dict[str, object]

    @property
    def folder(self) -> str:
        """Folder of the picture, below `folders`."""
        part, word, _ = PARTS[self.part]
        return f"{ROOT}/{part}/원천데이터/EMOIMG_{KOREAN[self.expression]}_{word}_01"


def make_items(config: AihubConfig) -> list[PersonItem]:
    """One item per person."""
    return [PersonItem(people.person_name(index), "", index=index) for index in range(config.num_people)]


def make_shots(config: AihubConfig, index: int) -> list[Shot]:
    """The pictures of the person `index`, planned but not drawn."""
    person = make_person(config.seed, index)
    return [
        _make_shot(config, person, expression, number)
        for expression in EXPRESSIONS
        for number in range(config.pictures_per_expression)
    ]


def _make_shot(config: AihubConfig, person: Person, expression: str, number: int) -> Shot:
    expression_index = EXPRESSIONS.index(expression)
    rng = random_generator(config.seed, person.index, 5, expression_index, number)
    uploader = uploader_of(person)
    who = random_generator(config.seed, person.index, 6)
    gender, age = str(who.choice(("남", "여"))), int(who.choice((20, 30, 40, 50)))
    background = str(rng.choice(BACKGROUNDS))
    part = "valid" if rng.random() < VALIDATION_SHARE else "train"
    suffix = ".jpeg" if rng.random() < 0.1 else ".jpg"
    # A person uploads the pictures of one expression together: they share the number up to the hyphen.
    upload = f"202101{10 + expression_index:02d}{person.index % 24:02d}{person.index // 24 % 60:02d}00"
    word = KOREAN[expression]
    filename = f"{uploader}_{gender}_{age}_{word}_{background}_{upload}-001-{number + 1:03d}{suffix}"
    has_company = bool(rng.random() < COMPANY_SHARE)
    size = config.picture_size
    # Room for the portrait at any of its positions, and on the right for a passer-by.
    width, height = round(size * (2.1 if has_company else 1.5)), round(size * 1.25)
    left = int(rng.integers(0, round(size * 0.5) + 1))
    top = int(rng.integers(0, height - size + 1))
    annotation = {
        "filename": filename,
        "gender": gender,
        "age": age,
        "isProf": "일반인",
        "faceExp_uploader": word,
        "bg_uploader": background,
    }
    box = portrait_box(person, size) + np.array([left, top, left, top])
    for letter in "ABC":
        annotation[f"annot_{letter}"] = {
            "boxes": _drawn_box(box, rng),
            "faceExp": _answer(word, rng),
            "bg": background,
        }
    is_turned = bool(rng.random() < TURNED_SHARE)
    return Shot(
        *(person, expression, number, part, filename, width, height, left, top, is_turned, has_company),
        annotation=annotation,
    )


def uploader_of(person: Person) -> str:
    """The hash that stands for a person in file names."""
    return hashlib.sha256(f"{person.seed}:{person.index}".encode()).hexdigest()[:32]


def portrait_box(person: Person, size: int) -> NDArray[np.float64]:
    """(4,) left, top, right, bottom of the face in a portrait of this size, head straight, in pixels."""
    mirror = -1.0 if person.appearance.is_mirrored else 1.0
    points = apply_geometry(sources.template_landmarks() * (mirror, 1.0), person.geometry, 0.0)
    pixels = points * (size * FACE_UNIT_SHARE) + (size * 0.5, size * EYE_LINE_SHARE)
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def _answer(word: str, rng: np.random.Generator) -> str:
    if rng.random() < AGREES:
        return word
    return str(rng.choice([answer for answer in (*KOREAN.values(), *OTHER_ANSWERS) if answer != word]))


def _drawn_box(box: NDArray[np.float64], rng: np.random.Generator) -> dict[str, float]:
    """The box as an annotator draws it: inexactly, and now and then wrongly."""
    side = float(box[2] - box[0])
    left, top, right, bottom = (round(float(v), 2) for v in box + rng.normal(0, 0.03 * side, 4))
    draw = rng.random() / BAD_BOX_SHARE
    if draw < 1 / 3:
        left, right = right, left
    elif draw < 2 / 3:
        left, top = -left - 1, -top - 1
    elif draw < 1:
        left = top = right = bottom = 0.0
    return {"maxX": right, "maxY": bottom, "minX": left, "minY": top}


class AihubTask(PersonTask):
    """Makes the pictures of one person."""

    def __init__(self, config: AihubConfig) -> None:
        self.config = config

    def write_person(self, item: PersonItem) -> Outcome:
        """Writes the pictures of the person `item.index`."""
        config = self.config
        shots = make_shots(config, item.index)
        person = shots[0].person
        portrait = draw_portrait(person, config.picture_size)
        passer_by = None
        if any(shot.has_company for shot in shots):
            small = round(config.picture_size * 0.6)
            passer_by = render_portrait(
                make_person(person.seed, person.index + COMPANION), "neutral", size=small
            )
        outputs = []
        for shot in shots:
            expression_index = EXPRESSIONS.index(shot.expression)
            face = render_portrait(
                person, shot.expression, expression_index * 100 + shot.number, config.picture_size, portrait
            )
            outputs.append(f"folders/{shot.folder}/{shot.filename}")
            scene = _scene(shot, face, passer_by if shot.has_company else None)
            write_bytes(self.output_dir / outputs[-1], _encoded(scene, shot.is_turned), sync=False)
        in_training = sum(shot.part == "train" for shot in shots)
        row = {
            "uploader": uploader_of(person),
            "training": in_training,
            "validation": len(shots) - in_training,
        }
        return Outcome(rows=[row], outputs=outputs)


def _scene(shot: Shot, face: NDArray[np.uint8], passer_by: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB: the portrait at its position, its backdrop extended to the borders."""
    size = face.shape[0]
    room = round(size * 1.5)  # the passer-by is next to it
    below, right = shot.height - shot.top - size, room - shot.left - size
    scene: NDArray[np.uint8] = cv2.copyMakeBorder(
        face, shot.top, below, shot.left, right, cv2.BORDER_REPLICATE
    )
    if passer_by is None:
        return scene[:, : shot.width]
    full: NDArray[np.uint8] = cv2.copyMakeBorder(scene, 0, 0, 0, shot.width - room, cv2.BORDER_REPLICATE)
    small = passer_by.shape[0]
    full[shot.height - small :, shot.width - small :] = passer_by
    return full


def _encoded(scene: NDArray[np.uint8], is_turned: bool) -> bytes:
    """The JPEG file; stored on its side and marked so where `is_turned`."""
    buffer, options = io.BytesIO(), {}
    if is_turned:
        scene = np.ascontiguousarray(np.rot90(scene))  # anticlockwise: shown, it is turned back
        exif = Image.Exif()
        exif[_ORIENTATION] = _TURN_CLOCKWISE
        options["exif"] = exif
    Image.fromarray(scene).save(buffer, "JPEG", quality=JPEG_QUALITY, **options)
    return buffer.getvalue()


def write_lists_and_archives(output_dir: Path, config: AihubConfig) -> None:
    """Writes the annotations of both trees, and the archives from the pictures of `folders`.

    All pictures must be there: a shard alone has not made them.
    """
    groups: dict[tuple[str, str], list[Shot]] = {}
    for index in range(config.num_people):
        for shot in make_shots(config, index):
            groups.setdefault((shot.part, shot.expression), []).append(shot)
    for (part, expression), shots in groups.items():
        folder, word, name = PARTS[part]
        korean = KOREAN[expression]
        text = json.dumps([shot.annotation for shot in shots], ensure_ascii=False, indent=1)
        data = text.encode(JSON_ENCODINGS[expression])
        json_name = f"img_emotion_{name}_data({korean}).json"
        labels, pictures = f"{ROOT}/{folder}/라벨링데이터", f"{ROOT}/{folder}/원천데이터"
        write_bytes(output_dir / "folders" / labels / f"EMOIMG_{korean}_{word}" / json_name, data)
        archives, number = output_dir / "archives", "_01" if part == "train" else ""
        write_zip(
            archives / labels / f"[라벨]EMOIMG_{korean}_{word}.zip",
            iter([(json_name, data)]),
            config.zip_names,
            zipfile.ZIP_DEFLATED,
        )
        contents = (
            (shot.filename, (output_dir / "folders" / shot.folder / shot.filename).read_bytes())
            for shot in shots
        )
        write_zip(
            archives / pictures / f"[원천]EMOIMG_{korean}_{word}{number}.zip", contents, config.zip_names
        )


def write_zip(
    path: Path, contents: Iterator[tuple[str, bytes]], names: str, method: int = zipfile.ZIP_STORED
) -> None:
    """Writes a ZIP whose bytes depend on its contents alone.

    Args:
        path: The archive.
        contents: (member name, content).
        names: "utf-8", or "cp949" without the UTF-8 flag.
        method: Of compression.
    """
    kind = _Cp949Info if names == "cp949" else zipfile.ZipInfo
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in contents:
            info = kind(name, TIME)
            info.compress_type = method
            archive.writestr(info, content)


class _Cp949Info(zipfile.ZipInfo):
    """A member whose name is written in cp949 and not marked as UTF-8, as Korean Windows does.

    `zipfile` knows ASCII and UTF-8 only; it asks this method for both of its headers.
    """

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("cp949"), self.flag_bits
