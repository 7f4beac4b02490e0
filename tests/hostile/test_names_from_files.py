"""Names and paths in the files that programs read: none of them leads out of a folder or becomes a command.

Each text of each format becomes a line feed with a command, a path out of the folder, an absolute path, and
what a shell would run. A reader may refuse it or take it as plain text.
"""

import contextlib
import copy
import csv
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from batch_jobs import Upper, config_of, items_of

from emotion.data.audit import read_samples
from emotion.landmarks.table import load_table
from emotion.settings import read_settings
from facevox.batch import run_batch
from facevox.cluster.pipeline import load_pipeline
from facevox.cluster.records import Record, load_records, new_folder
from facevox.cluster.resources import Resources, is_sbatch_text
from facevox.cluster.submission import Submission, script_of
from facevox.errors import UserError
from facevox.files import read_json
from facevox.manifest import find_manifests, load_manifest
from facevox.shards import merge_manifests
from facevox.spreadsheets import TableReader
from facevox_programs.jobs import TABLE
from lc_pytorch.datasets.identity_table import IdentityTable
from lc_pytorch.datasets.matched_files import iter_matched_file, write_matched_files
from lc_pytorch.datasets.splits import load_split
from lc_pytorch.evaluation.metadata import load_metadata
from lc_pytorch.faces.face_table import read_face_table
from lc_pytorch.faces.group_files import Placement, replace_files
from lc_pytorch.hq.split import load_split as load_hq_split
from lipsync.settings import load_settings
from lipsync.sync.pair_task import plan_pairs

PRECIOUS = "precious"  # a file of the user next to the folder that is worked in


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that is worked in; afterwards nothing outside of it has changed, and no command ran."""
    work = tmp_path / "above" / "work"
    work.mkdir(parents=True)
    for outside in (tmp_path, tmp_path / "above"):
        (outside / PRECIOUS).write_text("mine")
    monkeypatch.chdir(work)
    yield work
    for outside, names in ((tmp_path, {"above", PRECIOUS}), (tmp_path / "above", {"work", PRECIOUS})):
        assert set(os.listdir(outside)) == names
        assert (outside / PRECIOUS).read_text() == "mine"
    assert not list(tmp_path.rglob("*touched*"))


@pytest.fixture(autouse=True)
def srun_is_there(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit writes scripts only where it sees SLURM; nothing here runs it."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "srun").write_text("#!/bin/sh\nexit 1\n")
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def hostile_texts(folder: Path) -> list[str]:
    command = "touch touched"
    paths = [f"../{PRECIOUS}", f"../../{PRECIOUS}", str(folder.parent / PRECIOUS), "../new.csv"]
    return [
        f"x\n{command}\n",
        f"x\r{command}\r",
        f"$({command})",
        f"`{command}`",
        f"x; {command}",
        *paths,
        "a\0b",
    ]


def variants(value: Any, texts: list[str]) -> Iterator[Any]:
    """The value with each of the texts in the place of each leaf, and of each key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from ({**value, key: changed} for changed in variants(inner, texts))
            rest = {name: other for name, other in value.items() if name != key}
            yield from ({**rest, text: inner} for text in texts)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in variants(inner, texts))
    else:
        yield from texts


