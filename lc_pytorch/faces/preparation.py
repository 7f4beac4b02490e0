"""Extraction and deduplication of faces, one after the other, into three folders below one."""

import logging
from collections.abc import Sequence
from pathlib import Path

from facevox.errors import ExitCode, UserError
from lc_pytorch.faces.deduplicator import deduplicate
from lc_pytorch.faces.embedders import find_model
from lc_pytorch.faces.extractor import extract_faces
from lc_pytorch.faces.options import DedupeConfig, FaceConfig

logger = logging.getLogger(__name__)
FACES_FOLDER = "extracted_faces"
DEDUPE_FOLDER = "deduped_faces"
REPRESENTATIVE_FOLDER = "representative_faces"


def result_folders(base_dir: str | Path) -> dict[str, Path]:
    """The three folders below `base_dir`, by the names that `DedupeConfig` has for them."""
    base = Path(base_dir)
    return {
        "faces_dir": base / FACES_FOLDER,
        "dedupe_dir": base / DEDUPE_FOLDER,
        "representative_dir": base / REPRESENTATIVE_FOLDER,
    }


def prepare_faces(
    faces: FaceConfig, config: DedupeConfig, dataset_path: str | Path, video_extensions: Sequence[str]
) -> ExitCode:
    """Extracts the faces of videos and groups them by person; returns the exit code of both.

    What the second step needs is checked before the first one starts. A shard only extracts, because people
    are grouped over all faces; the run without shards then finds the videos done, and groups.

    Args:
        faces: How faces are extracted.
        config: How they are grouped, the folders of both steps, and the options of the batch.
        dataset_path: Folder of videos.
        video_extensions: Patterns of their names.

    Raises:
        UserError: There are no videos, or packages, weights or a threshold are missing.
    """
    model = find_model(config.model_name, preprocessing=config.onnx_preprocessing)
    if config.threshold is None and model.default_threshold is None:
        raise UserError(f"--threshold is needed with --model_name {config.model_name}: none is known for it")
    extracted = extract_faces(faces, dataset_path, config.faces_dir, video_extensions, config)
    if extracted.stopped:
        return ExitCode.STOPPED
    if config.num_shards > 1 and not config.dry_run:
        logger.info(
            f"  shard {config.shard_index} of {config.num_shards} is extracted; when all are, run the same "
            "command once with --num_shards 1 to group"
        )
        return extracted.exit_code
    if config.dry_run and not any(config.faces_dir.rglob("*.jpg")):
        logger.info("deduplicate_faces: nothing to count before the faces are extracted")
        return extracted.exit_code
    if not config.dry_run and extracted.is_empty:
        logger.info("deduplicate_faces: left out, because no video gave a face")
        if config.dedupe_dir.exists():
            logger.info(
                f"  the people in {config.dedupe_dir} and {config.representative_dir} are of an earlier run"
            )
        return extracted.exit_code
    grouped = deduplicate(config)
    if grouped.stopped:
        return ExitCode.STOPPED
    return max(extracted.exit_code, grouped.exit_code)
