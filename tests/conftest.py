"""Fixtures that tests share: scripts as modules, the real sample data, a small set of example data."""

import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

# Processes that test side by side share the cores: more threads would only wait for each other. Before NumPy
# and torch are imported, which look at it once.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(_share, 1)))

# A CUDA build of torch brings triton, whose library crashes where TensorFlow was loaded first. Of facevox's
# programs none loads both.
if importlib.util.find_spec("triton") is not None:
    importlib.import_module("triton._C.libtriton")

# Ignored under nohup and in a shell's background, and so by all programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


def load_script_module(name: str) -> ModuleType:
    """A script below `scripts/` (or `benchmarks/`) as a module: `preprocessing/extract_faces`."""
    path = next(p for p in (REPOSITORY / f"scripts/{name}.py", REPOSITORY / f"{name}.py") if p.exists())
    module_name = "script_" + name.replace("/", "_")
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load_script():
    return load_script_module


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    folder = Path(os.environ.get("FACEVOX_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "MANIFEST.csv").is_file():
        pytest.skip("no real sample data; set FACEVOX_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def example_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight example people with two clips of one second each, made once a session."""
    from facevox import cli

    folder = tmp_path_factory.mktemp("example_data")
    script = load_script_module("demo/make_example_data")
    options = [
        "--num_people",
        "8",
        "--clips_per_person",
        "2",
        "--clip_s",
        "1",
        "--seed",
        "0",
        "--workers",
        "2",
    ]
    assert cli.run(script.main, ["--output_dir", str(folder), *options]) == 0
    return folder


@pytest.fixture(scope="session")
def example_videos(example_data_dir: Path) -> Path:
    return example_data_dir / "videos"


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fails if a worker is left behind: it would keep pytest from ending, for ever if it ignores signals."""
    yield
    left = [child for child in multiprocessing.active_children() if child.daemon]
    for child in left:
        child.kill()
    assert not left, f"tests left processes behind: {left}"


@pytest.fixture(autouse=True)
def _no_cluster_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the SLURM array that the tests may happen to run in."""
    for name in ("NUM_SHARDS", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the packages log, as programs show it."""
    from facevox.logs import PACKAGES

    for name in PACKAGES:
        caplog.set_level("INFO", name)
    return caplog


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Limits torch to one thread: tiny networks are fastest so, especially on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
