"""Face extraction as an array of four tasks over 200 videos; one is killed and run again alone."""

import csv
import itertools
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from real_slurm import wait_until

from facevox.cluster.progress import count_items
from facevox.manifest import load_manifest, manifest_file, read_manifest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
NUM_VIDEOS = 200
SMALL = ("--cpus-per-task=1", "--mem-per-cpu=1G", "--time=10")


@pytest.fixture(scope="module")
def videos(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 names, which lead to the example videos."""
    folder = tmp_path_factory.mktemp("videos")
    clips = itertools.cycle(sorted((people / "videos").rglob("*.mp4")))
    for number, clip in zip(range(NUM_VIDEOS), clips, strict=False):
        name = folder / f"part {number % 3}" / f"vid_{number:03}.mp4"
        name.parent.mkdir(exist_ok=True)
        os.link(clip, name)
    return folder


def test_killed_task_is_run_again_alone_and_every_video_is_there_once(
    jobs: Any, videos: Path, tmp_path: Path, load_script: Any
) -> None:
    from facevox import cli

    out = tmp_path / "faces"
    variables = {"DATA_DIR": str(videos), "SAVE_DIR": str(out), "DETECTOR": "opencv"}
    array = jobs.submit("slurm/extract_faces.sbatch", options=SMALL, **variables)
    shard = manifest_file(out, "extract_faces", 2, 4)
    wait_until(lambda: shard.exists() and shard.read_bytes().count(b"\n") > 4, jobs.log(), 120)
    jobs.slurm.signal_work("extract_faces.py", signal.SIGKILL, SLURM_ARRAY_TASK_ID="2")
    wait_until(lambda: not jobs.slurm.ask("squeue", "--noheader"), "end of the array", 120)
    assert jobs.states(f"{array}_2") == {"FAILED"}, jobs.log()
    assert [jobs.states(f"{array}_{task}") for task in (0, 1, 3)] == [{"COMPLETED"}] * 3, jobs.log()
    killed = load_manifest(shard)
    assert killed is not None
    assert not killed.is_complete
    assert 0 < len(killed.offsets) < NUM_VIDEOS // 4

    again = jobs.submit("slurm/extract_faces.sbatch", options=(*SMALL, "--array=2"), **variables)
    jobs.wait(again)
    assert cli.run(load_script("preprocessing/merge_manifests").main, ["--output_dir", str(out)]) == 0
    with (out / "faces.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.mp4"))
    assert sorted(row["video"] for row in rows) == expected
    assert Counter(row["status"] for row in rows) == {"done": NUM_VIDEOS}
    assert [record["item"] for record in read_manifest(out, "extract_faces")] == expected
    assert count_items(out, "extract_faces") == ({"done": NUM_VIDEOS, "failed": 0}, NUM_VIDEOS)


def test_part_of_an_array_whose_whole_nobody_knows_is_refused_in_one_line(
    jobs: Any, videos: Path, tmp_path: Path
) -> None:
    variables = {"DATA_DIR": str(videos), "SAVE_DIR": str(tmp_path / "faces")}
    job = jobs.submit("slurm/extract_faces.sbatch", options=(*SMALL, "--array=2"), **variables)
    jobs.wait(job, "FAILED")
    (line,) = jobs.log(job).splitlines()
    assert "NUM_SHARDS" in line
