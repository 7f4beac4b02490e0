"""Submit a pipeline: jobs that wait for each other, from a YAML file.

    python scripts/cluster/pipeline.py examples/pipeline.yaml
    python scripts/cluster/pipeline.py examples/pipeline.yaml --set videos=/data/videos --set out=/runs/first
    python scripts/cluster/pipeline.py examples/pipeline.yaml --cluster local
    python scripts/cluster/pipeline.py examples/pipeline.yaml --dry_run

The whole file is checked before anything is submitted: jobs, options by their programs' own parsers,
resources, and the inputs of the first stages. On SLURM a stage starts when those before it are done, and is
cancelled when one of them failed; locally the stages run one after the other. Exit codes: 0 submitted
(locally: done); 1, 70 and 75, only locally: some failed, a crash, stopped by a signal (run the same command
again to continue); 2 bad usage or input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.pipeline import Stage, load_pipeline
from facevox.cluster.records import DEFAULT_LOG_DIR, GOOD, Record
from facevox.cluster.resources import CLUSTERS
from facevox.cluster.submission import Submission, ask_slurm, check_cluster, exit_code_of, submit
from facevox.errors import ExitCode, UserError
from facevox_programs.jobs import TABLE


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
    """Submits the pipeline; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    changes = dict(change.partition("=")[::2] for change in args.changes)
    if wrong := [change for change in args.changes if "=" not in change]:
        raise UserError(f"--set {wrong[0]}: NAME=VALUE is expected")
    overrides = {"cluster": args.cluster}
    overrides |= {name: value for name in ("partition", "account", "qos") if (value := getattr(args, name))}
    stages = load_pipeline(args.file, TABLE, changes, overrides)
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


def run_stages(stages: Sequence[Stage], log_dir: Path) -> int:
    """Submits the stages in their order, or runs them; returns the exit code."""
    # Of each stage the record that later ones wait for: of an array, the job that joins its shards.
    last: dict[str, Record] = {}
    code = ExitCode.DONE
    for stage in stages:
        submission = Submission(
            request=stage.request,
            resources=stage.resources,
            root=TABLE.root,
            log_dir=log_dir,
            stage=stage.name,
            after=tuple(last[name] for name in stage.after),
        )
        records = [submitted.record for submitted in submit(submission)]
        last[stage.name] = records[-1]
        for record in records:
            print(f"{stage.name}: {record.name}: job {record.job_numbers}", flush=True)
            if stage.resources.cluster == "slurm":
                continue
            stage_code = exit_code_of(record)
            print(f"{stage.name}: {', '.join(record.states())}; log {record.log_file(0)}", flush=True)
            if stage_code == ExitCode.STOPPED or not set(record.states()) <= set(GOOD):
                return stage_code
            code = max(code, stage_code)
    return code


if __name__ == "__main__":
    sys.exit(cli.run(main))
