"""Prints the command of a task of an sbatch script: `python -m facevox_programs.plan JOB [job options]`.

The shared body of the scripts in slurm/ calls this inside a job. It checks job, options and allocation, so
that a wrong value ends the job with one line before anything is started, and writes the command to stdout:
each word followed by a zero byte, as `mapfile -d ''` reads them; nothing where the options ask for help,
which goes to stderr. Exit codes: 0 done; 2 something is wrong.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from facevox import cli
from facevox.cluster.plan import check_allocation, shard_of_task
from facevox.errors import ExitCode, UserError
from facevox_programs.jobs import TABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Checks and prints; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        raise UserError("a job is missing: python -m facevox_programs.plan JOB [job options]")
    # stdout is for the command: the script of a job whose options ask for help gets none.
    with contextlib.redirect_stdout(sys.stderr):
        request = replace(TABLE, root=Path.cwd()).request(words[0], words[1:])
    check_allocation(os.environ, request)
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "")
    command = request.command(
        cpus=int(cpus) if cpus.isdigit() else None, shard=shard_of_task(os.environ, request)
    )
    # As bytes: the console shows control characters as escapes.
    sys.stdout.buffer.write(b"".join(os.fsencode(word) + b"\0" for word in command))
    sys.stdout.buffer.flush()
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
