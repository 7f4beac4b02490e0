"""scripts/setup/check_commits.py: which messages follow the rule, and clones without the first commit."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def program(load_script):
    return load_script("setup/check_commits")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository whose only commit breaks the rule."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "Begun")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    """What git says to a command, as somebody whom it knows."""
    who = ["-c", "user.name=Kim", "-c", "user.email=kim@example.org", "-c", "commit.gpgsign=false"]
    answer = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@pytest.mark.parametrize(
    "subject",
    [
        "lipsync: reject clips without audio",
        "tests, docs: need less",
        "emotion/static: pass errors on",
        "check: bring 얼굴 back",
        "a: " + "x" * 69,
    ],
)
def test_subject_that_follows_the_rule(subject, program):
    assert program.faults_of(subject, "Why.") == []


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        ("Reject clips without audio", "not `area: imperative`"),
        ("Lipsync: reject clips", "not `area: imperative`"),
        ("two words: reject clips", "not `area: imperative`"),
        ("lipsync:reject clips", "not `area: imperative`"),
        ("lipsync: rejected clips", "`rejected` is not"),
        ("lipsync: Rejecting clips", "`Rejecting` is not"),
        ("lipsync: rejects clips", "`rejects` is not"),
        ("a: " + "x" * 70, "73 characters"),
    ],
)
def test_subject_that_breaks_the_rule(subject, fault, program):
    faults = program.faults_of(subject, "Why.")
    assert len(faults) == 1
    assert fault in faults[0]


def test_only_commits_after_the_first_are_checked(clone, program, capsys):
    start = git(clone, "rev-parse", "HEAD")
    git(clone, "commit", "-q", "--allow-empty", "-m", "tests: add one", "-m", "It was missing.")
    assert program.main(["--since", start], clone) == 0
    assert capsys.readouterr().out == f"commits: all 1 since {start[:9]} follow CONTRIBUTING.md\n"
    git(clone, "commit", "-q", "--allow-empty", "-m", "tests: add another")
    name = git(clone, "rev-parse", "--short", "HEAD")
    assert program.main(["--since", start], clone) == 1
    said = capsys.readouterr()
    assert said.err == f"commits: {name}: there is no body that says why: tests: add another\n"
    assert said.out == ""


def test_clone_without_the_first_commit_passes_and_is_told_so(clone, program, capsys):
    shallow = clone / "shallow"
    git(clone, "commit", "-q", "--allow-empty", "-m", "Another")
    start = git(clone, "rev-parse", "HEAD~1")
    git(clone, "clone", "-q", "--depth", "1", clone.as_uri(), str(shallow))
    assert program.main(["--since", start], shallow) == 0
    assert capsys.readouterr().out == f"commits: not checked: this clone does not have {start}\n"


def test_folder_that_is_no_clone_passes(tmp_path, program, capsys):
    assert program.main([], tmp_path) == 0
    assert "not checked" in capsys.readouterr().out
