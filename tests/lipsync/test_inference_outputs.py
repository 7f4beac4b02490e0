"""inference.py where nothing can be written: a folder below a file, one that takes none, a full disk."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from talking_clips import RATE_HZ, features_of, make_talking, shifted, voice_of

from facevox import cli
from facevox.batch import Item, Outcome
from facevox.media import read_audio, write_wav
from lipsync import inference
from lipsync.inference import LipSyncInference
from lipsync.sync.pair_task import PairTask


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture(autouse=True)
def looked_at_once(monkeypatch: pytest.MonkeyPatch, talking: tuple[Path, ...]) -> None:
    """Faces are followed once a session: what is tested here comes after them."""
    from dataclasses import replace

    from lipsync.clips.sounds import sound_features

    def read_clip(self: LipSyncInference, video: Any, audio: Any = None, **_: Any) -> Any:
        return replace(features_of(talking[0]), sound=sound_features(read_audio(audio or video)))

    monkeypatch.setattr(LipSyncInference, "read_clip", read_clip)


def run(*arguments: object) -> int:
    return cli.run(inference.main, [str(argument) for argument in arguments])


def check_one_line(capsys: pytest.CaptureFixture[str], words: str) -> None:
    error = capsys.readouterr().err
    errors = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, error
    assert "Traceback" not in error
    assert "fault of facevox" not in error
    assert words in errors[0]


@pytest.fixture(params=["below a file", "/proc/none", "full"])
def output(request: pytest.FixtureRequest, tmp_path: Path, fill_disk: Callable[[Path], None]) -> Path:
    """A folder in which nothing can be written."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    if request.param == "full":
        fill_disk(tmp_path / "out")
        return tmp_path / "out"
    return tmp_path / "file" / "out" if request.param == "below a file" else Path(request.param)


def words_of(output: Path) -> str:
    return "No space left on device" if output.name == "out" and output.parent.is_dir() else str(output)


@pytest.mark.parametrize("way", ["measured", "known", "plot", "batch"])
def test_output_that_cannot_be_written_is_one_line(
    talking: tuple[Path, ...], tmp_path: Path, output: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = tmp_path / "late.wav"
    write_wav(sound, shifted(voice_of(talking[0]), -200), RATE_HZ)
    (tmp_path / "pairs.csv").write_text(f"video,audio\n{talking[0]},{sound}\n", encoding="utf-8")
    one = ("--video", talking[0], "--audio", sound)
    options: dict[str, tuple[object, ...]] = {
        "measured": (*one, "--output", output / "x.mp4"),
        "known": (*one, "--output", output / "x.mp4", "--offset_ms", "-200"),
        "plot": (*one, "--plot", output / "x.png"),
        "batch": ("--batch", tmp_path / "pairs.csv", "--output_dir", output, "--workers", "0"),
    }
    assert run(*options[way]) == 2
    check_one_line(capsys, words_of(output))
    if output.is_dir():
        assert not [path for path in output.rglob("*.*") if path.suffix in (".mp4", ".png", ".json", ".tmp")]


def test_second_batch_into_the_folder_is_refused_and_the_first_goes_on(
    talking: tuple[Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(talking[0], tmp_path / "a b.mp4")
    (tmp_path / "pairs.csv").write_text("video\na b.mp4\n", encoding="utf-8")
    options = ("--batch", tmp_path / "pairs.csv", "--output_dir", tmp_path / "out")
    process, codes = PairTask.process, []

    def meanwhile(self: PairTask, item: Item) -> Outcome:
        if not codes:
            codes.append(run(*options, "--workers", "0"))
        return process(self, item)

    monkeypatch.setattr(PairTask, "process", meanwhile)
    assert run(*options, "--debug") == 0
    assert codes == [2]
    check_one_line(capsys, "another run is writing there")
    assert len(list((tmp_path / "out").glob("*.json"))) == 1
