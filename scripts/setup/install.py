"""Sets facevox up in .venv with uv: virtual environment, the packages of uv.lock, .env.

    sh scripts/setup/install.sh                     # CPU build of torch
    sh scripts/setup/install.sh --torch cuda        # CUDA build of torch and the `cuda` extra
    .venv/bin/python scripts/setup/install.py --check

install.sh gets uv and a Python first; this program needs the standard library only. A finished set-up is
skipped; an interrupted one is done again from the start. uv reads no pip settings (indexes, find-links,
certificate, proxy): they are passed to it. The lock has versions and hashes, but those settings decide where
files come from (find-links may have the CPU build of torch), so `uv sync` does not install the packages.

Writes: .venv/, .env (where there is none). Exit codes: 0 done; 1 a package could not be installed (uv says
why), or --check found a difference; 2 the machine lacks something (one line); 75 stopped by Ctrl-C.
"""

import argparse
import ast
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ((3, 11), (3, 12), (3, 13))  # those for which TensorFlow and all others have releases
DISK_GB = {"CPU": 4.9, "CUDA": 8.9}  # the installed set, by build of torch
# Packages with many modules: a process that must compile them starts 4 to 6 s later, every time if
# PYTHONDONTWRITEBYTECODE is set. The probe of `check_imports` compiles the modules that it imports of others.
COMPILED = ("transformers", "tensorflow", "keras", "librosa", "numba")
# Packages of earlier set-ups that have the same files as opencv-python.
OTHER_CV2 = "lib/python3.*/site-packages/opencv_*contrib*.dist-info"
# pip's settings and uv's variables for them.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}


