"""Builds Dockerfiles and runs their images for real, without a container engine: buildah, podman and crun.

No daemon and no registry: the base image is made from Debian's packages. Builds run in a chroot, containers
without network unless asked for. Everything is in one folder. Needs root on a Debian machine.

What this machine says about where packages come from (pip's settings) reaches a build as its users would hand
it over: as secrets, a build argument, and read-only mounts of local folders.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("buildah", "podman", "crun", "mmdebstrap")  # each in the Debian package of its name
# Set by `make docker-test`: there a machine that cannot build images is a failure.
REQUIRED = "FACEVOX_REQUIRE_CONTAINERS"
# A folder to keep and to use again; without it everything is built from scratch and removed at the end.
KEPT = "FACEVOX_CONTAINER_FOLDER"
DEBIAN = "bookworm"
BASE_IMAGE = f"localhost/facevox-test-base:{DEBIAN}"
FREE_BYTES = 25e9  # three images, their layers and uv's unpacking
BUILD_S = 1500.0

# crun cannot raise limits without CAP_SYS_RESOURCE, nor make control groups on every machine.
ENGINE_SETTINGS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
cgroups = "disabled"
netns = "none"
[engine]
events_logger = "file"
cgroup_manager = "cgroupfs"
runtime = "crun"
"""


class ContainersUnavailable(Exception):
    """Images cannot be built here; the text says why."""


