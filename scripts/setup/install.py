"""Sets facevox up in .venv: virtual environment, pinned packages, .env and requirements.txt.

    python3 scripts/setup/install.py                  # CPU build of torch
    python3 scripts/setup/install.py --torch cuda     # CUDA build of torch and the `cuda` extra

`make install` calls it with the Python that find_python.sh chose. It needs the standard library only.
What is set up already is skipped; an interrupted set-up is done again from the start.
pip's own settings (indexes, find-links, certificate, proxy) are handed to uv, which does not read them.

Writes: .venv/, .env (where there is none), requirements.txt. Exit codes: 0 done; 1 a package could not be
installed (its installer's words are shown); 2 the machine lacks something (one line); 75 stopped by Ctrl-C.
"""

import argparse
import ast
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
SUPPORTED = ((3, 11), (3, 12))
CUDA_SECTION = "# cuda"  # from this line of the lock on: what only `CUDA=1` installs
# Part of the record of a finished set-up: raise it when this program must run again everywhere.
FORMAT = 2
# Packages of so many modules that a process which must compile them starts 4 to 6 s later, each time where
# PYTHONDONTWRITEBYTECODE is set. The probe of `check_imports` compiles what it imports of the others.
COMPILED = ("transformers", "tensorflow", "keras", "librosa", "numba")


