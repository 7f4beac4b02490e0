"""Checks the subjects and bodies of the commits against CONTRIBUTING.md.

    .venv/bin/python scripts/setup/check_commits.py
    .venv/bin/python scripts/setup/check_commits.py --since origin/main   # only those not yet handed in

A subject is `area: imperative`, at most 72 characters; a body gives the reason. Commits up to a fixed one are
not checked: they do not follow the rule. A clone that does not have that commit (a shallow one, an archive)
passes, with a message.

Writes nothing. Exit codes: 0 all follow the rule, or none could be read; 1 the listed commits do not.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
START = "52db989f49322542466c157e47167c7f2a83e7f3"
LONGEST = 72  # characters of a subject that `git log --oneline` and mails show
SUBJECT = re.compile(r"[a-z][\w./-]*(, [a-z][\w./-]*)*: (?P<verb>[\w-]+)( .*)?")
# Matches added, adding, adds; but not need, bring, pass, focus.
NO_IMPERATIVE = re.compile(r"\w{2,}([^e]ed|(?<!br)(?<!str)ing|[^su]s)")
IMPERATIVES = {"embed", "shed", "shred", "bias", "canvas"}  # imperatives that it matches all the same


def get_args_parser() -> argparse.ArgumentParser:
    """The command line of this program."""
    parser = cli.make_parser(__doc__, ".venv/bin/python scripts/setup/check_commits.py")
    parser.add_argument("--since", default=START, metavar="COMMIT", help="the last commit not to be checked")
    return parser


def main(argv: Sequence[str] | None = None, folder: Path = ROOT) -> int:
    """Checks the commits of the clone in `folder`; returns the exit code."""
    since = get_args_parser().parse_args(argv).since
    command = [
        "git",
        "log",
        "--no-merges",
        "--format=%h%x1f%s%x1f%b%x1e",
        "--end-of-options",
        f"{since}..HEAD",
    ]
    try:
        git = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        print("commits: not checked: there is no git")
        return ExitCode.DONE
    if git.returncode:
        print(f"commits: not checked: this clone does not have {since}")
        return ExitCode.DONE
    commits = [commit.lstrip("\n").split("\x1f") for commit in git.stdout.split("\x1e") if "\x1f" in commit]
    faults = [
        f"{name}: {fault}: {subject}" for name, subject, body in commits for fault in faults_of(subject, body)
    ]
    for line in faults:
        print(f"commits: {line}", file=sys.stderr)
    if not faults:
        print(f"commits: all {len(commits)} since {since[:9]} follow CONTRIBUTING.md")
    return ExitCode.SOME_FAILED if faults else ExitCode.DONE


def faults_of(subject: str, body: str) -> list[str]:
    """Faults of a message that does not follow the rule."""
    faults = [] if len(subject) <= LONGEST else [f"the subject has {len(subject)} characters, not {LONGEST}"]
    match = SUBJECT.fullmatch(subject)
    if match is None:
        faults.append("the subject is not `area: imperative`")
    elif match["verb"] not in IMPERATIVES and NO_IMPERATIVE.fullmatch(match["verb"].lower()):
        faults.append(f"`{match['verb']}` is not imperative")
    return faults if body.strip() else [*faults, "there is no body that says why"]


if __name__ == "__main__":
    sys.exit(cli.run(main))
