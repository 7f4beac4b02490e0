"""Who falls into which part, program by program: a seed gives in each version what it gave before."""

from pathlib import Path

from emotion.data.split import validation_people
from lc_pytorch.datasets.splits import split_identities
from lc_pytorch.hq.split import make_split
from lipsync.network.split import split_clips
from lipsync.network.takes import ClipEntry

PEOPLE = ["anna", "Bob Ross", "김민수", "d", "eve", "frank", "g_h", "ian", "jo", "kim", "lee", "max"]
# Drawn by the code of before `facevox.splits` was made.
FACE_VOICE = (
    (("anna", "jo"), ("frank", "kim", "max")),
    (("d", "max"), ("anna", "frank", "김민수")),
    "bf7dc68b7e174f57d3779fb0d903c557159ee0c203d3b48a2c52cb8de2a135e2",
)
HQ = {
    "vox1": {"train": ("d", "eve", "frank", "g_h", "김민수"), "val": ("ian",), "test": ("Bob Ross", "anna")},
    "vox2": {"train": ("frank", "g_h", "jo", "kim", "lee"), "val": ("ian", "max"), "test": ()},
}
LIPSYNC = (
    [
        ["d 0.mp4", "g_h 0.mp4", "ian 0.mp4", "ian 1.mp4", "jo 0.mp4", "jo 2.mp4"],
        ["Bob Ross 0.mp4", "Bob Ross 1.mp4", "max 0.mp4", "max 1.mp4", "max 2.mp4"],
    ],
    "f907d0328d7010b09952ecbb372f50f403f37086c79c01357f31c11bfab2027f",
)
EMOTION = (
    {"max", "frank", "김민수"},
    {"p211", "p119", "p267", "p187", "p74", "p14", "p266", "p79", "p226", "p68", "p209", "p48"},
)


def test_face_voice_split_is_frozen() -> None:
    genders = {name: "f" if place % 3 else "m" for place, name in enumerate(PEOPLE)}
    plain = split_identities(PEOPLE, test_size=0.25, val_size=0.2, seed=3)
    even = split_identities(PEOPLE, test_size=0.25, val_size=0.2, seed=0, strata=genders)
    assert (plain.val, plain.test) == FACE_VOICE[0]
    assert (even.val, even.test) == FACE_VOICE[1]
    assert even.hash == FACE_VOICE[2]


def test_hq_split_is_frozen() -> None:
    genders = {name: "f" if place % 2 else "m" for place, name in enumerate(PEOPLE)}
    split = make_split(
        {"vox1": PEOPLE[:8], "vox2": PEOPLE[5:]}, genders, val_ratio=0.2, test_ratio=0.2, seed=1
    )
    assert split.names == HQ


def test_lipsync_split_is_frozen() -> None:
    clips = [
        ClipEntry(f"{name} {number}.mp4", Path("x.npz"), name if place % 4 else "")
        for place, name in enumerate(PEOPLE)
        for number in range(1 + place % 3)
    ]
    split = split_clips(clips, (6, 2, 2), 5)
    assert [[entry.name for entry in part] for part in (split.validation, split.test)] == LIPSYNC[0]
    assert split.hash == LIPSYNC[1]


def test_emotion_splits_are_frozen() -> None:
    """Crops and landmarks alike."""
    assert validation_people(PEOPLE, 0, 0.25) == EMOTION[0]
    assert validation_people([f"p{number}" for number in range(300)], 2, 0.03) == EMOTION[1]
