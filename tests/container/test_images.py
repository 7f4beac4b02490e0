"""The images: built for real on a Debian without Python; run by a stranger, offline, on read-only disks."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from docker_files import is_in_context
from image_tool import REPOSITORY, ImageTool, wait_until
from packaging.utils import canonicalize_name

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

# Some user that the image does not know; no network, no rights, nothing to write to but /tmp.
STRANGER = 23456
CLOSED = (
    *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    f"--user={STRANGER}:{STRANGER}",
)
SERVER_OPTIONS = (*CLOSED, "--tmpfs=/app/logs")

HELP_OF_EVERY_PROGRAM = """
import subprocess, sys
from pathlib import Path

programs = [
    path
    for folder in ("scripts", "examples", "emotion", "lipsync")
    for path in sorted(Path(folder).rglob("*.py"))
    if '\\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
]
for path in programs:
    answer = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    if answer.returncode or not answer.stdout.startswith("usage: "):
        sys.exit(f"{path}: {answer.returncode}: {answer.stdout}{answer.stderr}")
print(len(programs))
"""

IMPORT_EVERY_MODULE = """
import importlib, pkgutil, sys

for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
"""

ASK_SERVER = """
import json, sys, urllib.error, urllib.request

answers = {}
for path in ("/health", "/ready", "/"):
    try:
        with urllib.request.urlopen("http://127.0.0.1:8001" + path, timeout=120) as answer:
            answers[path] = answer.status
    except urllib.error.HTTPError as error:
        answers[path] = error.code
    except OSError:
        answers[path] = 0
