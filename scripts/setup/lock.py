"""Pins every version in requirements.lock, or checks that the lock fits the project.

    make lock                                   # keep the pins that still fit, add what is missing
    make lock UPGRADE=1                         # the newest versions that go together
    .venv/bin/python scripts/setup/lock.py --check

The lock is a constraints file for the `dev` extra on Linux and Python 3.11 (tried for 3.12 as well); what
only CUDA builds need stands in a part of its own at the end. `--check` needs no network: it follows
the requirements of the installed packages and compares names and versions with the pins.

Writes: requirements.lock. Exit codes: 0 done; 1 the lock does not fit; 2 bad usage or no resolution.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode, UserError

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
CUDA_SECTION = "# cuda"
PLATFORM = "x86_64-manylinux_2_28"
# What comes with a CUDA build of torch and torchvision, and with nothing else.
CUDA_NAMES = re.compile(r"nvidia-|cuda-|triton|torchvision")


def get_args_parser() -> argparse.ArgumentParser:
    """The command line of this program."""
    parser = cli.make_parser(__doc__, "make lock")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing; needs no network")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that go together")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the lock; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.check:
        faults = find_faults(LOCK.read_text(encoding="utf-8"), (ROOT / "pyproject.toml").read_text("utf-8"))
        for fault in faults:
            print(f"requirements.lock: {fault}", file=sys.stderr)
        if faults:
            return ExitCode.SOME_FAILED
        print(f"requirements.lock fits the project ({len(read_pins(LOCK.read_text('utf-8')))} pins)")
        return ExitCode.DONE
    old = read_pins(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    pins = _resolve("3.11", {} if args.upgrade else old)
    _resolve("3.12", pins, is_fixed=True)  # raises when the same versions do not go together there
    text = lock_text(pins)
    LOCK.write_text(text, encoding="utf-8")
    changed = sorted(name for name in {*old, *pins} if old.get(name) != pins.get(name))
    for name in changed:
        print(f"{name}: {old.get(name, 'new')} -> {pins.get(name, 'gone')}")
    print(f"requirements.lock: {len(pins)} pins, {len(changed)} changed; make install takes them over")
    return ExitCode.DONE


def read_pins(lock: str) -> dict[str, str]:
    """The versions in a lock by normalised name; comments are passed over, local parts (+cpu) dropped."""
    lines = (line.split("#", 1)[0].split(";", 1)[0].strip() for line in lock.splitlines())
    pairs = (line.split("==", 1) for line in lines if "==" in line)
    return {normalised(name): version.split("+", 1)[0].strip() for name, version in pairs}


def normalised(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower().strip()


def lock_text(pins: dict[str, str]) -> str:
    """The text of the lock: the pins in order, those that only CUDA builds need in a part at the end."""
    cuda = {name for name in pins if CUDA_NAMES.match(name)}
    head = "# Made by `make lock`: every version that `make install` takes. Do not edit by hand.\n"
    common = "".join(f"{name}=={pins[name]}\n" for name in sorted(pins.keys() - cuda))
    return (
        head
        + common
        + f"{CUDA_SECTION}: what only `make install CUDA=1` adds\n"
        + "".join(f"{name}=={pins[name]}\n" for name in sorted(cuda))
    )


def _resolve(python: str, pins: dict[str, str], *, is_fixed: bool = False) -> dict[str, str]:
    """The versions that uv finds for one Python; `pins` are kept where they fit, or always (`is_fixed`).

    Raises:
        UserError: they do not go together; uv has said why on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, fixed = Path(folder, "output.txt"), Path(folder, "fixed.txt")
        text = "".join(f"{name}=={version}\n" for name, version in pins.items())
        output.write_text("" if is_fixed else text, encoding="utf-8")
        fixed.write_text(text if is_fixed else "", encoding="utf-8")
        command = [sys.executable, str(ROOT / "scripts" / "setup" / "install.py"), "--uv", "pip", "compile"]
        command += ["pyproject.toml", "--extra", "dev", "--extra", "cuda", "--quiet", "--no-header"]
        command += ["--no-annotate", "--python-version", python, "--python-platform", PLATFORM]
        command += ["-c", str(fixed), "-o", str(output)]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise UserError(f"no set of versions for Python {python} (reason above): change pyproject.toml")
        return read_pins(output.read_text(encoding="utf-8"))


def find_faults(lock: str, pyproject: str) -> list[str]:
    """What in the lock does not fit the project and the packages installed here, one line each.

    Args:
        lock: text of requirements.lock.
        pyproject: text of pyproject.toml.
    """
    from importlib import metadata

    from packaging.requirements import Requirement

    project = tomllib.loads(pyproject)["project"]
    pins = read_pins(lock)
    faults: list[str] = []
    seen: set[tuple[str, str]] = set()
    reached: set[str] = set()
    waiting = [(Requirement(line), "pyproject.toml") for line in _own_requirements(project, "dev")]
    while waiting:
        requirement, origin = waiting.pop()
        name = normalised(requirement.name)
        extras = sorted(requirement.extras) or [""]
        if name not in reached:
            reached.add(name)
            if name not in pins:
                faults.append(f"{name} is not pinned ({origin} needs it): run make lock")
        if name in pins and not requirement.specifier.contains(pins[name], prereleases=True):
            faults.append(f"{name}=={pins[name]} is not {requirement.specifier} ({origin}): run make lock")
        for extra in extras:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                installed = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                faults.append(f"{name} is not installed ({origin} needs it): run make install")
                break
            version = installed.version.split("+", 1)[0]
            if name in pins and version != pins[name]:
                faults.append(f"{name}=={pins[name]} is pinned, {version} installed: run make install")
            for line in installed.requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append((needed, name))
    # Markers of another Python or system reach other packages: only the lock's own can say "too many".
    if sys.version_info[:2] == (3, 11) and sys.platform == "linux":
        spare = sorted(name for name in pins.keys() - reached if not CUDA_NAMES.match(name))
        faults += [f"{name} is pinned and nothing needs it: run make lock" for name in spare]
    return list(dict.fromkeys(faults))


def _own_requirements(project: dict[str, dict[str, list[str]]], extra: str) -> list[str]:
    """The project's requirements with one extra, its references to its own extras (facevox[…]) followed."""
    lines = list(project["dependencies"])
    waiting, seen = [extra], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in project["optional-dependencies"][name]:
            own = re.fullmatch(r"facevox\[(.*)\]", line.replace(" ", ""))
            if own:
                waiting += own[1].split(",")
            else:
                lines.append(line)
    return lines


if __name__ == "__main__":
    sys.exit(cli.run(main))
