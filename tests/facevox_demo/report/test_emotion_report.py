"""The demo's section on expressions, from files as the programs write them."""

import csv
from pathlib import Path

import numpy as np

from emotion.data.audit import audit_split, sample_of
from emotion.data.samples import Samples
from emotion.scores.report import Answers, evaluate, write_evaluation
from facevox.files import write_image, write_json
from facevox_demo.report.emotion import add_emotion
from facevox_demo.report.page import Report


def test_section_shows_scores_split_and_pictures(tmp_path: Path) -> None:
    names, rng = ("happy", "sad"), np.random.default_rng(0)
    crops = [f"validation/{names[i % 2]}/p{i % 4}_여_20_기쁨_실내_{i}-1-1.jpg" for i in range(12)]
    for crop in crops:
        write_image(tmp_path / "crops" / crop, rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    with (tmp_path / "crops" / "crops.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["status", "class", "person", "crop"])
        writer.writerows(["done", crop.split("/")[1], "p", crop] for crop in crops)
    ours = audit_split([sample_of("train", "a_여_20_기쁨_x_1-1"), sample_of("validation", crops[0])])
    leaky = audit_split([sample_of("train", crops[0]), sample_of("validation", crops[0])])
    write_json(tmp_path / "crops" / "audit.json", {"crops": ours, "aihub": leaky})
    samples = Samples(
        [tmp_path / "crops" / crop for crop in crops], crops, np.arange(12) % 2, np.eye(2)[np.arange(12) % 2],
        [f"p{i % 4}" for i in range(12)], ["female"] * 12, np.full(12, 20),
    )  # fmt: skip
    logits = np.eye(2)[np.arange(12) % 2].astype(np.float32)
    logits[0] = logits[0, ::-1]
    answers = Answers(samples, np.arange(12), logits, 1.0)
    write_evaluation(tmp_path / "models" / "evaluation", evaluate(answers, names), answers)
    write_image(tmp_path / "models" / "training" / "curves.png", np.zeros((8, 8, 3), np.uint8))
    write_json(tmp_path / "models" / "training" / "history.json", [{"epoch": 1}])
    report = Report("demo")
    scores = add_emotion(report, tmp_path)
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert scores["people"] == 4
    assert 0.9 < scores["macro_f1"] < 1
    assert "nobody of validation is in train" in page
    assert "share 1 of 1 people" in page
    assert page.count("<img") >= 2 + 3
