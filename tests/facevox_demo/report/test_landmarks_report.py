"""The landmark part of the demo's report, on a folder that the programs made."""

import numpy as np
import pytest
from landmark_folders import make_folder

from emotion.landmarks.plots import mean_faces
from facevox import cli
from facevox_demo.report import landmarks as landmarks_report
from facevox_demo.report.page import Report


def test_report_shows_faces_curves_and_scores(tmp_path, load_script, monkeypatch, one_thread):
    monkeypatch.setattr(landmarks_report, "CLASS_NAMES", ("neutral", "anxiety", "happy"))
    make_folder(tmp_path / landmarks_report.LANDMARKS_DIR)
    program, *arguments = landmarks_report.train_arguments(tmp_path, seed=0)
    script = load_script(program.removesuffix(".py"))
    assert cli.run(script.main, [*arguments, "--num_epochs", "4", "--batch_size", "16"]) == 0
    report = Report("demo", "x")
    found = landmarks_report.add_landmarks(report, tmp_path)
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Expressions from landmarks" in page
    assert page.count("<img") == 4
    assert 0 <= found["low"] <= found["balanced_accuracy"] <= found["high"] <= 1
    assert found["chance"] == pytest.approx(1 / 3, abs=1e-4)


def test_commands_of_the_demo_name_options_that_exist(tmp_path, load_script):
    for words in (
        landmarks_report.extract_arguments(tmp_path / "a", tmp_path, 2),
        landmarks_report.train_arguments(tmp_path, 0),
    ):
        load_script(words[0].removesuffix(".py")).get_args_parser().parse_args(words[1:])


def test_mean_faces_are_those_of_a_plain_loop():
    faces = np.random.default_rng(0).random((6, 478, 3))
    labels = ["a", "b", "a", "b", "b", "a"]
    means = mean_faces(faces, labels, ["b", "a"])
    assert np.allclose(means[0], sum(faces[k] for k in (1, 3, 4)) / 3)
    assert np.allclose(means[1], sum(faces[k] for k in (0, 2, 5)) / 3)