class SetupError(Exception):
    """What stops the set-up, in one line; `code` is the exit code."""

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
        epilog="example:\n  make install\n  make install CUDA=1 PYTHON=/usr/bin/python3.12",
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
    parser.add_argument(
        "--uv",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENT",
        help="only run the environment's uv, with pip's indexes, on what follows (default: set up)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Sets the project up; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    try:
        if args.uv is not None:
            return _run_uv(args.venv.absolute(), args.uv)
        with _one_at_a_time():
            install(args.venv.absolute(), build=args.torch)
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


def install(venv: Path, *, build: str = "keep") -> None:
    """Brings `venv` to the state that pyproject.toml and requirements.lock ask for.

    Args:
        venv: the folder of the virtual environment.
        build: of torch: "cpu", "cuda", or "keep" for the one that is there (cpu in a new environment).

    Raises:
        SetupError: the machine lacks something, or a package could not be installed.
    """
    _write_companions()
    state_file = venv / "facevox-install.json"
    state = _read_state(state_file)
    python = _venv_version(venv)
    is_cuda = build == "cuda" or (build == "keep" and state is not None and state.get("cuda") is True)
    wanted = {
        "format": FORMAT,
        "root": str(ROOT),
        "python": python,
        "cuda": is_cuda,
        "inputs": _inputs_digest(),
        "status": "done",
    }
    flavour = "CUDA" if is_cuda else "CPU"
    if python and state == wanted and _is_chosen_python(python):
        print(f"facevox is set up (Python {python}, {flavour})")
        return

    started = time.monotonic()
    reason = _why_anew(venv, python, state, is_cuda)
    if reason:
        if venv.exists():
            _say(f"making {venv.name} anew: {reason}")
        _make_venv(venv)
        state = None
    wanted["python"] = _venv_version(venv)
    if state != {**wanted, "status": "installed"}:
        # Written before the first package: a set-up that dies half-way is seen by the next one.
        state_file.write_text(json.dumps({**wanted, "status": "installing"}), encoding="utf-8")
        _say(f"installing the pinned packages ({flavour}, Python {wanted['python']}, 5 GB of disk)")
        _install_packages(venv, is_cuda=is_cuda)
        _say("compiling the largest packages, which makes every later start quicker")
        compile_packages(venv)
        state_file.write_text(json.dumps({**wanted, "status": "installed"}), encoding="utf-8")
    _say("checking that the compiled packages load")
    check_imports(venv)
    state_file.write_text(json.dumps(wanted), encoding="utf-8")
    seconds = time.monotonic() - started
    _say(f"facevox is set up in {seconds:.0f} s (Python {wanted['python']}, {flavour})")


# --- what is there already -------------------------------------------------------------------------------


def _read_state(file: Path) -> dict[str, Any] | None:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _inputs_digest() -> str:
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "requirements.lock"):
        digest.update((ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest()


def _venv_version(venv: Path) -> str:
    """The version of the environment's Python as "3.11.7"; "" when there is no working environment."""
    if not os.access(venv / "bin" / "python", os.X_OK):  # also false for a link whose Python is gone
        return ""
    try:
        settings = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^version\s*=\s*(\d+\.\d+\.\d+)", settings, re.MULTILINE)
    return match[1] if match else ""


def _is_chosen_python(version: str) -> bool:
    """Whether an environment of this version will do: any, unless PYTHON=… names another one."""
    running = ".".join(str(part) for part in sys.version_info[:3])
    return not os.environ.get("PYTHON") or version == running


def _why_anew(venv: Path, version: str, state: dict[str, Any] | None, is_cuda: bool) -> str:
    """Why the environment must be made from nothing; "" when it can be brought up to date in place."""
    if not version:
        return "it does not work"
    if tuple(int(part) for part in version.split(".")[:2]) not in SUPPORTED:
        return f"it has Python {version}"
    if not _is_chosen_python(version):
        return f"it has Python {version}, and PYTHON asks for {platform.python_version()}"
    if state and state.get("status") == "installing":
        return "the last set-up was interrupted"  # a package may be half there; uv's cache makes this quick
    if state and state.get("root") != str(ROOT):
        return "the repository was moved"
    if state and state.get("cuda") != is_cuda:
        return "it has the other build of torch"  # the builds leave packages behind that break each other
    check = [str(venv / "bin" / "python"), "-c", "import pip"]
    if subprocess.run(check, capture_output=True, check=False).returncode:
        return "it does not work"
    return ""


def _make_venv(venv: Path) -> None:
    if sys.version_info[:2] not in SUPPORTED:
        raise SetupError(
            f"facevox needs Python 3.11 or 3.12, this is {platform.python_version()}: "
            "run make install PYTHON=/path/to/python3.12"
        )
    _check_disk(venv)
    _say(f"making {venv.name} with Python {platform.python_version()}")
    _run(
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        dict(os.environ),
        "could not make the environment",
    )


def _check_disk(venv: Path) -> None:
    used_before = 5e9 if (venv / "bin").exists() else 0.0
    free = shutil.disk_usage(venv.parent).free + used_before
    if free < 5.5e9:  # the installed CPU set takes 4.8 GB
        raise SetupError(
            f"{venv.parent} has {free / 1e9:.1f} GB free; the set-up needs 5.5 GB: free some space"
        )


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Holds back a second set-up of the same folder (make demo and make test started together)."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another set-up of this folder is running; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: as before, one at a time is up to the user
            pass
        yield
    finally:
        os.close(folder)


# --- packages --------------------------------------------------------------------------------------------


def _install_packages(venv: Path, *, is_cuda: bool) -> None:
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    failed = "could not install uv, the installer"
    _run([*pip, "install", "--quiet", "uv", "-c", "requirements.lock"], dict(os.environ), failed)
    environment = {**os.environ, **uv_environment(_read_pip_settings(pip), dict(os.environ))}
    if is_cuda:
        environment.pop("UV_FIND_LINKS", None)  # local wheels are CPU builds
        torch = []
    else:
        torch = _find_cpu_torch(venv, environment)
    extras = "dev,cuda" if is_cuda else "dev"
    command = [*_uv_install(venv), "-c", "requirements.lock", "-e", f".[{extras}]", *torch]
    _run(command, environment, "the packages could not be installed (above)")


def _run_uv(venv: Path, arguments: Sequence[str]) -> int:
    uv = venv / "bin" / "uv"
    if not uv.exists():
        raise SetupError(f"{uv} does not exist: run make install")
    pip = _read_pip_settings([str(venv / "bin" / "python"), "-m", "pip"])
    pip.pop("find-links", None)  # one machine's wheels have no place in a lock
    environment = {**os.environ, **uv_environment(pip, dict(os.environ))}
    return subprocess.run([str(uv), *arguments], env=environment, cwd=ROOT, check=False).returncode


def _uv_install(venv: Path) -> list[str]:
    return [str(venv / "bin" / "uv"), "pip", "install", "--python", str(venv / "bin" / "python")]


def _read_pip_settings(pip: Sequence[str]) -> dict[str, str]:
    """pip's settings by name; the environment wins over [install], and that over [global], as in pip."""
    answer = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    settings = parse_pip_config(answer.stdout)
    if "index-url" not in settings:
        ask = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        default = subprocess.run([pip[0], "-c", ask], capture_output=True, text=True, check=False)
        settings["index-url"] = default.stdout.strip()  # "": uv's own default will do
    return settings


def parse_pip_config(text: str) -> dict[str, str]:
    """The settings in what `pip config list` prints (lines like `global.find-links='/wheels'`)."""
    levels: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.strip().rpartition(".")
        if section not in levels:
            continue
        with contextlib.suppress(ValueError, SyntaxError):
            levels[section][key] = str(ast.literal_eval(value.strip()))
    return {**levels["global"], **levels["install"], **levels[":env:"]}


def uv_environment(pip: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    """The variables that make uv look where pip does.

    What the user has set for uv already is left alone. Indexes travel in the environment, not as
    arguments, because their addresses may hold passwords.

    Args:
        pip: pip's settings (`parse_pip_config`).
        environment: the variables of this process.
    """
    made: dict[str, str] = {}
    extra = pip.get("extra-index-url", "").split()
    if not environment.get("UV_DEFAULT_INDEX") and not environment.get("UV_INDEX_URL"):
        if pip.get("index-url"):
            made["UV_DEFAULT_INDEX"] = pip["index-url"]
        if extra and not environment.get("UV_INDEX"):
            # pip takes the best file of all indexes. uv takes the best version, from the first index that
            # has it; and its default index would come last.
            made["UV_INDEX"] = " ".join([pip.get("index-url", ""), *extra]).strip()
            made["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    links = pip.get("find-links", "").split()
    if links:
        made["UV_FIND_LINKS"] = ",".join(links)
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        made["UV_NO_INDEX"] = "1"
    if pip.get("cert"):
        made["SSL_CERT_FILE"] = pip["cert"]
    if pip.get("client-cert"):
        made["SSL_CLIENT_CERT"] = pip["client-cert"]
    if pip.get("trusted-host"):
        made["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if pip.get("proxy"):
        made["HTTPS_PROXY"] = made["HTTP_PROXY"] = pip["proxy"]
    seconds = pip.get("timeout") or pip.get("default-timeout")
    if seconds:
        made["UV_HTTP_TIMEOUT"] = str(int(float(seconds)))
    return {name: value for name, value in made.items() if not environment.get(name)}


def _find_cpu_torch(venv: Path, environment: dict[str, str]) -> list[str]:
    """What makes uv take the CPU build of torch: where the machine's own sources hold it, else PyTorch's."""
    if sys.platform != "linux":
        return []  # elsewhere the package index has the CPU build
    match = re.search(
        r"^torch==(\S+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE
    )
    if match is None:
        raise SetupError("requirements.lock has no line torch==…: make it again with make lock", code=1)
    cpu = f"torch=={match[1]}+cpu"
    dry_run = [*_uv_install(venv), "--dry-run", "--no-deps", "--quiet"]
    if subprocess.run([*dry_run, cpu], env=environment, capture_output=True, check=False).returncode == 0:
        return [cpu]
    quick = {**environment, "UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}
    backend = ["--torch-backend", "cpu"]
    if subprocess.run([*dry_run, *backend, cpu], env=quick, capture_output=True, check=False).returncode == 0:
        return [cpu, *backend]
    _say("no CPU build of torch within reach: taking the package index's own, a CUDA build of several GB")
    return []


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
        # A module in another Python's syntax (templates, tests) does not compile, and nobody imports it.
        command = [str(venv / "bin" / "python"), "-m", "compileall", "-qq", "-j", "0", *folders]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


def check_imports(venv: Path) -> None:
    """Loads the packages that have compiled parts.

    Raises:
        SetupError: one does not load; names the Debian packages of the system libraries that are missing.
    """
    doctor = [str(venv / "bin" / "python"), str(ROOT / "scripts" / "setup" / "doctor.py"), "--imports_only"]
    # Even where a container says otherwise: without the compiled forms each later import takes twice as long.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    answer = subprocess.run(doctor, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SetupError((answer.stdout + answer.stderr).strip())


# --- files beside the environment ------------------------------------------------------------------------


def _write_companions() -> None:
    """Copies .env.example to .env where there is none, and writes requirements.txt from the lock."""
    example, settings = ROOT / ".env.example", ROOT / ".env"
    if example.exists() and not settings.exists():
        _replace(settings, example.read_text(encoding="utf-8"))
        _say("copied .env.example to .env")
    requirements = ROOT / "requirements.txt"
    text = requirements_text((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    if not requirements.exists() or requirements.read_text(encoding="utf-8") != text:
        _replace(requirements, text)


def requirements_text(lock: str) -> str:
    """requirements.txt for those who call pip: the lock without its CUDA part, and the project itself."""
    pins = lock.split(f"\n{CUDA_SECTION}", 1)[0].strip()
    head = (
        "# Written by `make install` from requirements.lock; change that one (make lock).\n"
        "# pip install -r requirements.txt, from the repository root. On Linux the package index gives\n"
        "# torch as a CUDA build; for the CPU build use make install.\n"
    )
    return f"{head}{pins}\n-e .\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


# --- running programs ------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def _run(command: Sequence[str], environment: dict[str, str], failed: str) -> None:
    """Runs an installer, shows its milestones, and all of its words when it fails.

    Raises:
        SetupError: it returned another exit code than 0; the message is `failed`.
    """
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip
    said: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in process.stdout or ():
            said.put(line.rstrip())
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    lines: list[str] = []
    started = time.monotonic()
    try:
        while True:
            try:
                line = said.get(timeout=10)
            except queue.Empty:  # a sign of life: a big download or the copying says nothing for long
                _say(f"… {time.monotonic() - started:.0f} s")
                continue
            if line is None:
                break
            lines.append(line)
            if re.match(
                r"(Resolved|Prepared|Installed|Uninstalled|Downloading|Building|warning:)", line.strip()
            ):
                _say(line.strip())
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.wait():
        print("\n".join(lines), file=sys.stderr)
        raise SetupError(failed, code=1)


if __name__ == "__main__":
    sys.exit(main())
