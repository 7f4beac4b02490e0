"""Files that others wrote or changed: whatever a reader meets in one, it says so in one line."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from landmark_folders import make_folder
from small_training import write_encoders
from tiny_trained_model import write_model

from emotion.data.audit import read_samples
from emotion.landmarks.table import load_table
from facevox.cluster.pipeline import load_pipeline
from facevox.cluster.progress import count_items, progress_text, statuses
from facevox.cluster.records import Record, load_records
from facevox.errors import UserError
from facevox.locks import OutputLock
from facevox.manifest import (
    ItemIndex,
    load_manifest,
    make_header,
    read_manifest,
    started_record,
    write_table,
)
from facevox_programs.jobs import TABLE
from lc_pytorch.datasets.transforms import create_data_transforms
from lc_pytorch.evaluation.model_card import write_model_card
from lc_pytorch.faces.embedding_store import VectorStore
from lc_pytorch.faces.face_table import read_face_table
from lc_pytorch.faces.group_files import Placement, replace_files
from lc_pytorch.models.encoders import load_face_encoder, load_voice_encoder
from lc_pytorch.models.store import load_model
from lipsync.sync.pair_task import plan_pairs

pytestmark = pytest.mark.usefixtures("one_thread")
# No large number: what such a size takes of the machine is bounded elsewhere.
ODD: list[Any] = [None, -1, 0, 0.5, True, "x", "", "\ud800", "a\0b", [], {}, [[1]], {"a": {}}, float("nan")]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value inside a JSON value, the outermost first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutations(value: Any, limit: int, seed: int = 0) -> Iterator[Any]:
    """`value` with one part of it replaced or removed, in up to `limit` ways."""
    ways = [(path, odd) for path in places(value) for odd in [*ODD, "removed"]]
    for path, odd in random.Random(seed).sample(ways, min(limit, len(ways))):
        if not path:
            yield copy.deepcopy(odd)
            continue
        changed = copy.deepcopy(value)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if odd == "removed":
            del parent[path[-1]]
        else:
            parent[path[-1]] = odd
        yield changed


def refusals(read: Callable[[], object], write: Callable[[Any], object], values: Iterator[Any]) -> list[str]:
    """The messages of the values that are refused; any other error than a UserError fails the test."""
    messages = []
    for value in values:
        write(value)
        try:
            read()
        except UserError as error:
            messages.append(str(error))
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}: for {value!r}")
    assert not [message for message in messages if "\n" in message]
    return messages


def rewrite(file: Path) -> Callable[[Any], object]:
    """A function that writes a value as the JSON of a file."""
    return lambda value: file.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    write_encoders(folder)
    return folder


@pytest.mark.parametrize("name", ["vit", "wav2vec2"])
def test_config_of_an_encoder(encoders: Path, name: str) -> None:
    file = encoders / name / "config.json"
    whole = file.read_text(encoding="utf-8")
    load = load_face_encoder if name == "vit" else load_voice_encoder
    values = [
        *mutations(json.loads(whole), 120),
        *(json.loads(whole) | {"hidden_size": size} for size in (0, -8, "16", 1e400)),
        json.loads(whole) | {"num_attention_heads": 0},
        json.loads(whole) | {"_attn_implementation": "kernels-community/flash-attn"},
        json.loads(whole) | {"quantization_config": {"quant_method": "bitsandbytes"}},
        json.loads(whole) | {"dtype": "x"},
    ]
    try:
        messages = refusals(
            lambda: (load(encoders / name), load(encoders / name, is_pretrained=False)),
            rewrite(file),
            iter(values),
        )
    finally:
        file.write_text(whole, encoding="utf-8")
    assert len(messages) > 20
    assert all("--face_model" in text or "--voice_model" in text for text in messages)


@pytest.mark.parametrize("name", ["vit", "wav2vec2"])
def test_preprocessor_of_an_encoder(encoders: Path, name: str) -> None:
    file = encoders / name / "preprocessor_config.json"
    whole = file.read_text(encoding="utf-8")
    models = {"vit": (encoders / "vit", None), "wav2vec2": (None, encoders / "wav2vec2")}[name]
    values = [*mutations(json.loads(whole), 150), json.loads(whole) | {"size": 1e400}]
    try:
        messages = refusals(lambda: create_data_transforms(*models), rewrite(file), iter(values))
    finally:
        file.write_text(whole, encoding="utf-8")
    assert len(messages) > 5


def test_config_of_a_trained_model(tmp_path: Path) -> None:
    write_model(tmp_path, [f"p{number}" for number in range(6)], 2)
    file = tmp_path / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    messages = refusals(lambda: load_model(tmp_path), rewrite(file), mutations(whole, 150))
    assert len(messages) > 20


HEADER = make_header("upper", {"case": "x"}, "upper.csv", ["file", "length"], "file")
ITEM = {
    "item": "a",
    "status": "done",
    "reason": "",
    "outputs": [["a.out", 3]],
    "rows": [{"length": 3}],
    "seconds": 0.1,
    "fingerprint": [1, 2],
    "at": 5.0,
}


@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_lines_of_a_manifest(tmp_path: Path, line: int, logged: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "manifests" / "upper.jsonl"
    file.parent.mkdir()
    lines: list[Any] = [HEADER, started_record(["a", "b"]), ITEM, {"run": {"complete": True, "inputs": "x"}}]

    def write(value: Any) -> None:
        changed = [*lines[:line], value, *lines[line + 1 :], {**ITEM, "item": "b"}]
        file.write_text("".join(json.dumps(each) + "\n" for each in changed), encoding="utf-8")

    def read() -> None:
        manifest = load_manifest(file)
        assert manifest is not None
        manifest.differences(HEADER)
        write_table(tmp_path / "upper.csv", manifest.header, ItemIndex([manifest]))
        names = [record["item"] for record in read_manifest(tmp_path, "upper")]
        assert "b" in names or line == 0  # with other columns no line is as it should be
        counts, total = count_items(tmp_path, "upper")
        assert sum(counts.values()) <= total

    refusals(read, write, mutations(lines[line], 400))
    if line == 2:
        assert "1 damaged lines; their items count as not done" in logged.text


def test_records_and_states_of_submissions(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    for name in ("20260101-000000-good-0001", "20260101-000001-bad-0002"):
        record = Record(
            folder=tmp_path / name,
            job="train",
            arguments=["--x"],
            cluster="local",
            root=tmp_path,
            output_dir="out",
            num_epochs=2,
            job_ids=["3"],
            host="elsewhere",
        )
        record.folder.mkdir()
        record.write()
    state = {"state": "done", "exit_code": 0, "host": "h", "at": 1.0, "num_starts": 1}
    history = [{"epoch": 1, "train_loss": 0.5}]
    files = {
        record.folder / "record.json": json.loads((record.folder / "record.json").read_text()),
        record.folder / "state-0.json": state,
        tmp_path / "out" / "history.json": history,
    }
    (tmp_path / "out").mkdir()
    for file, value in files.items():
        rewrite(file)(value)
    for file, value in files.items():
        for changed in [*mutations(value, 150), "half"]:
            rewrite(file)(changed)
            if changed == "half":
                file.write_text('{"state": ', encoding="utf-8")
            found = statuses(load_records(tmp_path))
            assert found[0].record.folder.name.endswith("good-0001")
            assert all(progress_text(each.record) is not None for each in found)
        rewrite(file)(value)
    assert "left out" in logged.text
    assert "counts as not started" in logged.text


@pytest.mark.parametrize(
    "text", ["[" * 5000, "{" * 5000, "a: &a [*a]", "\x00", "? x", "!!python/object:os.x {}"]
)
def test_a_pipeline_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        load_pipeline(file, TABLE, {}, {})
    assert "\n" not in str(refusal.value)


CROPS = {"crop": "a.jpg", "status": "done", "split": "train", "class": "joy", "person": "1", "burst": "1"}


@pytest.mark.parametrize("column", CROPS)
def test_a_table_of_crops_that_lacks_a_column(tmp_path: Path, column: str) -> None:
    row = {name: value for name, value in CROPS.items() if name != column}
    (tmp_path / "crops.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(UserError, match=f"crops.csv, row 2: without {column}; run preprocess"):
        list(read_samples(tmp_path / "crops.csv", "train"))


def test_a_cell_that_is_too_long_for_a_table(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text(f"face_file,confidence\na.jpg,{'9' * 200_000}\n")
    with pytest.raises(UserError, match=r"faces\.csv: not a table after line 1: field larger"):
        read_face_table(tmp_path / "faces.csv")


@pytest.mark.parametrize("plan", [7, {"a": 1}, [1], [None], ["a\0b"], ["\ud800"], [["a"]]])
def test_a_plan_of_a_grouping_that_is_none(tmp_path: Path, plan: Any) -> None:
    file = tmp_path / "out" / "manifests" / "deduplicate_faces.plan.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(plan))
    source = tmp_path / "a.jpg"
    source.write_bytes(b"x")
    placement = Placement(source, tmp_path / "out" / "a.jpg")
    folders = (tmp_path / "out", tmp_path / "out" / "best")
    with pytest.raises(UserError, match="not a list of files; remove it"):
        replace_files([placement], folders, overwrite=False, on_copied=lambda: False)
    file.write_text(json.dumps([".", "best", "old.jpg"]))  # folders stay
    folders[1].mkdir()
    (tmp_path / "out" / "old.jpg").write_bytes(b"x")
    assert replace_files([placement], folders, overwrite=False, on_copied=lambda: False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "best", "manifests"]


@pytest.mark.parametrize(
    ("size", "message"),
    [(2**31, "not a file of face vectors"), (0, "not a file"), (9, "embeddings are damaged")],
)
def test_vectors_of_another_size(tmp_path: Path, size: int, message: str) -> None:
    vectors = np.eye(2, 8, dtype=np.float32)
    for number in range(2):
        with VectorStore(tmp_path) as store:
            store.append([bytes([number]) * 32], [[1.0] * 5], vectors[number : number + 1])
    file = max(tmp_path.glob("vectors-*.bin"))
    data = bytearray(file.read_bytes()) + bytes(4)  # room for a record that is longer
    data[8:12] = size.to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(UserError, match=message), VectorStore(tmp_path) as store:
        store.vectors([bytes([number]) * 32 for number in range(2)])


@pytest.mark.parametrize("cell", ["-1", "9" * 400, "3000000000", "x"])
def test_rows_of_landmarks_that_do_not_exist(tmp_path: Path, cell: str) -> None:
    folder = make_folder(tmp_path / "landmarks", num_people=1, per_person=1)
    text = (folder / "index.csv").read_text(encoding="utf-8")
    (folder / "index.csv").write_text(text.replace("000.npy,0,", f"000.npy,{cell},", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.csv, row 2: not of an extraction"):
        load_table(folder, in_memory=True)


def test_a_shard_of_landmarks_with_half_a_header(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "landmarks", num_people=1, per_person=1)
    file = folder / "shards" / "000.npy"
    file.write_bytes(file.read_bytes().replace(b"}", b" ", 1))
    with pytest.raises(UserError, match=r"000\.npy: no shard of landmarks"):
        load_table(folder, in_memory=True)


def test_names_that_no_disk_can_have_in_a_table_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(f"video,audio\n{'x' * 5000},a.wav\n")
    (item,) = plan_pairs(tmp_path / "pairs.csv")
    assert item.path == "x" * 5000


@pytest.mark.parametrize("name", ["config.json", "history.json", "evaluation_results.json"])
def test_files_that_a_model_card_reads(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, [f"p{number}" for number in range(6)], 2)
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}
    (tmp_path / "history.json").write_text('[{"epoch": 1, "val_auc": 0.5}]')
    results = {"warnings": ["few"], "tested": {"origin": "x"}, "faces": {"auc": score}}
    (tmp_path / "evaluation_results.json").write_text(json.dumps(results))
    whole = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    refusals(lambda: write_model_card(tmp_path), rewrite(tmp_path / name), mutations(whole, 200))


def test_a_lock_with_anything_in_it_is_taken_over(tmp_path: Path) -> None:
    owner = {"token": "a", "host": "elsewhere", "pid": 1, "started": "5", "boot": "x", "namespace": "y"}
    file = tmp_path / "train.lock"
    for changed in [*mutations(owner, 60), "deep"]:
        file.write_text("[" * 100_000 if changed == "deep" else json.dumps(changed))
        with OutputLock(file, stale_after_s=-1.0):
            assert file.exists()
        assert not file.exists()
