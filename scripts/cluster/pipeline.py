"""Submit a pipeline: jobs that wait for each other, from a YAML file.

    python scripts/cluster/pipeline.py examples/pipeline.yaml
    python scripts/cluster/pipeline.py examples/pipeline.yaml --set videos=/data/videos --set out=/runs/first
    python scripts/cluster/pipeline.py examples/pipeline.yaml --cluster local
    python scripts/cluster/pipeline.py examples/pipeline.yaml --dry_run

The whole file is checked before anything is submitted: jobs, options by their programs' own parsers,
resources, and what the first stages read. On SLURM a stage starts when those before it are done, and is
cancelled when one of them failed; locally the stages run one after the other. Exit codes: 0 submitted
(locally: done); 1, 70 and 75, only locally: some failed, a crash, stopped by a signal (run the same command
again to go on); 2 bad usage or input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facevox import cli
from facevox.cluster.records import DEFAULT_LOG_DIR
from facevox.cluster.resources import CLUSTERS
from facevox.errors import ExitCode, UserError
from facevox_programs.table import TABLE

if TYPE_CHECKING:
    from facevox.cluster.pipeline import Stage
    from facevox.cluster.records import Record


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python scripts/cluster/pipeline.py examples/pipeline.yaml --set videos=/data/videos"
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="the pipeline, as examples/pipeline.yaml (default: none)")
    add("--cluster", choices=CLUSTERS, default="slurm", help="local: processes here; debug: this process")
    add(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value for a setting of the file; may be repeated (default: none)",
    )
    for name in ("partition", "account", "qos"):
        add(f"--{name}", help="of SLURM, for all stages (default: as the file says)")
    add("--log_dir", type=Path, default=DEFAULT_LOG_DIR, help="folder for records and logs, on a shared disk")
    add("--dry_run", action="store_true", help="check all, show what would be submitted, submit nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Submits; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.cluster.pipeline import load_pipeline
    from facevox.cluster.submission import Submission, ask_slurm, check_cluster

    changes = dict(change.partition("=")[::2] for change in args.changes)
    if wrong := [change for change in args.changes if "=" not in change]:
        raise UserError(f"--set {wrong[0]}: NAME=VALUE is expected")
    given = {"cluster": args.cluster}
    given |= {name: value for name in ("partition", "account", "qos") if (value := getattr(args, name))}
    stages = load_pipeline(args.file, TABLE, changes, given)
    for stage in stages:
        check_cluster(stage.resources)
        submission = Submission(
            request=stage.request, resources=stage.resources, root=TABLE.root, log_dir=args.log_dir
        )
        if args.cluster == "slurm":
            ask_slurm(submission)
    if args.dry_run:
        for stage in stages:
            shards = f", {stage.resources.shards} shards" if stage.resources.shards > 1 else ""
            print(f"{stage.name} (after {', '.join(stage.after) or 'nothing'}{shards}):")
            print(f"    {stage.request.command()}")
        return ExitCode.DONE
    return run_stages(stages, args.log_dir)


def run_stages(stages: "Sequence[Stage]", log_dir: Path) -> int:
    """Submits them in their order, or runs them; returns the exit code."""
    from facevox.cluster.submission import Submission, exit_code_of, submit

    last: dict[str, Record] = {}
    code = ExitCode.DONE
    for stage in stages:
        submitted = submit(
            Submission(
                request=stage.request,
                resources=stage.resources,
                root=TABLE.root,
                log_dir=log_dir,
                stage=stage.name,
                after=tuple(last[name] for name in stage.after),
            )
        )
        last[stage.name] = submitted[-1].record
        for one in submitted:
            numbers = ", ".join(sorted({job_id.split("_")[0] for job_id in one.record.job_ids}))
            print(f"{stage.name}: {one.record.name}: job {numbers}", flush=True)
            if stage.resources.cluster == "slurm":
                continue
            ended = exit_code_of(one.record)
            print(f"{stage.name}: {', '.join(one.record.states())}; log {one.record.log_file(0)}", flush=True)
            if ended == ExitCode.STOPPED or not set(one.record.states()) <= {"done", "some failed"}:
                return ended
            code = max(code, ended)
    return code


if __name__ == "__main__":
    sys.exit(cli.run(main))