def table_text(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def run_script(submission: Submission, folder: Path) -> None:
    """Runs the sbatch script as SLURM would, with an srun that does nothing."""
    srun = folder / "bin" / "srun"
    if not srun.exists():
        srun.parent.mkdir()
        srun.write_text("#!/bin/sh\n")
        srun.chmod(0o755)
    environment = {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    script = script_of(submission)
    subprocess.run(["bash", "-c", script], cwd=folder, env=environment, check=True, timeout=60)
    before, _, _ = script.partition("# command")
    assert all(line.startswith("#") or not line for line in before.splitlines()), before


PEOPLE = ["anna", "bert", "carl"]
JSON_READERS: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "split.json": ({"train": [PEOPLE[0]], "val": [PEOPLE[1]], "test": [PEOPLE[2]], "seed": 1}, load_split),
    "HQ split.json": ({"vox1": {"train": PEOPLE, "val": [], "test": []}, "format": 1}, load_hq_split),
    "metadata.json": ({"id1": {"a": "b"}}, lambda file: write_matched_files(".", file, "out", 1)),
}
CSV_READERS: dict[str, tuple[dict[str, str], Callable[[Path], object]]] = {
    "groups.csv": (
        {"file": "a.jpg", "group": "1", "representative": "a.jpg", "status": "done"},
        IdentityTable,
    ),
    "faces.csv": ({"face_file": "a.jpg", "confidence": "1"}, read_face_table),
    "pairs.csv": ({"video": "a.mp4", "audio": "a.wav"}, plan_pairs),
    "people.csv": ({"id": "id1", "gender": "f", "nationality": "kr"}, load_metadata),
    "crops.csv": (
        {"crop": "a.jpg", "status": "done", "split": "training", "class": "joy", "person": "1", "burst": "1"},
        lambda file: list(read_samples(file, "training")),
    ),
    "index.csv": (
        {
            "archive": "a.zip", "member": "a.jpg", "shard": "a.npy", "row": "0", "width": "1", "height": "1",
            "label": "joy", "person": "1", "status": "done",
        },
        lambda file: load_table(file.parent, in_memory=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON_READERS)
def test_json(folder: Path, name: str) -> None:
    content, read = JSON_READERS[name]
    file = folder / "file.json"
    for changed in variants(content, hostile_texts(folder)):
        file.write_text(json.dumps(changed))
        with contextlib.suppress(UserError):
            read(file)


@pytest.mark.parametrize("name", CSV_READERS)
def test_tables(folder: Path, name: str) -> None:
    row, read = CSV_READERS[name]
    file = folder / name.split()[-1]
    for changed in variants(row, hostile_texts(folder)):
        file.write_text(table_text([changed]))
        with contextlib.suppress(UserError, OSError, KeyError):  # a missing column is another test
            read(file)


def test_matched_files(folder: Path) -> None:
    file = folder / "matched.txt"
    for text in hostile_texts(folder):
        file.write_text(f"{text}\t{text}\n")
        with contextlib.suppress(UserError):
            list(iter_matched_file(file))


def test_settings_of_the_lip_sync_programs(folder: Path, repository: Path) -> None:
    content = yaml.safe_load((repository / "lipsync" / "config.yaml").read_text(encoding="utf-8"))
    for changed in variants(content, hostile_texts(folder)[::3]):
        (folder / "config.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        with contextlib.suppress(UserError):
            load_settings(folder / "config.yaml")


def test_settings_of_the_emotion_programs(folder: Path, repository: Path) -> None:
    lines = [line for line in (repository / ".env.example").read_text("utf-8").splitlines() if "=" in line]
    for text in hostile_texts(folder)[:6]:
        for index, line in enumerate(lines):
            changed = [*lines[:index], f"{line.partition('=')[0]}={text}", *lines[index + 1 :]]
            (folder / ".env").write_text("\n".join(changed), encoding="utf-8")
            with contextlib.suppress(UserError):
                read_settings(folder / ".env", {}, {})


def test_manifests(folder: Path) -> None:
    videos, output = folder / "videos", folder / "out"
    videos.mkdir()
    for name in ("a", "b"):
        (videos / name).write_text(name)
    for index in range(2):
        run_batch(Upper(), items_of(videos), config_of(output, num_shards=2, shard_index=index))
    files = find_manifests(output, "upper")
    contents = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert {"facevox_manifest", "item", "run"} <= {key for line in contents[0] for key in line}

    def write_all(contents: list[list[Any]]) -> None:
        for file, lines in zip(files, contents, strict=True):
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (output / "manifests" / "upper.jsonl").unlink(missing_ok=True)

    for number, line in enumerate(contents[0]):
        for changed in variants(line, hostile_texts(folder)[::3]):
            edited = [[*lines[:number], changed, *lines[number + 1 :]] for lines in contents]
            write_all(edited if number == 0 else [edited[0], contents[1]])  # headers have to agree
            with contextlib.suppress(Exception):  # faults of another kind are another test's
                merge_manifests(output, "upper")
    write_all(contents)
    assert merge_manifests(output, "upper").num_rows == 2


@pytest.mark.parametrize("table", ["../x.csv", "/tmp/x.csv", "sub/x.csv", ".bashrc", "a\n.csv", "", ".."])
def test_manifest_with_a_table_elsewhere_is_refused(folder: Path, table: object) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "a").write_text("a")
    run_batch(Upper(), items_of(folder / "in"), config_of(folder / "out"))
    file = folder / "out" / "manifests" / "upper.jsonl"
    header, *rest = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps({**json.loads(header), "table": table}), *rest, ""]))
    with pytest.raises(UserError, match="its table is"):
        load_manifest(file)
    file.write_text("\n".join([json.dumps({**json.loads(header), "columns": ["file", "a\nb"]}), *rest, ""]))
    with pytest.raises(UserError, match="its columns"):
        load_manifest(file)


def test_files_of_earlier_results_are_removed_in_the_folder_only(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "a").write_text("a")
    file = folder / "out" / "manifests" / "upper.jsonl"
    for text in hostile_texts(folder)[:-1]:
        run_batch(Upper(), items_of(folder / "in"), config_of(folder / "out"))
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if "item" in line:
                line["outputs"].append([text, 4])
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "in" / "a").write_text(repr(text))
        assert run_batch(Upper(), items_of(folder / "in"), config_of(folder / "out")).done == 1