class SetupError(Exception):
    """An error that stops the set-up, in one line; `code` is the exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def get_args_parser() -> argparse.ArgumentParser:
    """The command line of this program."""
    parser = _Parser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog="example:\n  make install\n  make install CUDA=1 PYTHON=/usr/bin/python3.13",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--torch",
        choices=("cpu", "cuda", "keep"),
        default="keep",
        help="the build of torch; keep: the one that is there, else cpu (default: keep)",
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to (default: .venv)")
    parser.add_argument("--uv", help="the uv to work with (default: that of the environment)")
    parser.add_argument(
        "--extras",
        nargs="+",
        metavar="EXTRA",
        help="for container images: only the packages of these extras, not the project (default: set up)",
    )
    parser.add_argument(
        "--check", action="store_true", help="only compare what is installed with the lock (default: off)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Sets the project up; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    venv = args.venv.absolute()
    uv = args.uv or str(venv / "bin" / "uv")
    try:
        if args.check:
            check(venv, uv)
        elif args.extras:
            install_extras(venv, uv, args.extras, is_cuda=args.torch == "cuda")
        else:
            with _one_at_a_time():
                install(venv, uv, build=args.torch)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; run make install again", file=sys.stderr)
        return 75
    return 0


def install(venv: Path, uv: str, *, build: str = "keep") -> None:
    """Brings `venv` to the state that pyproject.toml and uv.lock ask for.

    Args:
        venv: the folder of the virtual environment.
        uv: the program.
        build: build of torch: "cpu", "cuda", or "keep" for the installed one (cpu in a new environment).

    Raises:
        SetupError: the machine lacks something, or a package could not be installed.
    """
    example, settings = ROOT / ".env.example", ROOT / ".env"
    if example.exists() and not settings.exists():
        shutil.copy(example, settings)
        _say("copied .env.example to .env")
    state_file = venv / "facevox-install.json"
    state = _read_state(state_file)
    python = str(state.get("python", "")) if os.access(venv / "bin" / "python", os.X_OK) else ""
    is_cuda = build == "cuda" or (build == "keep" and state.get("cuda") is True)
    inputs = hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "uv.lock")))
    target = {"root": str(ROOT), "python": python, "cuda": is_cuda, "inputs": inputs.hexdigest()}
    flavour = "CUDA" if is_cuda else "CPU"
    reason = _reason_to_replace(python, state, is_cuda)
    if state != target and not reason and next(venv.glob(OTHER_CV2), None):
        reason = "it has other packages with cv2 in them, whose files would be mixed"
    if state == target and not reason:
        print(f"facevox is set up (Python {python}, {flavour})")
        return

    started = time.monotonic()
    if reason:
        if venv.exists():
            _say(f"making {venv.name} again: {reason}")
        _check_machine(venv, DISK_GB[flavour])
        _make_venv(venv, uv)
        target["python"] = platform.python_version()
    # Before the first package: the next set-up notices one that died half-way.
    state_file.write_text(json.dumps({"cuda": is_cuda}), encoding="utf-8")
    size = f"{DISK_GB[flavour]} GB of disk"
    _say(f"installing the locked packages ({flavour}, Python {target['python']}, {size})")
    _install_packages(venv, uv, is_cuda=is_cuda)
    state_file.write_text(json.dumps({**target, "inputs": "not checked yet"}), encoding="utf-8")
    _say("compiling the largest packages, which makes every later start quicker")
    compile_packages(venv)
    _say("checking that the compiled packages load")
    check_imports(venv)
    state_file.write_text(json.dumps(target), encoding="utf-8")
    seconds = time.monotonic() - started
    _say(f"facevox is set up in {seconds:.0f} s (Python {target['python']}, {flavour})")


# --- the existing environment -------------------------------------------------------------------------------


def _read_state(file: Path) -> dict[str, object]:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _reason_to_replace(version: str, state: dict[str, object], is_cuda: bool) -> str:
    """Reason to make the environment from scratch; "" if it can be brought up to date in place."""
    if not version:
        return "it does not work, or its set-up was interrupted"  # a package may be incomplete
    if not version.startswith(tuple(f"{major}.{minor}." for major, minor in PYTHONS)):
        return f"it has Python {version}"
    if os.environ.get("PYTHON") and version != platform.python_version():
        return f"it has Python {version}, and PYTHON asks for {platform.python_version()}"
    if state.get("root") != str(ROOT):
        return "the repository was moved"
    if state.get("cuda") != is_cuda:
        return "it has the other build of torch"  # each build leaves packages that break the other one
    return ""


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lets a second set-up of the same folder wait (make demo and make test started together)."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: one at a time is up to the user
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("another set-up of this folder is running; waiting for it")
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


# --- packages --------------------------------------------------------------------------------------------


def _check_machine(venv: Path, needed_gb: float) -> None:
    if sys.version_info[:2] not in PYTHONS:
        reason = " (TensorFlow has no release for it yet)" if sys.version_info[:2] > PYTHONS[-1] else ""
        raise SetupError(
            f"facevox needs Python 3.11, 3.12 or 3.13, this is {platform.python_version()}{reason}: "
            "run make install PYTHON=/path/to/python3.13"
        )
    free_gb = shutil.disk_usage(venv.parent).free / 1e9
    free_gb += DISK_GB["CPU"] if (venv / "bin").exists() else 0.0
    if free_gb < needed_gb + 0.5:
        raise SetupError(
            f"{venv.parent} has {free_gb:.1f} GB free; the set-up needs {needed_gb + 0.5} GB: free some space"
        )


def _make_venv(venv: Path, uv: str) -> None:
    if venv.is_symlink():
        venv.unlink()  # its target belongs to somebody else, and would be cleared
    _say(f"making {venv.name} with Python {platform.python_version()}")
    command = [uv, "venv", "--quiet", "--clear", "--no-project", "--seed", "--python", sys.executable]
    _run([*command, str(venv)], _uv_environment(), "could not make the environment")


def _install_packages(venv: Path, uv: str, *, is_cuda: bool) -> None:
    environment = _uv_environment()
    command = _install_command(venv, uv)
    if is_cuda:
        environment.pop("UV_FIND_LINKS", None)  # local wheels are CPU builds
        command += ["-e", ".[dev,cuda]"]
    else:
        command += ["-e", ".[dev]", *_find_cpu_torch(command, environment)]
    _run(command, environment, "the packages could not be installed (above)")


def install_extras(venv: Path, uv: str, extras: Sequence[str], *, is_cuda: bool) -> None:
    """Makes a new environment with the packages of `extras`, compiled: an image layer without the project.

    Args:
        venv: the folder of the virtual environment.
        uv: the program.
        extras: names in pyproject.toml.
        is_cuda: CUDA builds of torch and torchvision, or TensorFlow with its CUDA libraries.

    Raises:
        SetupError: there is no CPU build of torch within reach, or a package could not be installed.
    """
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    unknown = sorted(set(extras) - optional.keys())
    if unknown:
        raise SetupError(f"no such extra: {', '.join(unknown)} (there are {', '.join(optional)})")
    pins = [(name, line) for name in extras for line in optional[name]]
    has_torch = any(line.startswith("torch==") for _, line in pins)
    # DeepFace's mtcnn stays on the CPU: two CUDA versions in one image would be 3 GB for one detector.
    has_tensorflow = any(line.startswith("tensorflow==") for name, line in pins if name != "mtcnn")
    environment = _uv_environment()
    _make_venv(venv, uv)
    command = _install_command(venv, uv)
    # setuptools installs the project later, without network. The user of the image may not be able to write
    # the compiled forms, and without them each import would take twice as long.
    arguments = ["--compile-bytecode", "-r", "pyproject.toml", "setuptools"]
    arguments += [word for name in extras for word in ("--extra", name)]
    if is_cuda:
        arguments += ["--extra", "cuda"] if has_torch else []
        arguments += ["--extra", "emotion-cuda"] if has_tensorflow else []
    elif has_torch:
        torch = _find_cpu_torch(command, environment)
        if not torch:
            raise SetupError("use ACCELERATOR=cuda, or set UV_FIND_LINKS to a CPU build of torch", code=1)
        arguments += torch
    _run([*command, *arguments], environment, "the packages could not be installed (above)")


def _install_command(venv: Path, uv: str) -> list[str]:
    """`uv pip install` with the versions and hashes of the lock, without the names of packages."""
    constraints = venv / "constraints.txt"
    # Without torch: the lock does not have the hashes of its CPU build.
    export = [uv, "export", "--quiet", "--frozen", "--no-emit-project", "--no-header", "--no-annotate"]
    export += ["--all-extras", "--no-emit-package", "torch", "--output-file", str(constraints)]
    _run(export, dict(os.environ), "uv.lock could not be read (above)")
    return [uv, "pip", "install", "--python", str(venv / "bin" / "python"), "-c", str(constraints)]


def _find_cpu_torch(command: Sequence[str], environment: dict[str, str]) -> list[str]:
    """Arguments for the CPU build of torch, from the machine's sources or else from PyTorch's; [] if none."""
    if sys.platform != "linux":
        return []  # elsewhere the package index has the CPU build
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    version = next(package["version"] for package in packages if package["name"] == "torch")
    cpu = f"torch=={version}+cpu"
    quick = {**environment, "UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}
    for settings, more in ((environment, []), (quick, ["--torch-backend", "cpu"])):
        dry_run = [*command, "--dry-run", "--no-deps", "--quiet", *more, cpu]
        if subprocess.run(dry_run, env=settings, capture_output=True, check=False).returncode == 0:
            return [cpu, *more]
    _say(
        f"no CPU build of torch {version} for Python {platform.python_version()} within reach: the package "
        f"index's own is a CUDA build, 3 GB to fetch, {DISK_GB['CUDA']} GB of disk in all "
        "(UV_FIND_LINKS may name a folder that has the CPU build)"
    )
    return []


def check(venv: Path, uv: str) -> None:
    """Compares what is installed in `venv` with the lock, without network.

    Raises:
        SetupError: there is a difference.
    """
    if not Path(uv).exists():
        raise SetupError(f"{uv} does not exist: run make install")
    command = [*_install_command(venv, uv), "-r", "pyproject.toml", "--extra", "dev"]
    command += ["--dry-run", "--offline"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode or "Would make no changes" not in answer.stderr:
        lines = [line.strip() for line in answer.stderr.splitlines()]
        changes = [line for line in lines if line.startswith(("+ ", "- ", "~ ", "cause:"))]
        raise SetupError(f"not as in uv.lock ({'; '.join(changes or lines[-1:])}): make install", code=1)
    print("all packages as in uv.lock")


# --- pip's settings --------------------------------------------------------------------------------------


def _uv_environment() -> dict[str, str]:
    """The variables of this process, and those that give uv the settings of pip."""
    return {**os.environ, **uv_variables(read_pip_settings(), dict(os.environ))}


def read_pip_settings() -> dict[str, str]:
    """pip's settings by name (`index-url`); none where there is no pip."""
    fetched = ROOT / ".uv" / "bin" / "python"
    python = str(fetched) if fetched.exists() else sys.executable
    answer = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return parse_pip_config(answer.stdout)