print(json.dumps(answers))
"""


def python(tool: ImageTool, image: str, code: str, *arguments: str, options: Sequence[str] = CLOSED) -> str:
    """What a program prints in a new container of the image."""
    answer = tool.run(image, "python", "-c", code, *arguments, options=options)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def settings_of(tool: ImageTool, image: str) -> dict:
    (found,) = json.loads(tool.podman("image", "inspect", image).stdout)
    return found["Config"] | {"Healthcheck": found.get("Healthcheck")}


def open_folder(path: Path) -> Path:
    """A folder that a stranger may write into, as a shared disk has them."""
    path.mkdir(parents=True)
    path.chmod(0o777)
    return path


# --- what is inside ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["facevox_image", "emotion_image", "server_image"])
def test_image_holds_the_sources_and_nothing_that_was_kept_out(image_tool, request, name):
    image = request.getfixturevalue(name)
    listed = image_tool.run(image, "find", ".", "-type", "f", "-printf", "%P\\0").stdout.split("\0")
    made = ("__pycache__/", "facevox.egg-info/")  # by the installation
    files = [file for file in listed if file and not any(part in file for part in made)]
    assert {"emotion/server.py", "scripts/preprocessing/extract_faces.py", "lipsync/config.yaml"} <= set(
        files
    )
    rules = (REPOSITORY / ".dockerignore").read_text()
    assert [file for file in files if not is_in_context(rules, file) and file != ".env"] == []
    if ".env" in files:  # nobody's own settings, but the documented ones
        assert image_tool.run(image, "cmp", ".env", ".env.example").returncode == 0
    folders = ("data", "runs", "models", "checkpoints", "/weights", "/tmp", "/var/lib/apt/lists")
    found = image_tool.run(image, "find", *folders, "-type", "f", options=("--user=0",))
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", ["facevox_image", "emotion_image", "server_image"])
def test_image_keeps_no_secret_and_no_installer_of_the_build(image_tool, request, name):
    image = request.getfixturevalue(name)
    traces = "ls -A /run/secrets; cat /etc/pip.conf; command -v uv; ls -Ad ~root/.cache ~root/.config"
    found = image_tool.run(image, "sh", "-c", traces, options=("--user=0",))
    assert found.stdout == ""
    history = image_tool.podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    assert "install.sh" in history
    assert "index-url" not in history


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        (
            "facevox_image",
            {"torch", "transformers", "deepface"},
            {"tensorflow", "keras", "torchvision", "pytest"},
        ),
        ("emotion_image", {"tensorflow", "keras", "fastapi"}, {"torch", "deepface", "pytest"}),
        (
            "server_image",
            {"fastapi", "ai_edge_litert"},
            {"tensorflow", "keras", "torch", "deepface", "pytest"},
        ),
    ],
)
def test_packages_are_the_locked_ones_of_their_side(image_tool, request, name, there, absent):
    image = request.getfixturevalue(name)
    code = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    assert set(python(image_tool, image, code, *there, *absent).split()) == there
    # One module cv2: that of opencv-python.
    problems = image_tool.run(image, "pip", "check", options=CLOSED).stdout.splitlines()
    assert [line for line in problems if "opencv-contrib-python-headless" not in line] in (
        *([], ["No broken requirements found."]),
    )
    lines = image_tool.run(image, "pip", "list", "--format=freeze", options=CLOSED).stdout.splitlines()
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]
    pins = {(package["name"], package["version"]) for package in lock}
    found = {
        (canonicalize_name(name), version.split("+")[0])
        for name, _, version in (line.partition("==") for line in lines)
    }
    assert {name for name, version in found if (name, version) not in pins} == {"pip"}


@pytest.mark.parametrize("name", ["facevox_image", "emotion_image", "server_image"])
def test_image_says_what_it_is_and_runs_as_a_plain_user(image_tool, request, name):
    image = request.getfixturevalue(name)
    settings = settings_of(image_tool, image)
    assert settings["User"] == "10001:10001"
    assert settings["WorkingDir"] == "/app"
    assert settings["StopSignal"] in ("15", "SIGTERM")
    assert not settings.get("Entrypoint")  # the base image has one
    title = "facevox" if name == "facevox_image" else "facevox-emotion"
    labels = {key.removeprefix("org.opencontainers.image."): text for key, text in settings["Labels"].items()}
    assert (labels["title"], labels["licenses"]) == (title, "MIT")
    assert {"description", "version", "revision"} <= labels.keys()
    assert bool(settings["Healthcheck"]) == (name != "facevox_image")
    answer = image_tool.run(image, "sh", "-c", "id -u; touch /app/x /app/scripts/x")
    assert answer.stdout == "10001\n"
    assert answer.stderr.count("Permission denied") == 2


@pytest.mark.parametrize("name", ["facevox_image", "emotion_image", "server_image"])
def test_every_program_shows_its_help(image_tool, request, name):
    programs = python(image_tool, request.getfixturevalue(name), HELP_OF_EVERY_PROGRAM)
    assert int(programs) >= 40


def test_every_module_of_the_torch_side_loads_without_tensorflow(image_tool, facevox_image):
    python(
        image_tool,
        facevox_image,
        IMPORT_EVERY_MODULE,
        "facevox",
        "lc_pytorch",
        "lipsync",
        "emotion.landmarks",
    )


# --- what it does ------------------------------------------------------------------------------------------


def test_documented_command_runs(image_tool, facevox_image):
    """docker run facevox python scripts/preprocessing/extract_faces.py --help"""
    answer = image_tool.run(facevox_image, "python", "scripts/preprocessing/extract_faces.py", "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith("usage: extract_faces.py")


def test_face_voice_part_of_the_demo_runs_offline_for_a_stranger(image_tool, facevox_image, tmp_path):
    runs = open_folder(tmp_path / "runs")
    answer = image_tool.run(
        facevox_image,
        *("python", "scripts/demo/run_demo.py", "--parts", "face-voice", "--num_people", "12"),
        *("--output_dir", "runs/demo"),
        options=(*CLOSED, f"--volume={runs}:/app/runs"),
        timeout_s=1200,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    results = json.loads((runs / "demo" / "demo.json").read_text())
    assert len(results["stages"]) == 8, results
    for file in ("report.html", "face_voice/best_model.pth", "face_voice/results.csv"):
        assert (runs / "demo" / file).stat().st_size > 0
        assert (runs / "demo" / file).stat().st_uid == STRANGER


@pytest.fixture(scope="module")
def expressions(image_tool, facevox_image, tmp_path_factory) -> Path:
    """A folder `runs` with AIHub-shaped archives in `runs/example/aihub`, made in the torch image."""
    runs = open_folder(tmp_path_factory.mktemp("expressions") / "runs")
    answer = image_tool.run(
        facevox_image,
        *("python", "scripts/demo/make_example_data.py", "--shape", "aihub", "--num_people", "8"),
        *("--output_dir", "runs/example"),
        options=(*CLOSED, f"--volume={runs}:/app/runs"),
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return runs


def test_landmarks_are_trained_in_the_torch_image(image_tool, facevox_image, expressions):
    answer = image_tool.run(
        facevox_image,
        *("python", "emotion/landmarks/train.py", "--zips", "runs/example/aihub/archives"),
        *("--landmarks_dir", "runs/landmarks", "--save_dir", "runs/landmark_model", "--num_epochs", "2"),
        *("--batch_size", "8", "--log_dir", "runs/logs"),
        options=(*CLOSED, f"--volume={expressions}:/app/runs"),
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]


def test_server_serves_what_the_emotion_image_trained(image_tool, emotion_image, server_image, expressions):
    folders = ("--data_dir_train", "runs/crops/train", "--data_dir_val", "runs/crops/validation")
    common = (*folders, "--img_size", "96", "--log_dir", "runs/logs")
    small = (
        *(
            "--backbone_weights",
            "none",
            "--epochs_head",
            "0",
            "--epochs_finetune",
            "1",
            "--unfreeze_from",
            "0",
        ),
        *("--freeze_bn_mode", "none", "--batch_size", "8", "--model_dir", "runs/models"),
    )
    for command in (
        ("emotion/preprocess.py", *common, "--data_dir_raw", "runs/example/aihub/archives"),
        ("emotion/main.py", *common, *small),
    ):
        options = (*CLOSED, f"--volume={expressions}:/app/runs")
        answer = image_tool.run(emotion_image, "python", *command, options=options, timeout_s=900)
        assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    volume = f"--volume={expressions}/models:/app/models:ro"
    image_tool.start_container("serving", server_image, options=(*SERVER_OPTIONS, volume))
    wait_until(lambda: ask(image_tool, "serving")["/ready"] == 200, "a server with a model", 120)
    assert image_tool.stop_container("serving") == 0


def ask(tool: ImageTool, container: str) -> dict[str, int]:
    """The status codes of the server's pages, asked from within; 0: no answer."""
    answer = tool.podman("exec", container, "python", "-c", ASK_SERVER)
    assert answer.returncode == 0, answer.stderr + tool.podman("logs", container).stdout
    return json.loads(answer.stdout)


