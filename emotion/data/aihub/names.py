"""Emotions, people and parts in AIHub's names; Korean names of ZIP members."""

import re
import unicodedata
from dataclasses import dataclass

# AIHub's seven emotions, and the answer of annotators who cannot tell.
EMOTIONS = {
    "기쁨": "happy",
    "슬픔": "sad",
    "중립": "neutral",
    "당황": "embarrassed",
    "불안": "anxiety",
    "분노": "anger",
    "상처": "hurt",
    "알수없음": "unknown",
}
UNKNOWN = EMOTIONS["알수없음"]
GENDERS = {"남": "male", "여": "female"}
TRAINING, VALIDATION, TEST = "train", "validation", "test"
_PARTS = (
    (TRAINING, re.compile(r"^(?:\d+\.\s*)?train(?:ing)?$", re.IGNORECASE)),
    (VALIDATION, re.compile(r"^(?:\d+\.\s*)?val(?:id(?:ation)?)?$", re.IGNORECASE)),
    (TEST, re.compile(r"^(?:\d+\.\s*)?test$", re.IGNORECASE)),
)
_UTF8_FLAG = 0x800
_HANGUL = re.compile("[가-힣]")


@dataclass(frozen=True)
class PictureName:
    """Fields of a picture's name: `uploader_남_20_기쁨_도심 환경_20210128102200-001-003.jpg`.

    Attributes:
        person: The uploader's hash: who is in the picture.
        gender: "male", "female", or "" where it is missing.
        age: The decade, or -1 where it is missing.
        emotion: The uploader's, in English, or "" where it is not one of AIHub's.
        burst: The upload: the person and the number up to its first hyphen, the same in all its pictures.
    """

    person: str
    gender: str
    age: int
    emotion: str
    burst: str


def normalise(text: str) -> str:
    """`text` in NFC: macOS writes each syllable as its letters (NFD), which never compare equal."""
    return unicodedata.normalize("NFC", text)


def emotion_of(word: object) -> str:
    """The English name of an AIHub emotion ("알수없음" is "unknown"), or "" for other words.

    English names are returned as they are. Spaces are ignored: both 알수없음 and 알 수 없음 occur.
    """
    if not isinstance(word, str):
        return ""
    plain = "".join(normalise(word).split())
    return plain if plain in EMOTIONS.values() else EMOTIONS.get(plain, "")


def parse_picture_name(name: str) -> PictureName | None:
    """The fields of a picture's file name, or None where it names no person.

    A background may contain underscores: only the first four fields and the last are fixed.
    """
    fields = normalise(name.rsplit("/", 1)[-1]).rsplit(".", 1)[0].split("_")
    if len(fields) < 5 or not fields[0].strip():
        return None
    person, gender, age, emotion = (field.strip() for field in fields[:4])
    return PictureName(
        person=person,
        gender=GENDERS.get(gender, ""),
        age=int(age) if re.fullmatch(r"\d{1,3}", age, re.ASCII) else -1,
        emotion=emotion_of(emotion),
        burst=f"{person}_{fields[-1].split('-')[0]}",
    )


def part_of(path: str) -> str:
    """The data set's own part that a path belongs to: "train", "validation", "test", or "".

    By a folder (`1.Training`, `validation`) or by the name of an archive or JSON (`…_TRAIN_01.zip`,
    `img_emotion_validation_data(기쁨).json`); the deepest in the path counts.
    """
    for component in reversed(normalise(path).split("/")):
        for part, pattern in _PARTS:
            if pattern.match(component):
                return part
        if component.lower().endswith((".zip", ".json")):
            words = re.split(r"[\W_]+", component.lower())
            for part, pattern in _PARTS:
                if any(pattern.match(word) for word in words):
                    return part
    return ""


def emotion_in_name(name: str) -> str:
    """The emotion in the name of an archive or JSON, in English, or "".

    `[원천]EMOIMG_중립_TRAIN_01.zip` is "neutral", `img_emotion_training_data(기쁨).json` "happy".
    """
    for word in re.findall("[가-힣]+", normalise(name.rsplit("/", 1)[-1])):
        if word in EMOTIONS:
            return EMOTIONS[word]
    return ""


def member_name(stored: str, flag_bits: int) -> str:
    """The real name of a ZIP member, with "/" between its parts, in NFC.

    Without the UTF-8 flag a ZIP does not state the encoding, and `zipfile` reads cp437. Korean Windows
    writes cp949 there, macOS UTF-8; bytes of Korean in cp949 are hardly ever valid UTF-8.

    Args:
        stored: As `zipfile` read it (`ZipInfo.orig_filename`).
        flag_bits: Of the member.
    """
    text = stored
    if not flag_bits & _UTF8_FLAG and not stored.isascii():
        raw = stored.encode("cp437", "surrogateescape")
        readings = []
        for encoding in ("utf-8", "cp949"):
            try:
                readings.append(normalise(raw.decode(encoding)))
            except UnicodeDecodeError:
                continue
        korean = [reading for reading in readings if _HANGUL.search(reading)]
        text = (korean or readings or [stored])[0]
    return normalise(text.split("\0", 1)[0].replace("\\", "/"))