def test_plan_of_a_grouping_removes_nothing_elsewhere(folder: Path) -> None:
    out, source = folder / "out", folder / "a.jpg"
    source.write_bytes(b"x")
    folders = (out, out / "best")
    plan = out / "manifests" / "deduplicate_faces.plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps([f"../../{PRECIOUS}", str(folder.parent / PRECIOUS), "old.jpg"]))
    (out / "old.jpg").write_bytes(b"old")
    placement = Placement(source, out / "best" / "a.jpg")
    assert replace_files([placement], folders, overwrite=False, on_copied=lambda: False)
    assert not (out / "old.jpg").exists()


PIPELINE = {
    "settings": {"videos": ".", "out": "x"},
    "resources": {"cpus": 4, "time": "12:00:00", "partition": "gpu,cpu", "account": "lab", "qos": "high.1"},
    "stages": {
        "a": {"job": "extract_voices", "options": {"dataset_path": "${videos}", "output_dir": "${out}"}},
        "b-1": {
            "job": "extract_voices", "after": ["a"], "resources": {"shards": 2, "account": "lab"},
            "options": {"dataset_path": ".", "output_dir": "x"},
        },
    },
}  # fmt: skip


def test_pipelines(folder: Path) -> None:
    pytest.importorskip("submitit")
    file, num_scripts = folder / "pipeline.yaml", 0
    changes = [copy.deepcopy(PIPELINE), *variants(PIPELINE, hostile_texts(folder)[:-1:3])]
    for content in changes:
        file.write_text(yaml.safe_dump(content, allow_unicode=True))
        try:
            stages = load_pipeline(file, TABLE, {}, {})
        except UserError:
            continue
        for stage in stages:
            assert set(stage.name) <= set("ab-1")
            submission = Submission(
                request=stage.request, resources=stage.resources, root=TABLE.root, log_dir=folder / "logs",
                stage=stage.name,
            )  # fmt: skip
            if num_scripts < 2:  # the sound file: a script that can run
                run_script(submission, folder)
            before, _, _ = script_of(submission).partition("# command")
            assert "touch" not in before
            num_scripts += 1
    assert num_scripts >= 2


def test_options_of_submit(folder: Path) -> None:
    pytest.importorskip("submitit")
    request = TABLE.request("extract_voices", ["--dataset_path=.", "--output_dir=x"])
    rest = {"request": request, "root": TABLE.root}
    sound = Resources(partition="gpu,cpu-2", account="lab_1", qos="high.1")
    run_script(Submission(resources=sound, log_dir=folder / "my logs", after_ids=("17",), **rest), folder)
    for text in hostile_texts(folder):
        for name in ("partition", "account", "qos", "time", "cluster"):
            with pytest.raises(UserError, match=f"--{name}: "):
                Resources(**{name: text})
        with pytest.raises(UserError, match="stage "):
            Submission(resources=sound, log_dir=folder, stage=text, **rest)
        if not is_sbatch_text(text):
            with pytest.raises(UserError, match="--log_dir"):
                Submission(resources=sound, log_dir=folder / text, **rest)
            with pytest.raises(UserError, match="--after"):
                Submission(resources=sound, log_dir=folder, after_ids=(text,), **rest)


def test_records_of_submissions(folder: Path) -> None:
    pytest.importorskip("submitit")
    request = TABLE.request("extract_voices", ["--dataset_path=.", "--output_dir=x"])
    record = Record(
        folder=new_folder(folder, "extract_voices"), job="extract_voices", arguments=[], cluster="slurm",
        root=folder, output_dir="x", job_ids=["17_0"],
    )  # fmt: skip
    record.write()
    file = record.folder / "record.json"
    for changed in variants(read_json(file), hostile_texts(folder)):
        file.write_text(json.dumps(changed))
        with contextlib.suppress(UserError):
            after = tuple(load_records(folder))
            submission = Submission(
                request=request, resources=Resources(), root=TABLE.root, log_dir=folder, after=after
            )
            assert "touch" not in script_of(submission).partition("# command")[0]


@pytest.mark.parametrize("text", ["node[01-04]", "a100|h100", "gpu:a100:2", "afterok:1:2", "a b,c"])
def test_what_sbatch_takes_passes(text: str) -> None:
    assert is_sbatch_text(text)


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\tb", "'", '"', "`", "$", ";", "#", "é", "\x1b", "\x7f"])
def test_what_ends_or_escapes_an_sbatch_line_does_not_pass(text: str) -> None:
    assert not is_sbatch_text(text)


def test_name_with_a_nul_character_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("video,audio\nx.mp4,\ny.mp4\0,\n")
    with pytest.raises(UserError, match=r"pairs\.csv:3: not CSV: a NUL character"):
        plan_pairs(tmp_path / "pairs.csv")
    with (tmp_path / "pairs.csv").open() as file, pytest.raises(UserError, match="not a table after line 3"):
        list(TableReader(file))