@pytest.mark.parametrize("name", ["emotion_image", "server_image"])
def test_server_without_a_model_is_healthy_and_not_ready(image_tool, request, name):
    image_tool.start_container("server", request.getfixturevalue(name), options=SERVER_OPTIONS)
    wait_until(lambda: ask(image_tool, "server")["/health"] == 200, "a server", 120)
    assert ask(image_tool, "server") == {"/health": 200, "/ready": 503, "/": 200}
    assert image_tool.podman("healthcheck", "run", "server").returncode == 0
    # It ends in good order when asked to, and does not have to be killed.
    assert image_tool.stop_container("server") == 0


def test_health_check_fails_where_no_server_answers(image_tool, server_image):
    image_tool.start_container("sleeper", server_image, "sleep", "60", options=SERVER_OPTIONS)
    assert image_tool.podman("healthcheck", "run", "sleeper").returncode == 1
    image_tool.stop_container("sleeper", 1)


def test_tensorboard_of_the_compose_file_shows_runs(image_tool, facevox_image):
    options = (*CLOSED, "--tmpfs=/app/runs")
    command = ("tensorboard", "--logdir=runs", "--host=0.0.0.0", "--port=6006")
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:6006/data/environment').status)"
    image_tool.start_container("board", facevox_image, *command, options=options)

    def answers() -> bool:
        return image_tool.podman("exec", "board", "python", "-c", code).stdout == "200\n"

    wait_until(answers, "TensorBoard", 120)
    image_tool.stop_container("board", 5)
