"""Tables are exact by default, and with --spreadsheet_safe no text of theirs is computed by a spreadsheet."""

import csv
from pathlib import Path

import numpy as np
import pytest
from batch_jobs import Upper, config_of, items_of

from emotion.data.samples import Samples
from emotion.live.face_log import FaceLog
from emotion.live.face_tracks import Face
from emotion.scores.report import Answers, evaluate, write_evaluation
from facevox.batch import run_batch
from facevox.shards import merge_manifests
from facevox.spreadsheets import TableReader, safe_cell
from lc_pytorch.datasets.identity_table import IdentityTable
from lc_pytorch.evaluation.ranking import Ranking, write_ranking
from lc_pytorch.faces.face_table import read_face_table
from lipsync.sync.pair_task import plan_pairs

FORMULAS = ("=HYPERLINK('x')", "+1+cmd|' C'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "-x.mp4", "+")
OTHERS = ("a=b", " =1", "'a", "'", "", "한글", "'=1", "''=1", "'-x")
NUMBERS = ("-1", "-0.5", "+2", "-1e-07", "-1.5e+10", "1", "-inf", "-3.")


@pytest.mark.parametrize("text", FORMULAS)
def test_texts_that_would_be_computed_get_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == "'" + text


@pytest.mark.parametrize("value", [*NUMBERS, -1, -0.5, None, True, *OTHERS[:6]])
def test_numbers_and_other_texts_stay(value: object) -> None:
    assert safe_cell(value) is value


def cells(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


@pytest.mark.parametrize("is_safe", [False, True])
def test_tables_are_read_as_they_were_written(tmp_path: Path, is_safe: bool) -> None:
    names = [*FORMULAS, *(name for name in OTHERS if name), *NUMBERS]
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in names:
        (source / name).write_text("bad" if name == "+" else "x")
    for index in range(2):
        options = {"num_shards": 2, "shard_index": index, "spreadsheet_safe": is_safe}
        run_batch(Upper(), items_of(source), config_of(out, **options))
    merge_manifests(out, "upper", spreadsheet_safe=is_safe)
    table = out / "upper.csv"
    joined = table.read_bytes()
    # A whole run over the same folder writes the same, whatever was asked for before.
    run_batch(Upper(), items_of(source), config_of(out, spreadsheet_safe=is_safe))
    assert table.read_bytes() == joined
    header, *rows = cells(table)
    assert header == ["file", "length", "status", "reason", *(["spreadsheet_safe"] if is_safe else [])]
    texts = [cell for row in rows for cell in row]
    assert any(text in FORMULAS for text in texts) != is_safe
    assert set(NUMBERS) <= set(texts)
    with table.open(encoding="utf-8", newline="") as lines:
        read = list(TableReader(lines))
    assert sorted(row["file"] for row in read) == sorted(names)
    assert set(read[0]) == {"file", "length", "status", "reason"}


def test_programs_read_safe_tables(tmp_path: Path) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("file,group,representative,status,spreadsheet_safe\n'=a.jpg,1,'=a.jpg,done,1\n")
    assert IdentityTable(groups).lookup_for([(tmp_path / "=a.jpg", "=a.jpg")]).identity(
        tmp_path / "=a.jpg", "=a.jpg"
    ) == "=a"  # fmt: skip
    faces = tmp_path / "faces.csv"
    faces.write_text("face_file,confidence,spreadsheet_safe\n'=a.jpg,0.5,1\n'@b.jpg\n")  # a short row
    assert set(read_face_table(faces)) == {"=a.jpg", "@b.jpg"}
    pairs = tmp_path / "sync.csv"
    pairs.write_text("video,audio,spreadsheet_safe\n'-a.mp4,'=b.wav,1\n")
    assert [item.name for item in plan_pairs(pairs)] == ['["-a.mp4", "=b.wav"]']
    # Without the mark an apostrophe is the name's own.
    pairs.write_text("video,audio\n'-a.mp4,\n")
    assert [item.name for item in plan_pairs(pairs)] == ["'-a.mp4"]


def test_rankings_are_safe_too(tmp_path: Path) -> None:
    ranking = Ranking(
        files=[Path("=1.jpg"), Path("b.jpg")], similarities=[-0.25, -0.5], num_ranked=2, failures=[]
    )
    write_ranking(tmp_path / "exact.csv", ranking)
    write_ranking(tmp_path / "safe.csv", ranking, spreadsheet_safe=True)
    assert [row[2] for row in cells(tmp_path / "exact.csv")] == ["file", "=1.jpg", "b.jpg"]
    header, first, _ = cells(tmp_path / "safe.csv")
    assert (header[3:], first) == (["spreadsheet_safe"], ["1", "-0.250000", "'=1.jpg", "1"])


def test_scores_and_lists_are_safe_too(tmp_path: Path) -> None:
    answers = Answers(
        samples=Samples(
            files=[Path("=1.jpg"), Path("b.jpg")],
            names=["=1.jpg", "b.jpg"],
            labels=np.array([0, 1]),
            targets=np.eye(2, dtype=np.float32),
            people=["@p", "q"],
            genders=["f", "m"],
            ages=np.array([20, 30]),
        ),
        order=np.array([0, 1]),
        logits=np.array([[2.0, 0.0], [0.0, 2.0]], np.float32),
        temperature=1.0,
    )
    report = evaluate(answers, ["+joy", "sad"])
    for is_safe in (False, True):
        write_evaluation(tmp_path, report, answers, spreadsheet_safe=is_safe)
        header, first, _ = cells(tmp_path / "predictions.csv")
        assert header[4:] == (["'+joy", "sad", "spreadsheet_safe"] if is_safe else ["+joy", "sad"])
        exact = ["=1.jpg", "@p", "+joy", "+joy"]
        assert first[:4] == ([f"'{cell}" for cell in exact] if is_safe else exact)
        for name in ("per_class.csv", "confusion_matrix.csv"):
            assert cells(tmp_path / name)[1][0] == ("'+joy" if is_safe else "+joy")
        assert ("spreadsheet_safe" in cells(tmp_path / "slices.csv")[0]) == is_safe


def test_faces_of_a_video_are_safe_too(tmp_path: Path) -> None:
    face = Face(1, (0.0, 1.0, 2.0, 3.0), np.array([0.75, 0.25]), np.array([0.5, 0.5]))
    for is_safe in (False, True):
        log = FaceLog(["=joy", "sad"], spreadsheet_safe=is_safe)
        log.add(0, 0.0, [face])
        log.add(1, 0.04, [])
        log.write(tmp_path / "x.mp4", 8, 8, 25.0, 0.08, 1.0, has_sound=False)
        header, first, empty = cells(tmp_path / "x.csv")
        assert len(header) == len(first) == len(empty)
        assert (first[3], header[8]) == (("'=joy", "'=joy") if is_safe else ("=joy", "=joy"))
        with (tmp_path / "x.csv").open(newline="") as lines:
            assert next(iter(TableReader(lines)))["label"] == "=joy"
