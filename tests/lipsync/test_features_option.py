"""`--features numpy|librosa` of the programs that prepare, train and score: equal results, and provenance."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import librosa.feature
import pytest
from program_help import REPOSITORY
from talking_clips import make_talking

from facevox import cli
from lipsync import data_processing, inference, realtime, train
from lipsync.clips.clip_files import load_clip
from lipsync.settings import load_settings

SHORT = ("--set", "data.max_duration_s=3")


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture
def spectra(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many mel spectra librosa was asked for."""
    counts: Counter[str] = Counter()
    plain = librosa.feature.melspectrogram

    def counted(**options: Any) -> Any:
        counts["librosa"] += 1
        return plain(**options)

    monkeypatch.setattr(librosa.feature, "melspectrogram", counted)
    return counts


@pytest.mark.parametrize("program", [data_processing, train, inference, realtime])
def test_option_is_short_for_its_setting_and_the_last_one_counts(program: Any, capsys) -> None:
    def features(*words: str) -> str:
        args = program.get_args_parser().parse_args(words)
        return load_settings(args.config, args.overrides).audio.features

    assert features() == features("--features", "numpy") == "numpy"
    assert features("--features", "librosa") == features("--set", "audio.features=librosa") == "librosa"
    assert features("--set", "audio.features=librosa", "--features", "numpy") == "numpy"
    assert features("--features", "numpy", "--set", "audio.features=librosa") == "librosa"
    assert cli.run(program.main, ["--features", "torch"]) == 2
    assert "argument --features: 'torch' is not one of numpy, librosa" in capsys.readouterr().err


@pytest.mark.parametrize("program", [inference, pytest.param(realtime, marks=pytest.mark.slow)])
def test_scores_by_librosa_are_the_same(
    program: Any, talking: tuple[Path, ...], spectra: Counter[str], capsys
) -> None:
    words = ["--video", str(talking[0]), "--json"]
    words += ["--max_duration_s", "5"] if program is realtime else SHORT
    assert cli.run(program.main, words) == 0
    by_numpy = capsys.readouterr().out
    assert spectra["librosa"] == 0
    assert cli.run(program.main, [*words, "--features", "librosa"]) == 0
    assert json.loads(by_numpy.splitlines()[0])["offset_ms"] is not None
    assert capsys.readouterr().out == by_numpy
    assert spectra["librosa"] > 0


def test_clips_record_their_library_and_a_folder_may_hold_both(
    talking: tuple[Path, ...], tmp_path: Path, spectra: Counter[str], capsys
) -> None:
    videos, output = tmp_path / "v", tmp_path / "out"
    settings = [
        *("--set", f"paths.videos_dir={videos}", "--set", f"paths.processed_dir={output}"),
        *("--set", f"paths.audios_dir={tmp_path / 'none'}", "--debug", *SHORT),
    ]
    videos.mkdir()
    (videos / "a.mp4").symlink_to(talking[0])
    assert cli.run(data_processing.main, settings) == 0
    (videos / "b.mp4").symlink_to(talking[0])
    capsys.readouterr()
    assert cli.run(data_processing.main, [*settings, "--features", "librosa"]) == 0
    assert "1 done, 1 skipped" in capsys.readouterr().out
    assert spectra["librosa"] > 0
    (one, of_one), (other, of_other) = (load_clip(output / f"{name}.npz") for name in "ab")
    assert (of_one["features"], of_other["features"]) == ("numpy", "librosa")
    # Half precision: a value between two steps may go to either.
    assert abs(one.sound.log_mel - other.sound.log_mel).max() <= 2**-4
    assert (one.sound.log_mel == other.sound.log_mel).mean() > 0.99


@pytest.mark.parametrize("program", [data_processing, train, inference, realtime])
def test_librosa_that_is_not_installed_is_one_line_before_the_work(
    program: Any, talking: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "librosa.feature", None)
    monkeypatch.chdir(tmp_path)
    words = ["--set", f"paths.videos_dir={talking[0].parent}"]
    if program in (inference, realtime):
        words = ["--video", str(talking[0])]
    assert cli.run(program.main, [*words, "--features", "librosa"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --features librosa (audio.features): ")
    assert "pip install librosa" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.npz"))


def test_score_by_numpy_imports_no_librosa(talking: tuple[Path, ...]) -> None:
    code = (
        "import sys; from facevox import cli; from lipsync import inference; code = cli.run(inference.main); "
        "print({'librosa', 'numba', 'llvmlite', 'sklearn'} & set(sys.modules), code, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--video", str(talking[0]), *SHORT],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "set() 0"
