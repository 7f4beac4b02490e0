"""Cut the faces out of AIHub's pictures: training and validation folders with nobody in both.

    python emotion/preprocess.py                                  # all settings from .env
    python emotion/preprocess.py --data_dir_raw /data/092 --workers 8
    python emotion/preprocess.py --audit dataset_crop             # who is on both sides of a given split?

Reads DATA_DIR_RAW (AIHub's folders, its original ZIPs, or both), labels each picture by the majority of its
three annotators, and writes `DATA_DIR_TRAIN/<class>/` and `DATA_DIR_VAL/<class>/`; beside the two folders
`crops.csv` (a row for each picture: labels, votes, box, status, reason), `audit.json` (people, uploads,
classes, AIHub's own parts) and `manifests/emotion_preprocess.jsonl`. Exit codes: 0 done; 1 more pictures
failed than --max_failed allows, not one gave a face, or the audited split has people on both sides; 2 bad
usage or input; 75 stopped by a signal (run the same command again to continue). After shards the same command
without them joins them and writes the audit.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.data.aihub.collection import Collection, read_collection
from emotion.data.aihub.labels import agreement
from emotion.data.audit import audit_folder, audit_split, describe_audit, read_samples, sample_of
from emotion.data.options import CropConfig
from emotion.logger_config import get_logger, setup_logging
from emotion.settings import add_setting_arguments, folder_finder, load_settings
from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox.batch_options import BatchOptions
from facevox.cluster.job import RUN_AGAIN, Job
from facevox.errors import ExitCode
from facevox.files import write_json
from facevox.manifest import status_text

if TYPE_CHECKING:
    from emotion.data.crop_task import Plan

PROGRAM = "emotion_preprocess"  # in the manifest; the log has it as emotion.preprocess
TABLE = "crops.csv"
AUDIT_FILE = "audit.json"
AUDIT_FORMAT = 1


def _output_dir(args: argparse.Namespace, root: Path) -> Path:
    """Folder of the crops' table and manifest: the parent of the two folders."""
    return folder_finder("data_dir_train")(args, root).parent


# Run again it writes the audit of the split too.
JOB = Job(join=RUN_AGAIN, inputs=("data_dir_raw",), output=_output_dir)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python emotion/preprocess.py --data_dir_raw data/aihub --workers 8")
    cli.add_options(parser, CropConfig)
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="DIR",
        help="only audit the split in this folder (train/, validation/, 1.Training/ …); needs no settings "
        "(default: preprocess)",
    )
    add_setting_arguments(parser)
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Preprocesses or audits; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.audit is not None:
        return _audit_only(args.audit)
    settings = load_settings(args)
    from emotion.data.crop_task import COLUMNS, CropTask, plan_crops  # OpenCV: --help is quick without

    config = cli.build(
        CropConfig,
        args,
        class_names=settings.class_names,
        train_dir=settings.data_dir_train,
        val_dir=settings.data_dir_val,
        img_size=settings.img_size,
        crop_margin=settings.crop_margin,
        seed=settings.seed,
    )
    batch = cli.build(
        BatchConfig,
        args,
        output_dir=config.output_dir,
        program=PROGRAM,
        table=TABLE,
        columns=COLUMNS,
        item_column="picture",
        settings=config.settings(),
        unit="picture",
        join=f"the same with --num_shards 1 --shard_index 0, which joins them and writes {AUDIT_FILE}",
    )
    if not batch.dry_run:
        setup_logging(settings.log_dir)
    logger = get_logger("preprocess")
    collection = read_collection(
        settings.data_dir_raw, what="DATA_DIR_RAW", exclude=[config.train_dir, config.val_dir]
    )
    plan = plan_crops(collection, config)
    logger.info(
        "%d pictures and %d annotations below %s, %d to be cut out, %d left out",
        *(len(collection.pictures), len(collection.annotations), settings.data_dir_raw),
        *(sum(item.output is not None for item in plan.items), plan.left_out.total()),
    )
    summary = run_batch(CropTask(config), plan.items, batch)
    if summary.table is not None and not summary.stopped:
        _write_audit(collection, plan, config, summary.table)
    logger.info(
        "%s, %d finished before, in %.1f s%s",
        *(status_text(summary.counts), summary.skipped, summary.seconds),
        f", stopped by {summary.stopped}" if summary.stopped else "",
    )
    return summary.exit_code


def _audit_only(folder: Path) -> int:
    audit = audit_folder(folder)
    for line in describe_audit(audit):
        print(line)
    return ExitCode.DONE if audit["is_disjoint"] else ExitCode.SOME_FAILED


def _write_audit(collection: Collection, plan: "Plan", config: CropConfig, table: Path) -> None:
    """Writes `audit.json` next to the table, and prints the audits of our split and of AIHub's own."""
    crops = audit_split(read_samples(table, config.train_dir.name))
    aihub = audit_split(
        sample_of(picture.part, picture.filename) for picture in collection.pictures if picture.part
    )
    share = agreement([annotation.votes for annotation in collection.annotations.values()])
    value = {
        "format": AUDIT_FORMAT,
        "settings": config.settings(),
        "crops": crops,
        "aihub": aihub,
        "annotations": {
            "count": len(collection.annotations),
            "repeated": collection.num_repeated,
            "annotators_agree": round(share, 4) if share == share else None,  # nan without pairs
        },
        "left_out": dict(plan.left_out.most_common()),
        "problems": len(collection.problems),
    }
    write_json(config.output_dir / AUDIT_FILE, value)
    for line in describe_audit(crops):
        print(f"  {line}")
    for leak in aihub["leaks"]:
        if leak["people"]:
            print(f"  AIHub's own {' and '.join(leak['parts'])} have {leak['people']} people in common")


if __name__ == "__main__":
    sys.exit(cli.run(main))
