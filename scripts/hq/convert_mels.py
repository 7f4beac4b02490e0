"""Rewrite the mel spectrograms of HQ VoxCeleb as .npy files, once, so that training loads them quickly.

    python scripts/hq/convert_mels.py --vox_dir ./data/HQVoxCeleb
    python scripts/hq/convert_mels.py --vox_dir /data/HQVoxCeleb --output_dir runs/mels --dtype float16

Writes `<output_dir>/vox1|vox2/mel_npy/<identity>/<mel file>.npy`, (mels, frames), which training and
evaluation read instead of the originals (with --output_dir elsewhere they need --converted_dir), mels.csv and
manifests/. The originals stay. Exit codes: 0 done; 1 more files failed than --max_failed allows; 2 bad
usage or input; 75 stopped by a signal, run again to continue.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox.batch_options import BatchOptions
from facevox.cluster.job import MERGE, Job
from lc_pytorch.hq.options import ConversionConfig


def _output_dir(args: argparse.Namespace, root: Path) -> Path:
    return Path(args.output_dir or args.vox_dir)


JOB = Job(join=MERGE, inputs=("vox_dir",), output=_output_dir)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/hq/convert_mels.py --vox_dir ./data/HQVoxCeleb")
    add = parser.add_argument
    add("--vox_dir", type=Path, required=True, metavar="DIR", help="folder with vox1 and vox2")
    add("--output_dir", type=Path, metavar="DIR", help="folder to write into (default: --vox_dir)")
    cli.add_options(parser, ConversionConfig)
    add("--num_mels", type=cli.positive_int, help="bands of the spectrograms (default: found in the files)")
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Converts; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.hq import conversion, tree  # torch, by the data sets: not for --help

    # Files that were converted before must not hide the originals: the list of items stays the same.
    originals = tree.scan_tree(args.vox_dir, has_converted=False)
    for note in originals.notes:
        print(note)
    items = conversion.plan_conversion(originals)
    num_mels = args.num_mels
    if num_mels is None:
        num_mels, facts = conversion.find_num_mels(originals)
        print("\n".join(facts))
    config = cli.build(ConversionConfig, args, num_mels=num_mels)
    batch = cli.build(
        BatchConfig,
        args,
        output_dir=args.output_dir or args.vox_dir,
        program=conversion.PROGRAM,
        table=conversion.TABLE,
        columns=conversion.COLUMNS,
        item_column="mel_file",
        settings=asdict(config),
        chunk_size=64,
        unit="mel",
    )
    return run_batch(conversion.ConversionTask(config), items, batch).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
