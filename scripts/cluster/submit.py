r"""Submit a long program to SLURM, or run it on this machine in the same way.

    python scripts/cluster/submit.py --nodes 2 --gpus 8 --time 2-0 -- train_hq --save_dir runs/hq
    python scripts/cluster/submit.py --shards 64 -- extract_faces --dataset_path videos --output_dir faces
    python scripts/cluster/submit.py --after 20250102-030405-train_hq-1f2e -- evaluate_hq --model_dir runs/hq
    python scripts/cluster/submit.py --cluster local -- train_hq --save_dir runs/hq
    python scripts/cluster/submit.py -- train_hq --help         # the options of a job

The words after -- are a job and its options, checked here by the program's own parser, together with its
inputs. With --shards the parts run as an array and a last job joins them. A job that is preempted, or reaches
its time limit, saves, is requeued and continues. Writes a folder below --log_dir with the record, the state
and the logs: scripts/cluster/status.py shows them. Exit codes: 0 submitted (--cluster local and debug: done);
1, 70 and 75, only of those two: some failed, a crash, stopped by a signal; 2 bad usage or input, or SLURM
refuses it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.progress import statuses
from facevox.cluster.records import DEFAULT_LOG_DIR, find_record
from facevox.cluster.resources import Resources
from facevox.cluster.submission import (
    Submission,
    ask_slurm,
    check_cluster,
    exit_code_of,
    script_of,
    submit,
    unfinished,
)
from facevox.errors import ExitCode, UserError
from facevox_programs.jobs import PROGRAMS, TABLE


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program, before the --."""
    parser = cli.make_parser(
        __doc__, "python scripts/cluster/submit.py --nodes 2 --gpus 8 -- train_hq --save_dir runs/hq"
    )
    add = parser.add_argument
    cli.add_options(parser, Resources)
    add(
        "--after",
        nargs="+",
        default=[],
        metavar="NAME",
        help="submissions, or SLURM's job numbers, that have to be done first (default: none)",
    )
    add("--log_dir", type=Path, default=DEFAULT_LOG_DIR, help="folder for records and logs, on a shared disk")
    add("--dry_run", action="store_true", help="check all, show what would be submitted, submit nothing")
    add("job", nargs="*", metavar="-- JOB [options]", help=f"one of: {' '.join(PROGRAMS)} (default: none)")
    return parser


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the words before the first --, those after it)."""
    words = list(words)
    if "--" not in words:
        return words, []
    index = words.index("--")
    return words[:index], words[index + 1 :]


def main(argv: Sequence[str] | None = None) -> int:
    """Submits the job; returns the exit code."""
    options, job = split_arguments(sys.argv[1:] if argv is None else argv)
    args = get_args_parser().parse_args(options)
    if args.job or not job:
        raise UserError(
            f"a job is missing after --, as in: submit.py --nodes 2 -- train_hq --save_dir runs/hq; "
            f"the jobs are: {' '.join(PROGRAMS)}"
        )
    request = TABLE.request(job[0], job[1:], is_later=bool(args.after))
    resources = cli.build(Resources, args)
    check_cluster(resources)
    # None: a job of SLURM that was not submitted from here.
    earlier = {name: find_record(args.log_dir, name) for name in args.after}
    records = [record for record in earlier.values() if record is not None]
    submission = Submission(
        request=request,
        resources=resources,
        root=TABLE.root,
        log_dir=args.log_dir,
        after=tuple(records) if args.dry_run else unfinished(records, resources.cluster),
        after_ids=tuple(name for name, record in earlier.items() if record is None),
    )
    return show(submission) if args.dry_run else submit_and_report(submission)


def show(submission: Submission) -> int:
    """Prints what would be submitted; returns the exit code."""
    resources, request = submission.resources, submission.request
    for index, run in enumerate(submission.runs(submission.log_dir)):
        print(
            f"{request.name}{f' [{index}/{resources.shards}]' if resources.shards > 1 else ''}: {run.command}"
        )
    print(
        f"{resources.cluster}: {resources.nodes} nodes, on each {resources.num_tasks(request)} tasks of "
        f"{resources.cpus} cores, {resources.num_gpus(request)} GPUs, {resources.memory_gb(request):g} GB; "
        f"{resources.time}"
    )
    for record in submission.after:
        print(f"after: {record.name} ({', '.join(sorted(set(record.states())))})")
    if resources.cluster == "slurm":
        print(script_of(submission))
        print(f"SLURM: {ask_slurm(submission)}")
    return ExitCode.DONE


def submit_and_report(submission: Submission) -> int:
    """Submits the job and prints its name and state; returns the exit code."""
    code = ExitCode.DONE
    for record in [submitted.record for submitted in submit(submission)]:
        status = statuses([record])[0]
        print(f"{record.name}: job {record.job_numbers}: {status.state_text}; log {status.log_file}")
        if submission.resources.cluster != "slurm":
            code = max(code, exit_code_of(record))
    return code


if __name__ == "__main__":
    sys.exit(cli.run(main))
