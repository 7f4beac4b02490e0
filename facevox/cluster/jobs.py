"""The programs that can be submitted, and what a cluster has to know about each."""

import argparse
import contextlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from facevox.errors import ExitCode, UserError

# One process; one for each GPU; one for each node, which takes all its GPUs.
ONE, PER_GPU, PER_NODE = "one", "per GPU", "per node"
# How the parts of a sharded job come together: their manifests are merged; or the program runs once more
# without shards, which takes over what they have done.
MERGE, RUN_AGAIN = "merge", "run again"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program as a cluster sees it.

    Attributes:
        program: Its file, from the root of the repository.
        processes: ONE, PER_GPU or PER_NODE.
        join: MERGE or RUN_AGAIN for programs that take --num_shards; "" for others.
        inputs: Options that name files or folders which must be there before it starts.
        output: The option whose folder it writes, manifests and all, or what finds that folder.
        is_some_failed_done: Exit code 1 says that a few items failed, which must not end what comes after.
    """

    program: str
    processes: str = ONE
    join: str = ""
    inputs: tuple[str, ...] = ()
    output: "str | Callable[[Request], Path]" = "output_dir"
    is_some_failed_done: bool = True


def _mels_folder(request: "Request") -> Path:
    return Path(request.parsed.output_dir or request.parsed.vox_dir)


def _lipsync_folder(key: str) -> "Callable[[Request], Path]":
    """What finds the folder that the key of `paths` names in the settings of a lip-sync program."""

    def find(request: "Request") -> Path:
        file, overrides = request.parsed.config, request.parsed.overrides
        settings = request.module.load_settings(None if file is None else request.root / file, overrides)
        return Path(getattr(settings.paths, key))

    return find


def _emotion_folder(name: str) -> "Callable[[Request], Path]":
    """What finds the folder of an emotion program: its option, else the environment or .env."""

    def find(request: "Request") -> Path:
        given = getattr(request.parsed, name)
        if given is not None:
            return Path(given.strip()).expanduser()
        return Path(getattr(request.module.load_settings(request.parsed), name))

    return find


def _crops_folder(request: "Request") -> Path:
    """Table and manifest of the crops lie beside the two folders."""
    return _emotion_folder("data_dir_train")(request).parent


_FOLDERS = ("image_folder", "audio_folder", "identity_csv")
JOBS: dict[str, Job] = {
    "extract_faces": Job(
        program="scripts/preprocessing/extract_faces.py", join=MERGE, inputs=("dataset_path",)
    ),
    "extract_voices": Job(
        program="scripts/preprocessing/extract_voices.py", join=MERGE, inputs=("dataset_path",)
    ),
    "deduplicate_faces": Job(
        program="scripts/preprocessing/deduplicate_faces.py",
        join=RUN_AGAIN,
        inputs=("faces_dir",),
        output="dedupe_dir",
    ),
    "prepare_faces": Job(
        program="scripts/preprocessing/prepare_faces.py",
        join=RUN_AGAIN,
        inputs=("dataset_path",),
        output="output_base_dir",
    ),
    "create_matched_file": Job(
        program="scripts/preprocessing/create_matched_file.py",
        inputs=("dataset_path", "meta_path"),
        output="output",
    ),
    "merge_manifests": Job(program="scripts/preprocessing/merge_manifests.py", inputs=("output_dir",)),
    "train_face_voice": Job(
        program="scripts/training/train_face_voice.py",
        processes=PER_GPU,
        inputs=_FOLDERS,
        output="save_dir",
        is_some_failed_done=False,
    ),
    "train_face_voice_from_matched_file": Job(
        program="scripts/training/train_face_voice_from_matched_file.py",
        processes=PER_GPU,
        inputs=("matched_file", "identity_csv"),
        output="save_dir",
        is_some_failed_done=False,
    ),
    "evaluate": Job(
        program="scripts/evaluation/evaluate_face_voice.py",
        processes=PER_GPU,
        inputs=(*_FOLDERS, "matched_file", "metadata", "model_dir"),
        output="model_dir",
    ),
    "create_hq_split": Job(
        program="scripts/hq/create_hq_voxceleb_split.py",
        inputs=("vox_dir",),
        output="vox_dir",
        is_some_failed_done=False,
    ),
    "convert_mels": Job(
        program="scripts/hq/convert_mels.py", join=MERGE, inputs=("vox_dir",), output=_mels_folder
    ),
    "train_hq": Job(
        program="scripts/hq/train_hq_voxceleb.py",
        processes=PER_GPU,
        inputs=("split_json_path", "converted_dir"),
        output="save_dir",
        is_some_failed_done=False,
    ),
    "evaluate_hq": Job(
        program="scripts/hq/evaluate_hq_voxceleb.py",
        processes=PER_GPU,
        inputs=("split_json_path", "converted_dir", "metadata", "model_dir"),
        output="model_dir",
    ),
    "process_lipsync": Job(
        program="lipsync/data_processing.py",
        join=MERGE,
        inputs=("config",),
        output=_lipsync_folder("processed_dir"),
    ),
    "train_lipsync": Job(
        program="lipsync/train.py",
        processes=PER_GPU,
        inputs=("config",),
        output=_lipsync_folder("checkpoint_dir"),
        is_some_failed_done=False,
    ),
    "preprocess_emotion": Job(
        program="emotion/preprocess.py",
        join=RUN_AGAIN,  # which writes the audit of the split too
        inputs=("data_dir_raw",),
        output=_crops_folder,
    ),
    "train_emotion": Job(
        program="emotion/main.py",
        processes=PER_NODE,
        inputs=("data_dir_train", "data_dir_val"),
        output=_emotion_folder("model_dir"),
        is_some_failed_done=True,  # trained and evaluated without pictures that could not be read
    ),
    "extract_landmarks": Job(program="emotion/landmarks/extract.py", join=MERGE, inputs=("zips",)),
    "train_landmarks": Job(
        program="emotion/landmarks/train.py",
        processes=PER_GPU,
        inputs=("zips", "landmarks_dir"),
        output="save_dir",
        is_some_failed_done=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job with its options, checked against the program's own parser.

    Attributes:
        name: A key of JOBS.
        arguments: The options, as a command line has them.
        root: The repository, from which relative paths count.
        module: The program.
        parser: Of the program.
        parsed: What it made of them.
    """

    name: str
    arguments: tuple[str, ...]
    root: Path
    module: ModuleType
    parser: argparse.ArgumentParser
    parsed: argparse.Namespace

    @property
    def job(self) -> Job:
        """What the cluster knows about the program."""
        return JOBS[self.name]

    def takes(self, option: str) -> bool:
        """Whether the program has `--option`."""
        return f"--{option}" in self.parser._option_string_actions

    @property
    def output_dir(self) -> str:
        """The folder that it writes into, relative to the repository or absolute.

        Raises:
            UserError: It is for the program's settings to say, and they are missing or wrong.
        """
        if not isinstance(self.job.output, str):
            return str(self.job.output(self))
        return str(getattr(self.parsed, self.job.output, None) or "")

    def command(self, *, cpus: int | None = None, shard: tuple[int, int] = (0, 1)) -> list[str]:
        """The program's file and its arguments.

        Args:
            cpus: Cores that the job has; where the program asks for worker processes and none are given,
                it gets so many.
            shard: (index, number of shards).
        """
        arguments = list(self.arguments)
        is_given = any(word.split("=", 1)[0] == "--workers" for word in arguments)
        if cpus and self.takes("workers") and not is_given:
            arguments.append(f"--workers={cpus}")
        index, num_shards = shard
        if self.takes("num_shards"):
            # Said always: the programs would otherwise count shards by variables of an array.
            arguments += [f"--num_shards={num_shards}", f"--shard_index={index}"]
        return [self.job.program, *arguments]

    def join_request(self) -> "Request":
        """What joins the shards of this job.

        Raises:
            UserError: It cannot be cut into shards.
        """
        if self.job.join == RUN_AGAIN:
            return self
        if self.job.join != MERGE:
            raise UserError(f"--shards: {self.name} cannot be cut up; these can: {' '.join(sharded_jobs())}")
        return make_request("merge_manifests", [f"--output_dir={self.output_dir}"], self.root, is_later=True)