def parse_pip_config(text: str) -> dict[str, str]:
    """The settings in the output of `pip config list` (lines like `global.find-links='/wheels'`).

    The environment wins over [install], and that over [global], as in pip.
    """
    levels: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.strip().rpartition(".")
        if section in levels:
            with contextlib.suppress(ValueError, SyntaxError):
                levels[section][key] = str(ast.literal_eval(value.strip()))
    return {**levels["global"], **levels["install"], **levels[":env:"]}


def uv_variables(pip: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    """pip's settings as uv's variables; those that the user has set for uv already are left alone.

    Indexes are passed in the environment, not as arguments, because their addresses may hold passwords.

    Args:
        pip: pip's settings (`parse_pip_config`).
        environment: the variables of this process.
    """
    variables = {UV_NAMES[name]: " ".join(text.split()) for name, text in pip.items() if name in UV_NAMES}
    if "UV_FIND_LINKS" in variables:
        variables["UV_FIND_LINKS"] = variables["UV_FIND_LINKS"].replace(" ", ",")
    if environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL"):
        variables.pop("UV_DEFAULT_INDEX", None)
        variables.pop("UV_INDEX", None)
    if "UV_INDEX" in variables:
        # As pip: the best version of all indexes. Of one version in several, uv sees the files of the first
        # index only: an extra one may have soundfile for any machine, without its library.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        main_index = variables.get("UV_DEFAULT_INDEX", "https://pypi.org/simple")
        variables["UV_INDEX"] = f"{main_index} {variables['UV_INDEX']}"
    return {name: value for name, value in variables.items() if not environment.get(name)}


# --- compiled packages -----------------------------------------------------------------------------------


def compile_packages(venv: Path) -> None:
    """Makes the compiled forms of the packages of COMPILED that are installed, on all cores."""
    folders = [
        str(folder / name)
        for folder in sorted((venv / "lib").glob("python*/site-packages"))
        for name in COMPILED
        if (folder / name).is_dir()
    ]
    if folders:
        # Modules in another Python's syntax (templates, tests) do not compile, but nothing imports them.
        command = [str(venv / "bin" / "python"), "-m", "compileall", "-qq", "-j", "0", *folders]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


def check_imports(venv: Path) -> None:
    """Loads the packages that have compiled parts.

    Raises:
        SetupError: one does not load; with the Debian packages of missing system libraries.
    """
    doctor = [str(venv / "bin" / "python"), str(ROOT / "scripts" / "setup" / "doctor.py"), "--imports_only"]
    doctor += ["--timeout_s", "600"]  # a CUDA build, loaded for the first time on a busy machine
    # Even if a container forbids them: without the compiled forms each later import takes twice as long.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    answer = subprocess.run(doctor, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SetupError((answer.stdout + answer.stderr).strip())


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def _run(command: Sequence[str], environment: dict[str, str], failed: str) -> None:
    """Runs uv, which reports its work on stderr.

    Raises:
        SetupError: it returned another exit code than 0; the message is `failed`.
    """
    if subprocess.run(command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
        raise SetupError(failed, code=1)


if __name__ == "__main__":
    sys.exit(main())
