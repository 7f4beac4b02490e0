"""Reports on this machine and this set-up: versions, GPU, weights, disk, optional parts.

    make doctor

One line each: `ok` is there, `--` is an optional part that is not, `!!` keeps the main job from running.
It needs the standard library only, so that it also works when the set-up is broken.

Exit codes: 0 the main job can run; 1 it cannot; 2 bad usage.
"""

import argparse
import contextlib
import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
OK, ABSENT, FAULT = "ok", "--", "!!"
MAIN_PACKAGES = (
    "torch",
    "ai-edge-litert",
    "opencv-python",
    "deepface",
    "tensorflow",
    "transformers",
    "numpy",
    "av",
)
# Debian's package for each system library that one of our wheels loads and does not include.
SYSTEM_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libxcb.so.1": "libxcb1",
    "libgomp.so.1": "libgomp1",
    "libsndfile.so": "libsndfile1",
}
OPENCV_LIBRARIES = ("libGL.so.1", "libglib-2.0.so.0", "libgthread-2.0.so.0")  # of its desktop build
# The packages with compiled parts, without TensorFlow, whose import costs seconds.
PROBE = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
sys.modules["tensorflow"] = None
names = "cv2 av ai_edge_litert.interpreter torch onnxruntime soundfile scipy sklearn facevox lc_pytorch"
for name in names.split():
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, " ".join(str(error).split()), sep="\\t")
torch = sys.modules.get("torch")
if torch is not None:
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    print("GPU", torch.__version__, torch.version.cuda or "", names, sep="\\t")
"""
Line = tuple[str, str, str]  # mark, topic, text


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def get_args_parser() -> argparse.ArgumentParser:
    """The command line of this program."""
    parser = _Parser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog="example:\n  make doctor",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--timeout_s",
        type=float,
        default=60.0,
        help="seconds that one question (GPU, imports, weights) may take (default: 60)",
    )
    parser.add_argument(
        "--imports_only",
        action="store_true",
        help="only say which compiled packages do not load (default: off)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the lines; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.imports_only:
        mark, _, text = _import_line(*_ask(PROBE, args.timeout_s))
        print(text)
        return 1 if mark == FAULT else 0
    faults = 0
    for mark, topic, text in examine(args.timeout_s):
        faults += mark == FAULT
        print(f"{mark}  {topic:<13} {text}", flush=True)
    if faults:
        print(
            f"the main job cannot run: see the {faults} {'line' if faults == 1 else 'lines'} marked {FAULT}"
        )
    else:
        print("the main job can run: make demo, make extract DATASET=/path/to/videos")
    return 1 if faults else 0


def examine(timeout_s: float) -> Iterator[Line]:
    """All lines in order; each question has its own time limit."""
    yield python_line(sys.version_info[:3])
    yield OK, "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield from _machine_lines()
    yield from package_lines(_installed_versions(), timeout_s)
    answer = _ask(PROBE, timeout_s)
    yield _import_line(*answer)
    yield _gpu_line(*answer)
    yield from _weight_lines(timeout_s)
    yield from _optional_lines()
    yield _data_line()


def python_line(version: tuple[int, int, int]) -> Line:
    """The line about the Python version, a fault if it is not supported."""
    text = ".".join(str(part) for part in version)
    if (3, 11) <= version[:2] <= (3, 13):
        return OK, "Python", f"{text} ({sys.executable})"
    return (
        FAULT,
        "Python",
        f"{text}; facevox needs 3.11, 3.12 or 3.13: make install PYTHON=/path/to/python3.13",
    )


def _machine_lines() -> Iterator[Line]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield OK, "cores", f"{usable} of {os.cpu_count()}"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        mark, note = (OK, "") if memory > 3.5 else (ABSENT, "; the demo needs at least 4 GiB")
        yield mark, "memory", f"{memory:.1f} GiB{note}"
    except (ValueError, OSError):
        yield ABSENT, "memory", "unknown on this system"
    free = shutil.disk_usage(ROOT).free / 1e9
    yield (
        (OK if free > 1 else FAULT),
        "disk",
        f"{free:.1f} GB free in {ROOT}" + ("" if free > 1 else ": free some"),
    )


# --- packages --------------------------------------------------------------------------------------------


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed_versions() -> dict[str, str]:
    versions = ((entry.metadata["Name"], entry.version) for entry in metadata.distributions())
    return {_normalised(name): version for name, version in versions if name}


def package_lines(installed: dict[str, str], timeout_s: float) -> Iterator[Line]:
    """The versions of the main packages, and how the installed set compares with the lock.

    Args:
        installed: versions by normalised name, from this Python.
        timeout_s: what the comparison may take.
    """
    if "facevox" not in installed:
        yield FAULT, "packages", "facevox is not installed in this Python: make install"
        return
    main = ", ".join(f"{name} {installed[name]}" for name in MAIN_PACKAGES if name in installed)
    yield OK, "packages", main
    if not (Path(sys.prefix) / "bin" / "uv").exists():
        yield ABSENT, "lock", "not compared: this environment has no uv"
        return
    program = [sys.executable, str(ROOT / "scripts" / "setup" / "install.py"), "--check"]
    answer, fault = _ask([*program, "--venv", sys.prefix], timeout_s)
    yield (ABSENT, "lock", fault) if fault else (OK, "lock", answer)


def _ask(code_or_command: str | Sequence[str], timeout_s: float) -> tuple[str, str]:
    """The output of a short program and "", or "" and the reason why there is none."""
    command = [sys.executable, "-c", code_or_command] if isinstance(code_or_command, str) else code_or_command
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return "", f"not done within {timeout_s:g} s: a busy machine needs a longer --timeout_s"
    except OSError as error:
        return "", " ".join(str(error).split())[:200]
    if answer.returncode:
        return "", (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
    return answer.stdout.strip("\n"), ""


def _import_line(answer: str, fault: str) -> Line:
    problems = dict(
        line.split("\t", 1) for line in answer.splitlines() if line and not line.startswith("GPU")
    )
    if fault:
        problems["the compiled packages"] = fault
    if problems:
        return FAULT, "imports", describe_problems(problems, _missing_libraries())
    return OK, "imports", "the compiled packages load"


def describe_problems(problems: dict[str, str], missing: Sequence[str]) -> str:
    """One line about packages that do not load, and what to do.

    Args:
        problems: the loading error by package.
        missing: names of system libraries that this machine lacks.
    """
    named = re.findall(r"(\S+\.so[.\d]*): cannot open shared object", " ".join(problems.values()))
    if not named:
        text = "; ".join(f"{name}: {error}" for name, error in problems.items())
        return f"{text}; if make install does not fix it: rm -rf .venv && make install"
    libraries = list(dict.fromkeys([*named, *missing]))
    packages = sorted({SYSTEM_LIBRARIES[name] for name in libraries if name in SYSTEM_LIBRARIES})
    way = f"sudo apt-get install {' '.join(packages)}" if packages else "install what provides it"
    return (
        f"{', '.join(problems)} cannot load {', '.join(libraries)}: {way} (Debian), then make install again"
    )


def _missing_libraries() -> list[str]:
    missing = []
    for name in OPENCV_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


# --- GPU, weights, optional parts ------------------------------------------------------------------------


def _gpu_line(answer: str, fault: str) -> Line:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    cards, _ = _ask(query, 5.0) if shutil.which("nvidia-smi") else ("", "")
    line = next((line for line in answer.splitlines() if line.startswith("GPU\t")), "")
    if not line:
        return ABSENT, "GPU", f"not seen, torch does not load: {fault or 'see imports'}"
    _, version, cuda, names = line.split("\t")
    return gpu_line(version, cuda, names, "; ".join(cards.splitlines()))


def gpu_line(version: str, cuda: str, names: str, cards: str) -> Line:
    """The line about the GPU, from the reports of torch and of the driver.

    Args:
        version: version of torch.
        cuda: the CUDA version torch was built for, "" for a CPU build.
        names: the devices that torch sees, "" for none.
        cards: the devices that nvidia-smi sees, "" for none.
    """
    if names:
        return OK, "GPU", f"{names} (torch {version}, CUDA {cuda}; driver: {cards or 'not asked'})"
    if cards and not cuda:
        return ABSENT, "GPU", f"{cards}, but torch {version} is a CPU build: make install CUDA=1"
    if cards:
        return (
            ABSENT,
            "GPU",
            f"{cards}, but torch {version} (CUDA {cuda}) does not see it: is the driver too old?",
        )
    return ABSENT, "GPU", f"none; torch {version} works on the CPU"


def _weight_lines(timeout_s: float) -> Iterator[Line]:
    listing = [sys.executable, str(ROOT / "scripts" / "setup" / "fetch_weights.py"), "--list"]
    answer, fault = _ask(listing, timeout_s)
    if fault:
        yield ABSENT, "weights", f"could not be checked: {fault}"
    for line in answer.splitlines():
        state, _, rest = line.partition("  ")
        name, _, path = rest.partition("  ")
        hint = "" if state == "present" else f"; make weights ONLY={name}"
        yield (OK if state == "present" else ABSENT), "weights", f"{name}: {state} ({path}{hint})"


def _optional_lines() -> Iterator[Line]:
    modules = {
        "dlib": "detector dlib; .venv/bin/uv pip install -e '.[dlib]' (needs cmake and a C++ compiler)",
        "mtcnn": "detector mtcnn; .venv/bin/uv pip install -e '.[mtcnn]'",
    }
    for name, purpose in modules.items():
        if util.find_spec(name):
            yield OK, name, "installed"
        else:
            yield ABSENT, name, f"not installed: {purpose}"
    browser = _find_browser()
    if browser:
        yield OK, "browser", browser
    else:
        yield ABSENT, "browser", "no Chromium for the browser tests: .venv/bin/playwright install chromium"
    commands = {"SLURM": ("sbatch",), "containers": ("apptainer", "podman", "docker", "buildah")}
    for topic, names in commands.items():
        paths = [path for path in map(shutil.which, names) if path]
        yield (
            (OK, topic, ", ".join(paths)) if paths else (ABSENT, topic, f"none of {', '.join(names)} on PATH")
        )


def _find_browser() -> str:
    """The path of a Chromium: playwright's own or the system's; "" when there is none."""
    home = os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or "~/.cache/ms-playwright"
    with contextlib.suppress(RuntimeError):  # a user without a home folder
        if browsers := sorted(Path(home).expanduser().glob("chromium*")):
            return str(browsers[-1])
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


def _data_line() -> Line:
    folder = Path(os.environ.get("FACEVOX_TEST_DATA") or ROOT.parent / "shared" / "data")
    if (folder / "MANIFEST.csv").is_file():
        return OK, "sample data", str(folder)
    return ABSENT, "sample data", "no real sample data (FACEVOX_TEST_DATA): tests on real data are skipped"


if __name__ == "__main__":
    sys.exit(main())
