r"""Train a model of masked faces and mel spectrograms on HQ VoxCeleb.

    python scripts/hq/train_hq_voxceleb.py --split_json_path ./data/HQVoxCeleb/split.json \
        --dataset_type vox2 --save_dir runs/hq
    python scripts/hq/train_hq_voxceleb.py --save_dir runs/hq --force_cpu --batch_size 8
    torchrun --nproc_per_node 2 scripts/hq/train_hq_voxceleb.py …    # one process for each GPU

The folder of split.json is the root of the data; create_hq_voxceleb_split.py writes the split. In an epoch
each person is one item: a face and a spectrogram, newly drawn. KMP_DUPLICATE_LIB_OK, OMP_NUM_THREADS and
MKL_NUM_THREADS of the environment are honoured.

Writes into --save_dir what train_face_voice.py writes, without audio_encoder.pth where the model has none.
Exit codes: 0 done, 1 ended because the loss was not finite, 2 bad usage or input, 75 stopped by a signal (run
again to resume).
"""

import argparse
import sys
from collections.abc import Sequence

from facevox import cli
from facevox.cluster.job import PER_GPU, Job
from lc_pytorch.hq.options import HQConfig

JOB = Job(
    processes=PER_GPU,
    inputs=("split_json_path", "converted_dir"),
    output="save_dir",
    is_some_failed_done=False,
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/hq/train_hq_voxceleb.py --split_json_path ./data/HQVoxCeleb/split.json "
        "--save_dir runs/hq",
    )
    cli.add_options(parser, HQConfig)
    parser.add_argument("--force_cpu", action="store_true", help="the same as --device cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    # torch and transformers: not for --help
    from lc_pytorch.hq.training import train_hq_voxceleb
    from lc_pytorch.training.run import run_training

    config = cli.build(HQConfig, args, **({"device": "cpu"} if args.force_cpu else {}))
    return run_training(config, lambda world: train_hq_voxceleb(config, world))


if __name__ == "__main__":
    sys.exit(cli.run(main))
