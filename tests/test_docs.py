"""What the documents, .env.example and --help say is true."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from program_help import light_help

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "THIRD_PARTY.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("scripts", "benchmarks", "examples", "emotion", "lipsync")
    for path in (ROOT / folder).rglob("*.py")
    if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
PACKAGES = [
    name
    for name in ("facevox", "facevox_demo", "lc_pytorch", "lipsync", "emotion")
    if (ROOT / name / "__init__.py").is_file()
]
# Commands that documents may show and that this test does not look into.
OTHER_COMMANDS = {
    "cd", "cp", "curl", "docker", "export", "git", "ls", "open", "pip", "podman", "source", "squeue", "sudo",
    "tail", "tensorboard", "xdg-open", ".ci/run", ".venv/bin/uv", ".venv/bin/playwright", "apptainer",
}  # fmt: skip
# Spec 5.1: the settings that the emotion package requires.
REQUIRED_SETTINGS = [
    "CLASS_NAMES", "DATA_DIR_RAW", "DATA_DIR_TRAIN", "DATA_DIR_VAL", "IMG_SIZE", "BATCH_SIZE", "VAL_STEPS",
    "EPOCHS_HEAD", "EPOCHS_FINETUNE", "LEARNING_RATE_HEAD", "LEARNING_RATE_FINETUNE", "DROPOUT_RATE",
    "WEIGHT_DECAY", "FREEZE_BN_MODE", "UNFREEZE_FROM", "MIXUP_ALPHA", "CUTMIX_ALPHA", "P_MIXUP", "P_CUTMIX",
    "EMA_DECAY", "EARLY_STOPPING_PATIENCE", "REDUCE_LR_PATIENCE", "REDUCE_LR_FACTOR", "MODEL_DIR", "LOG_DIR",
    "CROP_MARGIN", "TEST_MODE", "INPUT_PATH", "SERVER_PORT",
]  # fmt: skip


def bash_commands(text: str) -> list[list[str]]:
    """The commands in the ```bash blocks of a document, as argument lists."""
    commands = []
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:&&|\|\||\||;)\s", line):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)  # a variable set for the command
                if words:
                    commands.append(words)
    return commands


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def makefile_variables() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.findall(r"^VARIABLES [:+]= (.*)$", text, re.MULTILINE)
    assert listed
    return set(" ".join(listed).split()) | {name for name in ("CUDA", "PYTHON", "UPGRADE") if name in text}


def command_faults(words: list[str], load: Callable[[str], ModuleType]) -> list[str]:
    """What in one command of a document does not exist."""
    command, *rest = words
    shown = shlex.join(words)
    if command == "make":
        named = [word for word in rest if "=" not in word and not word.startswith("-")]
        faults = [f"no target {name}: {shown}" for name in named if name not in makefile_targets()]
        variables = [word.split("=", 1)[0] for word in rest if "=" in word]
        return faults + [
            f"no variable {name}: {shown}" for name in variables if name not in makefile_variables()
        ]
    if re.fullmatch(r"(\.venv/bin/)?python3?", command):
        return _python_faults(rest, shown, load)
    if command == "sbatch":
        script = next((word for word in rest if not word.startswith("-")), "")
        return [] if (ROOT / script).is_file() else [f"no file {script}: {shown}"]
    return [] if command in OTHER_COMMANDS else [f"unknown command: {shown}"]


def _python_faults(rest: list[str], shown: str, load: Callable[[str], ModuleType]) -> list[str]:
    if not rest or rest[0].startswith("-"):
        return []  # python -m …, python -c …
    script = ROOT / rest[0]
    if not script.is_file():
        return [f"no file {rest[0]}: {shown}"]
    parser = load(script_name(rest[0])).get_args_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    rest = rest[: rest.index("--")] if "--" in rest else rest  # behind it stand those of another program
    given = [word.split("=", 1)[0] for word in rest[1:] if re.match(r"--?[a-zA-Z]", word)]
    return [f"no option {option}: {shown}" for option in given if option not in known]


def script_name(path: str) -> str:
    """What `load_script` calls a program: without `scripts/` and the suffix."""
    return path.removeprefix("scripts/").removesuffix(".py")


def path_faults(text: str, folder: Path) -> list[str]:
    """Relative links, and paths of the repository in `code`, that do not exist."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    faults = [f"link to {link}" for link in links if ":" not in link and not (folder / link).exists()]
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {
        "runs",
        "data",
        "logs",
    }
    codes = re.findall(r"`([\w./-]+/[\w.-]+)`", text)
    ours = (code for code in codes if code.split("/", 1)[0] in tops)
    return faults + [f"path {code}" for code in ours if not (ROOT / code).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_name_targets_programs_and_options_that_exist(document, load_script):
    commands = bash_commands(document.read_text(encoding="utf-8"))
    faults = [fault for words in commands for fault in command_faults(words, load_script)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_in_documents_exist(document):
    assert path_faults(document.read_text(encoding="utf-8"), document.parent) == []


def test_false_commands_and_paths_in_a_document_are_found(load_script):
    text = """
see [the guide](docs/no-such-guide.md) and `scripts/setup/no_such.py`, not [that](https://example.org/x).
```bash
make no-such-target
make extract DATASETS=/videos   # a misspelt variable
python scripts/setup/no_such.py --only x
HF_HOME=/tmp python scripts/setup/fetch_weights.py --no_such_option && nosuchprogram
make install && make extract DATASET="/my videos" OUT=runs/x
python scripts/setup/fetch_weights.py \\
    --only Facenet --list
