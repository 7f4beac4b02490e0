"""The recipe of every evaluation program: loads the model, lists the files to test, evaluates, reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from facevox.errors import ExitCode
from facevox.signals import StopFlag
from facevox.training import distributed
from facevox.training.run_folder import run_folder
from lc_pytorch.evaluation.embedding_pass import Stopped, estimate_pass
from lc_pytorch.evaluation.metadata import load_metadata
from lc_pytorch.evaluation.model_evaluation import evaluate_model
from lc_pytorch.evaluation.options import EvaluationConfig
from lc_pytorch.evaluation.readers import MediaFiles
from lc_pytorch.evaluation.subjects import Subjects
from lc_pytorch.models.store import TrainedModel, load_model


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The people of an evaluation, and their files.

    Attributes:
        faces: The pictures.
        voices: The recordings, or the mel spectrograms.
        subjects: The people.
        split_hash: Of the split that the model was trained with; "" where it is unknown.
        notes: Lines for every output: where the identities come from, pairs left out.
        is_complete: Whether all files that a list names exist.
    """

    faces: MediaFiles
    voices: MediaFiles
    subjects: Subjects
    split_hash: str
    notes: Sequence[str]
    is_complete: bool = True


@dataclass(frozen=True)
class Report:
    """The lines that a program prints, without its name, and its exit code."""

    lines: list[str]
    exit_code: ExitCode


def run_evaluation(
    program: str,
    config: EvaluationConfig,
    list_tested: Callable[[TrainedModel], Tested],
    *,
    model_dir: str | Path,
    checkpoint: str,
    device: str,
    metadata_file: str | None,
    is_dry_run: bool,
) -> Report:
    """Evaluates a model in its folder. Every process of a group calls it; only the first one has results.

    Args:
        program: Name of the program, before the results.
        config: The settings.
        list_tested: Returns people and files for the loaded model.
        model_dir: Folder of the model.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu` or `cuda`; the evaluation runs there.
        metadata_file: Table of gender and nationality; None: none.
        is_dry_run: Estimate time and disk, and write nothing.

    Raises:
        UserError: There is no such model, or nothing to test; see `evaluate_model`.
    """
    world = distributed.init(device)
    try:
        trained = load_model(model_dir, checkpoint, world.device)
        tested = list_tested(trained)
        metadata = load_metadata(metadata_file) if metadata_file else None
        if is_dry_run:
            medias = (tested.faces, tested.voices)
            return Report(estimate_pass(trained.model, medias, config, world.device), ExitCode.DONE)
        # Its own lock: a training may run in the same folder.
        with run_folder(trained.model_dir, option="--model_dir", work="evaluation"), StopFlag() as stop:
            result = evaluate_model(
                trained,
                tested.faces,
                tested.voices,
                config,
                tested.subjects,
                split_hash=tested.split_hash,
                metadata=metadata,
                notes=tested.notes,
                stop=stop,
            )
    except Stopped:
        return Report([f"{program}: stopped; run the same command again to continue"], ExitCode.STOPPED)
    finally:
        distributed.cleanup()
    lines = []
    if world.is_main:
        files = [f"wrote {file}" for file in result.files]
        lines = [f"{program}: {result.lines[0]}", *result.lines[1:], "", *files]
    is_done = tested.is_complete and not result.num_left_out
    return Report(lines, ExitCode.DONE if is_done else ExitCode.SOME_FAILED)