def _run(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def install_programs() -> None:
    """Puts Debian's container tools on this machine where they are missing.

    Raises:
        ContainersUnavailable: This is not Debian, or not run by root, or the packages cannot be had.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        raise ContainersUnavailable("building images takes root")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ContainersUnavailable(f"missing: {' '.join(missing)}")
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    install = [*apt, "install", "-y", "--no-install-recommends", *missing]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    answer = _run(install, environment, 600)
    if answer.returncode:
        _run([*apt, "update"], environment, 600)
        answer = _run(install, environment, 600)
    if answer.returncode:
        raise ContainersUnavailable(f"apt-get install: {answer.stderr.strip().splitlines()[-1:]}")


@dataclass
class ImageTool:
    """Images and containers below one folder; `close` ends and removes them."""

    pip_settings: Mapping[str, str]
    folder: Path = Path()
    is_kept: bool = False
    _containers: list[str] = field(default_factory=list)

    def start(self) -> "ImageTool":
        """Makes the folder, the settings and the base image.

        Raises:
            ContainersUnavailable: Something that is needed is missing here.
        """
        install_programs()
        kept = os.environ.get(KEPT)
        self.is_kept = bool(kept)
        self.folder = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="facevox-images-", dir="/var/tmp"))
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            free = shutil.disk_usage(self.folder).free
            if free < FREE_BYTES:
                raise ContainersUnavailable(f"{self.folder}: {free / 1e9:.0f} GB free, 25 are needed")
            (self.folder / "containers.conf").write_text(ENGINE_SETTINGS)
            self._write_secrets()
            self._make_base()
        except BaseException:
            self.close()
            raise
        return self

    # --- commands ----------------------------------------------------------------------------------------

    @property
    def _environment(self) -> dict[str, str]:
        left_out = ("DOCKER_CONFIG", "PIP_", "UV_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return kept | {"CONTAINERS_CONF": str(self.folder / "containers.conf")}

    def _storage(self) -> list[str]:
        folder = self.folder
        return ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "overlay"]

    def buildah(self, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """Calls buildah on this storage."""
        return _run(["buildah", *self._storage(), *arguments], self._environment, timeout_s)

    def podman(self, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """Calls podman on this storage."""
        # crun refuses the second half of a hybrid cgroup layout: hidden, in a mount namespace of its own.
        hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", hide, "sh", "podman"]
        return _run([*command, *self._storage(), *arguments], self._environment, timeout_s)

    # --- images ------------------------------------------------------------------------------------------

    def _make_base(self) -> None:
        """Debian without Python, from the mirror that this machine itself uses."""
        if self.buildah("inspect", "--type", "image", BASE_IMAGE).returncode == 0:
            return
        archive = self.folder / "base.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", '--aptopt=Acquire::Languages "none"', DEBIAN]
        answer = _run([*command, str(archive), *_debian_mirror()], self._environment, 600)
        if answer.returncode:
            raise ContainersUnavailable(f"mmdebstrap: {answer.stderr.strip().splitlines()[-3:]}")
        # As NVIDIA's larger images do it: an entry point that speaks before the command does.
        greeting = 'ENTRYPOINT ["/bin/sh", "-c", "echo welcome; exec \\"$@\\"", "sh"]'
        answer = self.podman("import", "-q", "-c", greeting, str(archive), BASE_IMAGE, timeout_s=300)
        archive.unlink()
        if answer.returncode:
            raise ContainersUnavailable(f"podman import: {answer.stderr.strip().splitlines()[-3:]}")

    def _write_secrets(self) -> None:
        """pip.conf and the certificate authorities, as this machine has them, for the build alone."""
        names = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "timeout")
        lines = [f"{name} = {self.pip_settings[name]}" for name in names if self.pip_settings.get(name)]
        if self.pip_settings.get("cert"):
            shutil.copy(self.pip_settings["cert"], self.folder / "ca.crt")
            lines.append("cert = /run/secrets/ca.crt")
        (self.folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))

    def _secrets(self) -> list[str]:
        files = {"pip_conf": self.folder / "pip.conf", "ca_crt": self.folder / "ca.crt"}
        return [f"--secret=id={name},src={path}" for name, path in files.items() if path.is_file()]

    def _local_folders(self) -> list[str]:
        """Mounts of the folders on this machine that packages come from, under the same names."""
        named = " ".join(
            self.pip_settings.get(key, "") for key in ("index-url", "extra-index-url", "find-links")
        )
        paths = {Path(word.removeprefix("file://")) for word in named.split()}
        # A page of an index names files next to its own folder.
        paths |= {path.parent for path in paths if path.name == "simple"}
        return [
            f"--volume={path}:{path}:ro" for path in sorted(paths) if path.is_absolute() and path.is_dir()
        ]

    def build(self, dockerfile: str, image: str, **arguments: str) -> float:
        """Builds a Dockerfile of the repository on the Debian base for CPUs; returns the seconds it took."""
        links = self.pip_settings.get("find-links", "")
        given = {"BASE_IMAGE": BASE_IMAGE, "ACCELERATOR": "cpu"} | arguments
        if links:
            given["UV_FIND_LINKS"] = ",".join(links.split())
        started_s = time.monotonic()
        answer = self.buildah(
            *("build", "--isolation", "chroot", "--network", "host", "--layers"),
            *("--format", "docker"),  # health checks do not exist in the other one
            *self._secrets(),
            *self._local_folders(),
            *(f"--build-arg={name}={value}" for name, value in given.items()),
            *("-f", dockerfile, "-t", image, str(REPOSITORY)),
            timeout_s=BUILD_S,
        )
        assert answer.returncode == 0, f"{answer.stdout[-4000:]}\n{answer.stderr[-4000:]}"
        return time.monotonic() - started_s

    def size_gb(self, image: str) -> float:
        """Size of an image with all below it, as `docker images` says."""
        return int(self.podman("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e9

    # --- containers --------------------------------------------------------------------------------------

    def run(
        self, image: str, *command: str, options: Sequence[str] = (), timeout_s: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command in a new container, which is removed afterwards."""
        return self.podman("run", "--rm", *options, image, *command, timeout_s=timeout_s)

    def start_container(self, name: str, image: str, *command: str, options: Sequence[str] = ()) -> None:
        """Starts a container that runs until `stop_container` or `close`."""
        self._containers.append(name)
        answer = self.podman("run", "--detach", "--name", name, *options, image, *command)
        assert answer.returncode == 0, answer.stderr

    def stop_container(self, name: str, seconds: int = 60) -> int:
        """Ends a container as `docker stop` does; returns its exit code (137: it had to be killed)."""
        self.podman("stop", "--time", str(seconds), name, timeout_s=seconds + 120)
        answer = self.podman("inspect", "--format", "{{.State.ExitCode}}", name)
        self.podman("rm", "--force", name)
        self._containers.remove(name)
        return int(answer.stdout)

    def close(self) -> None:
        """Ends containers that still run, and removes the folder unless it is to be kept."""
        for name in list(self._containers):
            self.podman("rm", "--force", "--time", "0", name)
        self._containers.clear()
        with contextlib.suppress(OSError):
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in sorted((one for one in mounts if one.startswith(f"{self.folder}/")), reverse=True):
                _run(["umount", mount], os.environ, 120)
        if not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(is_true: Callable[[], bool], what: str, seconds: float) -> None:
    """Returns once `is_true()` is; raises TimeoutError naming `what` when it takes too long."""
    end_s = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


def _debian_mirror() -> list[str]:
    """The mirror in this machine's own list; none: mmdebstrap's default."""
    for file in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if not file.is_file():
            continue
        for line in file.read_text().splitlines():
            words = line.split()
            if words and words[0] in ("URIs:", "deb"):
                found = [word for word in words[1:] if word.startswith(("http:", "https:"))]
                if found:
                    return found[:1]
    return []


def start_or_skip(pip_settings: Mapping[str, str]) -> ImageTool:
    """A tool for these tests; they are skipped (or fail, see REQUIRED) where images cannot be built."""
    try:
        return ImageTool(pip_settings).start()
    except ContainersUnavailable as error:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(f"no containers: {error}")
