"""What AIHub's names say, in every encoding in which they come."""

import unicodedata

import pytest

from emotion.data.aihub.names import emotion_in_name, emotion_of, member_name, parse_picture_name, part_of

NAME = "[원천]EMOIMG_기쁨_TRAIN_01/ab12_여_20_슬픔_도심 환경_20210128-001-002.jpg"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_picture_name_tells_person_gender_age_emotion_and_upload(form):
    parsed = parse_picture_name(unicodedata.normalize(form, f"folder/{NAME}"))
    assert parsed is not None
    assert (parsed.person, parsed.gender, parsed.age, parsed.emotion) == ("ab12", "female", 20, "sad")
    assert parsed.burst == "ab12_20210128"


def test_background_with_underscores_leaves_the_other_fields_alone():
    parsed = parse_picture_name("ab_남_60_당황_집_안_방_77-3.JPEG")
    assert parsed is not None
    assert (parsed.person, parsed.age, parsed.emotion, parsed.burst) == ("ab", 60, "embarrassed", "ab_77")


@pytest.mark.parametrize("name", ["IMG_0001.jpg", "", ".jpg", "_남_20_기쁨_집_1.jpg", "a_b_c_d.jpg"])
def test_name_without_a_person_is_none(name):
    assert parse_picture_name(name) is None


def test_odd_fields_are_left_open():
    parsed = parse_picture_name("p_x_이십_환희_집_1.jpg")
    assert parsed is not None
    assert (parsed.gender, parsed.age, parsed.emotion) == ("", -1, "")


def test_all_emotions_have_their_english_names():
    korean = ["기쁨", "슬픔", "중립", "당황", "불안", "분노", "상처", "알수없음", "알 수 없음", " 기쁨 "]
    english = [
        "happy",
        "sad",
        "neutral",
        "embarrassed",
        "anxiety",
        "anger",
        "hurt",
        "unknown",
        "unknown",
        "happy",
    ]
    assert [emotion_of(word) for word in korean] == english
    assert [emotion_of(word) for word in ("happy", "행복", "", None, 3)] == ["happy", "", "", "", ""]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("092.데이터/01.데이터/1.Training/원천데이터/x.jpg", "train"),
        ("092.데이터/01.데이터/2.Validation/라벨링데이터/x.jpg", "validation"),
        ("[원천]EMOIMG_기쁨_TRAIN_01.zip/x.jpg", "train"),
        ("[원천]EMOIMG_기쁨_VALID.zip/x.jpg", "validation"),
        ("img_emotion_validation_data(기쁨).json", "validation"),
        ("dataset_crop/train/happy/x.jpg", "train"),
        ("val/x.jpg", "validation"),
        ("test/x.jpg", "test"),
        ("constrained/validity/x_train_1.jpg", ""),
    ],
)
def test_part_is_read_from_folders_and_archive_names(path, part):
    assert part_of(path) == part


def test_archive_and_json_names_tell_the_emotion():
    assert emotion_in_name("Training/[원천]EMOIMG_중립_TRAIN_01.zip") == "neutral"
    assert emotion_in_name(unicodedata.normalize("NFD", "img_emotion_training_data(기쁨).json")) == "happy"
    assert emotion_in_name("EMOIMG_TRAIN.zip") == ""


@pytest.mark.parametrize("encoding", ["cp949", "utf-8"])
def test_member_name_without_the_flag_is_read_in_its_own_encoding(encoding):
    for text in (NAME, unicodedata.normalize("NFD", NAME)):
        if encoding == "cp949" and text != NAME:
            continue  # cp949 has no letters apart from syllables
        assert member_name(text.encode(encoding).decode("cp437"), 0) == NAME


def test_every_emotion_and_gender_survives_cp949():
    for word in ("기쁨", "당황", "분노", "불안", "상처", "슬픔", "중립", "남", "여", "찬 힘"):
        assert member_name(word.encode("cp949").decode("cp437"), 0) == word


def test_member_name_with_the_flag_and_plain_ones_stay():
    assert member_name(unicodedata.normalize("NFD", NAME), 0x800) == NAME
    assert member_name("a\\b.jpg", 0) == "a/b.jpg"
    assert member_name("café.jpg", 0) == "café.jpg"  # real cp437: neither UTF-8 nor Korean
