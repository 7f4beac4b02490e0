"""Dockerfiles, .dockerignore and the compose file: what can be said about them without building anything."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from docker_files import arguments_of, copied_sources, is_in_context, read_instructions

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
OUR_FILES = [*sorted(path for path in (ROOT / "docker").iterdir() if path.is_file()), ROOT / ".dockerignore"]
PACKAGES = ("emotion", "facevox", "facevox_demo", "lc_pytorch", "lipsync", "scripts", "examples")

each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# --- Dockerfiles -------------------------------------------------------------------------------------------


def test_both_images_have_a_dockerfile():
    assert [path.name for path in DOCKERFILES] == ["emotion.Dockerfile", "facevox.Dockerfile"]


@each_dockerfile
def test_hadolint_finds_nothing(dockerfile):
    hadolint = Path(sys.executable).parent / "hadolint"
    answer = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "")


@each_dockerfile
def test_what_hadolint_is_told_to_pass_over_has_a_reason(dockerfile):
    lines = dockerfile.read_text().splitlines()
    for number, line in enumerate(lines):
        if "hadolint ignore" in line:
            before = lines[number - 1] if not lines[number - 1].startswith("COPY") else lines[number - 2]
            assert before.startswith("# "), line
    assert not list(ROOT.glob("*hadolint*"))


@each_dockerfile
def test_dockerfile_builds_with_every_tool(dockerfile):
    """No `# syntax=`, here-documents or COPY --link: older and other builders do not know them."""
    text = dockerfile.read_text()
    assert "# syntax" not in text
    assert not re.search(r"<<-?['\"]?[A-Z]", text)
    assert "--link" not in text


@each_dockerfile
def test_base_image_is_an_argument_with_a_pinned_cuda_default(dockerfile):
    instructions = read_instructions(dockerfile.read_text())
    assert [name for name, _ in instructions[:2]] == ["ARG", "FROM"]
    assert instructions[1][1] == "${BASE_IMAGE}"
    assert re.fullmatch(
        r"nvidia/cuda:\d+\.\d+\.\d+-\w+-ubuntu24\.04", arguments_of(instructions)["BASE_IMAGE"]
    )


@each_dockerfile
def test_locked_packages_are_a_layer_of_their_own_before_the_source(dockerfile):
    instructions = read_instructions(dockerfile.read_text())
    source = instructions.index(("COPY", ". ."))
    (packages,) = [k for k, (name, rest) in enumerate(instructions) if name == "RUN" and "install.sh" in rest]
    assert packages < source
    # What the layer depends on: neither source nor anything that changes with it.
    assert set(copied_sources(instructions[:packages])) == {
        "pyproject.toml", "uv.lock", "scripts/setup/install.sh", "scripts/setup/install.py",
    }  # fmt: skip


@each_dockerfile
def test_user_is_a_plain_one_with_a_number_to_choose(dockerfile):
    instructions = read_instructions(dockerfile.read_text())
    arguments = arguments_of(instructions)
    assert int(arguments["UID"]) > 1000  # 1000 itself is taken in Ubuntu's images
    assert [rest for name, rest in instructions if name == "USER"] == ["${UID}:${GID}"]
    last = max(k for k, (name, _) in enumerate(instructions) if name in ("RUN", "COPY"))
    assert instructions.index(("USER", "${UID}:${GID}")) > last


@each_dockerfile
def test_what_is_copied_exists_and_is_let_through(dockerfile):
    rules = (ROOT / ".dockerignore").read_text()
    sources = [name for name in copied_sources(read_instructions(dockerfile.read_text())) if name != "."]
    assert len(sources) >= 4
    assert [name for name in sources if not (ROOT / name).is_file()] == []
    assert [name for name in sources if not is_in_context(rules, name)] == []


def test_the_two_dockerfiles_differ_only_where_they_have_to():
    """The one brings a font and the documented settings besides; all else that is run is the same."""
    facevox, emotion = (
        [
            " ".join(rest.split())
            for name, rest in read_instructions((ROOT / "docker" / f"{image}.Dockerfile").read_text())
            if name == "RUN"
        ]
        for image in ("facevox", "emotion")
    )
    extra = ("fonts-nanum ", "&& cp .env.example .env ", ".env ")
    for text in extra:
        emotion = [line.replace(text, "") for line in emotion]
    assert emotion == facevox


def test_extras_exist_and_the_torch_image_asks_for_no_tensorflow(project):
    extras = project["optional-dependencies"]
    wanted = {
        path.name.split(".")[0]: arguments_of(read_instructions(path.read_text()))["EXTRAS"].split()
        for path in DOCKERFILES
    }
    assert {*wanted["facevox"], *wanted["emotion"]} <= extras.keys()
    assert {"face-voice", "lipsync", "landmarks"} <= set(wanted["facevox"])
    assert not [
        line
        for name in wanted["facevox"]
        for line in extras[name]
        if line.startswith(("tensorflow", "mtcnn"))
    ]
    assert any(line.startswith("tensorflow==") for line in extras["emotion"])


# --- .dockerignore -----------------------------------------------------------------------------------------


KEPT_OUT = [
    ".git/config", ".venv/bin/python", ".env", ".ci/run", "requirements.txt", "facevox.egg-info/PKG-INFO",
    "docker/facevox.Dockerfile", "data/videos/clip.mp4", "data/weights/vit.safetensors",
    "runs/demo/report.html", "checkpoints/best_model.pth", "models/notes.txt", "models/emotion.tflite",
    "logs/slurm/train-1.out", "dataset_crop/train/happy/1.jpg", "outputs/out.mp4", "tests/conftest.py",
    "docs/containers.md", "slurm/body.sh", "scripts/.env", "scripts/demo/face.onnx",
    "lipsync/best_model.pth", "lc_pytorch/__pycache__/a.cpython-311.pyc",
    "emotion/landmarks/.ipynb_checkpoints/a.ipynb", "emotion/classifier.h5",
]  # fmt: skip


@pytest.mark.parametrize("path", KEPT_OUT)
def test_stays_outside_the_images(path):
    assert not is_in_context((ROOT / ".dockerignore").read_text(), path)


def test_all_sources_reach_the_images():
    rules = (ROOT / ".dockerignore").read_text()
    sources = [
        str(path.relative_to(ROOT))
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts
    ]
    assert len(sources) > 150
    assert [path for path in sources if not is_in_context(rules, path)] == []
    for path in (".env.example", "pyproject.toml", "uv.lock", "README.md", "LICENSE", "THIRD_PARTY.md"):
        assert is_in_context(rules, path)


def test_patterns_are_read_as_an_engine_reads_them():
    rules = "*\n!a\n**/*.pth\n!keep.pth\nb/?.txt\n"
    inside = {
        path: is_in_context(rules, path) for path in ("a/x.py", "a/b/x.py", "a/b/x.pth", "c/x.py", "keep.pth")
    }
    assert inside == {"a/x.py": True, "a/b/x.py": True, "a/b/x.pth": False, "c/x.py": False, "keep.pth": True}


# --- what no file may say ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OUR_FILES, ids=lambda path: path.name)
def test_no_file_names_a_machine_or_an_index(path):
    text = path.read_text()
    hosts = set(re.findall(r"https?://([^/\s:'\"]+)", text))
    assert hosts <= {"127.0.0.1", "localhost"}
    assert not re.search(r"/(work|home|Users|mnt|srv)/|/opt(?=/)(?!/venv)|index-url|pypi", text)


# --- compose -----------------------------------------------------------------------------------------------

# The part of the Compose specification that the file uses, with the types it gives.
SERVICE_KEYS = {
    "user": str, "read_only": bool, "cap_drop": list, "security_opt": list, "init": bool, "image": str,
    "build": dict, "env_file": list, "command": list, "ports": list, "environment": dict, "tmpfs": list,
    "volumes": list, "restart": str, "stop_grace_period": str, "shm_size": str, "profiles": list,
    "deploy": dict, "hostname": str,
}  # fmt: skip
VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


def test_compose_file_has_the_services_and_only_known_keys(compose):
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services"}
    assert {"server", "training", "tensorboard"} <= compose["services"].keys()
    for name, service in compose["services"].items():
        assert {key: type(value) for key, value in service.items()}.items() <= SERVICE_KEYS.items(), name
        assert all(isinstance(word, str) for word in service["command"])
        assert service["build"].keys() == {"context", "dockerfile", "args"}
        assert (ROOT / "docker" / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]) in DOCKERFILES
        given = arguments_of(read_instructions((ROOT / service["build"]["dockerfile"]).read_text()))
        assert set(service["build"]["args"]) <= given.keys()
        for word in service["command"][1:2]:
            assert not word.endswith(".py") or (ROOT / word).is_file()


def test_every_service_is_closed_down(compose):
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert VARIABLE.sub(r"\2", service["user"]) == "10001:10001"
        assert "/tmp" in service["tmpfs"]


def test_ports_are_open_to_this_machine_alone(compose):
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", VARIABLE.sub(r"\2", port)), port


def test_volumes_are_folders_of_the_repository_and_places_of_the_image(compose):
    made = {"/weights"} | {
        f"/app/{name}"
        for name in ("checkpoints", "data", "dataset_crop", "logs", "models", "outputs", "runs")
    }
    for path in DOCKERFILES:
        (line,) = re.findall(r"install -d -m 1777 (.*)", path.read_text())
        assert {name if name.startswith("/") else f"/app/{name}" for name in line.split()} == made
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source, target, *mode = VARIABLE.sub(r"\2", volume).split(":")
            assert source.startswith("../")
            assert target in made
            assert mode in ([], ["ro"])


def test_trainings_reserve_gpus_but_for_the_one_on_cpus(compose):
    services = compose["services"]
    wanted = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    for name in ("training", "emotion-training"):
        assert services[name]["deploy"] == {"resources": {"reservations": {"devices": [wanted]}}}
    assert services["training-cpu"] == {k: v for k, v in services["training"].items() if k != "deploy"}
    assert "deploy" not in services["server"]


def test_command_of_the_training_service_is_one_that_its_program_takes(compose, load_script):
    _, program, *options = compose["services"]["training"]["command"]
    args = (
        load_script(program.removeprefix("scripts/").removesuffix(".py"))
        .get_args_parser()
        .parse_args(options)
    )
    assert (args.image_folder, args.save_dir) == (Path("data/faces"), Path("runs/train"))
