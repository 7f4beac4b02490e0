"""Make the folders that the lip-sync programs read and write.

    python lipsync/setup_directories.py

Makes data/videos, data/audios, data/processed, checkpoints, logs and outputs, or what the section `paths`
of the settings names instead. Existing folders stay as they are. Exit codes: 0 done, 2 bad settings
or a folder that cannot be made.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from lipsync.settings import add_config_arguments, load_settings


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/setup_directories.py")
    add_config_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the folders; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    paths = load_settings(args.config, args.overrides).paths
    for name in dataclasses.asdict(paths).values():
        folder = Path(name)
        state = "there already" if folder.is_dir() else "made"
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{folder}: {state}")
    print(f"next: put videos into {paths.videos_dir} and run: python lipsync/data_processing.py")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