def sharded_jobs() -> list[str]:
    """The jobs that can be cut into shards."""
    return [name for name, job in JOBS.items() if job.join]


def make_request(name: str, arguments: Sequence[str], root: Path, *, is_later: bool = False) -> Request:
    """Checks a job and its options by the program's own parser, and that what it reads is there.

    Args:
        name: A key of JOBS.
        arguments: Options of the program.
        root: The repository, from which relative paths count.
        is_later: Other jobs come first, which may make what it reads.

    Raises:
        UserError: No such job or option, a value that the program refuses, an input that is missing.
        SystemExit: `--help` was among the options, and shown.
    """
    if name not in JOBS:
        raise UserError(f"no job {name!r}; the jobs are: {' '.join(JOBS)}")
    module = load_program(name, root)
    parser: argparse.ArgumentParser = module.get_args_parser()
    parser.prog = name
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = parser.parse_args(list(arguments))
    except SystemExit as stop:
        if stop.code in (None, ExitCode.DONE):
            raise
        raise UserError(said.getvalue().strip().removeprefix(f"{parser.prog}: error: ")) from None
    request = Request(
        name=name, arguments=tuple(arguments), root=root, module=module, parser=parser, parsed=parsed
    )
    if not is_later:
        faults = [
            f"--{option} {value}: there is no such file or folder"
            for option in request.job.inputs
            for value in _paths(getattr(parsed, option, None))
            if not (root / value).exists()
        ]
        if faults:
            raise UserError(f"{name}: {'; '.join(faults)} (relative paths count from {root})")
    return request


def load_program(name: str, root: Path) -> ModuleType:
    """The program of a job, loaded but not run.

    Raises:
        UserError: The program is not below `root`.
    """
    file = root / JOBS[name].program
    if not file.is_file():
        raise UserError(f"{file}: there is no such program; start from the root of the repository")
    spec = importlib.util.spec_from_file_location(f"job_{name}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _paths(value: Any) -> list[str]:
    """The paths in the value of an option: none, one, or several."""
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