```
"""
    faults = [
        fault.split(":")[0] for words in bash_commands(text) for fault in command_faults(words, load_script)
    ]
    assert faults == [
        "no target no-such-target",
        "no variable DATASETS",
        "no file scripts/setup/no_such.py",
        "no option --no_such_option",
        "unknown command",
    ]
    assert path_faults(text, ROOT) == ["link to docs/no-such-guide.md", "path scripts/setup/no_such.py"]


def test_readme_starts_with_the_two_commands():
    commands = bash_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert ["make", "demo"] in commands[:4]
    assert ["make", "test"] in commands[:4]


def test_env_example_holds_exactly_the_required_settings_each_explained():
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert len(REQUIRED_SETTINGS) == 29
    names = [line.split("=", 1)[0] for line in lines if line and not line.startswith("#")]
    assert names == REQUIRED_SETTINGS
    for number, line in enumerate(lines):
        if re.match(r"(# )?[A-Z_]+=", line):
            explanation = lines[number - 1]
            assert re.match(r"# [^-]", explanation), f"{line} has no explanation above it"
            assert not re.match(r"# [A-Z_]+=", explanation), f"{line} has no explanation above it"


def test_env_example_holds_the_documented_values():
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    assert values["CLASS_NAMES"] == "happy,sad,neutral,embarrassed,anxiety"
    numbers = {
        "IMG_SIZE": 224, "BATCH_SIZE": 32, "VAL_STEPS": 500, "EPOCHS_HEAD": 6, "EPOCHS_FINETUNE": 42,
        "LEARNING_RATE_HEAD": 0.0003, "LEARNING_RATE_FINETUNE": 0.00002, "DROPOUT_RATE": 0.25,
        "WEIGHT_DECAY": 0.00001, "UNFREEZE_FROM": 0.6, "MIXUP_ALPHA": 0.2, "CUTMIX_ALPHA": 0.2,
        "P_MIXUP": 0.7, "P_CUTMIX": 0.3, "EMA_DECAY": 0.999, "EARLY_STOPPING_PATIENCE": 8,
        "REDUCE_LR_PATIENCE": 3, "REDUCE_LR_FACTOR": 0.5, "CROP_MARGIN": 0.25, "SERVER_PORT": 8001,
    }  # fmt: skip
    assert {name: float(values[name]) for name in numbers} == numbers
    assert (values["FREEZE_BN_MODE"], values["TEST_MODE"], values["INPUT_PATH"]) == ("all", "webcam", "")


@pytest.fixture(scope="module")
def helps() -> Iterator[dict[str, Future[str]]]:
    """All programs, asked for their help side by side."""
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {program: pool.submit(light_help, program) for program in PROGRAMS}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_nothing_heavy(program, helps):
    assert helps[program].result()


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_has_purpose_and_example_and_each_option_its_text_and_default(program, load_script):
    parser: argparse.ArgumentParser = load_script(script_name(program)).get_args_parser()
    assert parser.description
    assert "example" in (parser.epilog or "")
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        name = "/".join(action.option_strings) or action.dest
        assert action.help, f"{name} is not explained"
        text = formatter._expand_help(action)
        assert action.required or "default" in text, f"{name} does not say its default: {text}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_unknown_option_ends_in_one_line_and_exit_code_2(program, load_script, capsys):
    parser = load_script(script_name(program)).get_args_parser()
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--no_such_option"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--no_such_option" in said or "required" in said


def test_no_file_of_the_repository_names_a_machine_path():
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    if not names:
        pytest.skip("not a git checkout")
    places = re.compile(
        "|".join(("/" + "work/", "/" + "opt/", "/" + "root/", "/" + "tmp/fv", "file://" + "/"))
    )
    files = [
        ROOT / name for name in names if (ROOT / name).suffix in ("", ".py", ".md", ".toml", ".lock", ".sh")
    ]
    found = [
        str(file) for file in files if file.is_file() and places.search(file.read_text("utf-8", "replace"))
    ]
    assert found == []


def test_pythonpath_is_not_needed():
    """The packages are installed: a program started from another folder finds them."""
    assert {"facevox", "lc_pytorch"} <= set(PACKAGES)
    answer = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(PACKAGES)}"],
        cwd="/", env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr


# The worst words of the section Words in CONTRIBUTING.md do not come back where they are gone.
PLAIN_ENGLISH = [
    "README.md", "CONTRIBUTING.md", "Makefile", "docs", "slurm", "docker", "examples", "benchmarks",
    "facevox_demo", "facevox_programs", "facevox", "lc_pytorch", "lipsync", "emotion", "scripts",
]  # fmt: skip
CALQUES = re.compile(
    r"\bwanted\b|\bh[eo]ld (?:\w+ )*against\b|\banew\b|\b(?:goes|went|going) on\b|\bl(?:ie|ies|ay)\b"
    r"|\bmade-up\b|\bso (?:many|much) [a-z]+s\b|\bof all processes\b|\bamong all\b|\btold\b|\bis said\b"
    r"|(?:\band|,) said\b|\bgives? (?:\w+ ){1,3}back\b|\bbut for\b|\bin good order\b|\blooks whether\b"
    r"|\bstands? (?:in|at|on|behind|beside)\b|\bheeds?\b|\bnobody ended\b|\bdoes no harm\b",
    re.IGNORECASE,
)
# Names that say how a value came about, not what it is; docstrings that begin with neither a noun nor a verb.
_PARTICIPLES = "(?:found|known|said|own|given|shown|wanted|told|held|kept|seen|taken|place)"
PARTICIPLE = re.compile(rf"^ *{_PARTICIPLES}(?:: [^=\n]+)? = |\bfor {_PARTICIPLES} in ", re.MULTILINE)
QUESTION = re.compile(r'"""\s?(?:What|Whether|Who|Whose|How|Where|Which|When|See|As)\b')


def plain_files() -> list[Path]:
    """Text files of PLAIN_ENGLISH; emotion_settings.md has the words of emotion/settings.py."""
    files = []
    for name in PLAIN_ENGLISH:
        path = ROOT / name
        files += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    suffixes = (".md", ".py", ".sh", ".sbatch", ".yaml", ".Dockerfile", "")
    return sorted(file for file in files if file.suffix in suffixes and file.name != "emotion_settings.md")


def calques(text: str, is_code: bool) -> list[str]:
    """Calques in a text; quoted words (`…`) of a document, which programs print, do not count."""
    if not is_code:
        text = re.sub(r"^## Words\n.*?(?=^## )", "", text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"`[^`\n]*`", "`", text)
    patterns = (CALQUES, PARTICIPLE, QUESTION) if is_code else (CALQUES,)
    return [match.group() for pattern in patterns for match in pattern.finditer(text)]


def test_calques_do_not_come_back() -> None:
    files = plain_files()
    assert {ROOT / name for name in ("README.md", "facevox_demo/options.py", "slurm/body.sh")} <= set(files)
    hits = {
        str(file.relative_to(ROOT)): calques(file.read_text(encoding="utf-8"), file.suffix == ".py")
        for file in files
    }
    assert {name: words for name, words in hits.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a multiple of 8 is wanted, held against it", ["wanted", "held against"]),
        ("the run goes on, and that is said", ["goes on", "is said"]),
        ("    found: list[int] = []", ["    found: list[int] = "]),
        ("for place in places:", ["for place in "]),
        ('"""Whether it is done."""', ['"""Whether']),
        ("a held-out set, the left side, its own name = 1, face_found = 2", []),
    ],
)
def test_calques_are_found(text: str, words: list[str]) -> None:
    assert calques(text, is_code=True) == words
