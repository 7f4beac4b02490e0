"""How well the landmark classifier names expressions: example people who are new to it, and real pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from emotion.landmarks.extraction import ExtractConfig, run_extraction
from facevox import cli
from facevox.batch import BatchConfig, BatchOptions, run_batch
from facevox_demo.example import aihub
from facevox_demo.example.aihub import write_zip
from facevox_demo.example.expressions import EXPRESSIONS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def report_of(load_script: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Trains on extracted landmarks with the program's own settings; returns the report and the split."""
    script = load_script("emotion/landmarks/train")

    def train(landmarks_dir: Path, class_names: tuple[str, ...]) -> dict[str, Any]:
        out = tmp_path / f"{len(class_names)} classes"
        folders = ("--landmarks_dir", landmarks_dir, "--save_dir", out, "--log_dir", tmp_path / "logs")
        options = (*folders, "--class_names", *class_names, "--device", "cpu")
        assert cli.run(script.main, [*map(str, options)]) == 0
        report = json.loads((out / "evaluation" / "report.json").read_text(encoding="utf-8"))
        split = json.loads((out / "split.json").read_text(encoding="utf-8"))
        found: dict[str, Any] = report | {"split": split}
        return found

    return train


@pytest.mark.slow
def test_expressions_of_example_people_who_are_new_are_named(tmp_path, report_of):
    config = aihub.AihubConfig()
    example = BatchConfig(
        output_dir=tmp_path / "example",
        program=aihub.PROGRAM,
        table=aihub.TABLE,
        columns=aihub.COLUMNS,
        item_column="person",
        settings=config.settings(),
    )
    run_batch(aihub.AihubTask(config), aihub.make_items(config), example)
    aihub.write_lists_and_archives(tmp_path / "example", config)
    landmarks = tmp_path / "landmarks"
    extract = ExtractConfig(zips=(tmp_path / "example" / "archives",), output_dir=landmarks)
    statuses = run_extraction(extract, BatchOptions(debug=True)).statuses
    num_pictures = config.num_people * len(EXPRESSIONS) * config.pictures_per_expression
    assert sum(statuses.values()) == num_pictures
    assert statuses["done"] >= 0.95 * num_pictures
    for class_names, bar in ((("neutral", "anxiety"), 0.85), (EXPRESSIONS, 0.6)):
        report = report_of(landmarks, class_names)
        split = report["split"]
        people = [split[part]["people"] for part in ("train", "validation")]
        assert sum(people) == config.num_people  # each on one side alone
        assert people[1] >= 0.1 * config.num_people
        assert report["interval_over"] == "people"
        assert report["balanced_accuracy"]["value"] >= bar, class_names


@pytest.mark.real_data
def test_happiness_is_told_from_neutral_in_press_pictures(tmp_path, real_data_dir, report_of):
    names = {"happiness": "happy", "neutral": "neutral"}
    for folder in names:
        files = sorted((real_data_dir / "emotion" / "images" / folder).glob("*.jpg"))
        assert len(files) >= 50
        write_zip(tmp_path / f"{folder}.zip", ((file.name, file.read_bytes()) for file in files), "utf-8")
    extract = ExtractConfig(
        zips=tuple(tmp_path / f"{folder}.zip" for folder in names),
        labels=tuple(names.values()),
        output_dir=tmp_path / "landmarks",
    )
    statuses = run_extraction(extract, BatchOptions(debug=True)).statuses
    assert statuses["done"] >= 0.95 * sum(statuses.values())
    report = report_of(tmp_path / "landmarks", ("neutral", "happy"))
    assert report["pictures"] >= 30
    assert report["balanced_accuracy"]["value"] >= 0.7
