"""scripts/setup/install.py: what is skipped, done again, handed to uv and written beside the environment."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.fixture
def project(load_script, tmp_path, monkeypatch):
    """install.py on a made-up repository; what it would do to the environment is noted in `.done`."""
    install = load_script("setup/install")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "torch"\nversion = "2.13.0"\n')
    (tmp_path / ".env.example").write_text("SERVER_PORT=8001\n")
    done: list[str] = []

    def make_venv(venv, uv):
        done.append("venv")
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        python = venv / "bin" / "python"
        python.unlink(missing_ok=True)
        python.symlink_to(sys.executable)
        (venv / "facevox-install.json").unlink(missing_ok=True)

    def install_packages(venv, uv, *, is_cuda):
        done.append("cuda packages" if is_cuda else "cpu packages")

    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "_make_venv", make_venv)
    monkeypatch.setattr(install, "_install_packages", install_packages)
    monkeypatch.setattr(install, "check_imports", lambda venv: done.append("imports"))
    monkeypatch.delenv("PYTHON", raising=False)
    install.done = done
    yield install
    del install.done


def run_install(install, *options):
    """The exit code and what was done."""
    install.done.clear()
    code = install.main(["--venv", str(install.ROOT / ".venv"), *options])
    return code, list(install.done)


def test_second_install_does_nothing_and_says_so(project, capsys):
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])
    capsys.readouterr()
    assert run_install(project) == (0, [])
    assert capsys.readouterr().out.startswith("facevox is set up")


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock"])
def test_changed_requirements_are_installed_into_the_same_environment(project, name):
    run_install(project)
    file = project.ROOT / name
    file.write_text(file.read_text() + "# changed\n")
    assert run_install(project) == (0, ["cpu packages", "imports"])


def test_interrupted_install_starts_from_nothing(project, monkeypatch):
    def killed(venv, uv, *, is_cuda):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(project, "_install_packages", killed)
        assert run_install(project) == (75, ["venv"])
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def test_missing_system_library_is_asked_for_again_in_the_same_environment(project, monkeypatch, capsys):
    def fails(venv):
        raise project.SetupError("cv2 cannot load libGL.so.1: sudo apt-get install libgl1")

    with monkeypatch.context() as patch:
        patch.setattr(project, "check_imports", fails)
        assert run_install(project) == (2, ["venv", "cpu packages"])
        assert capsys.readouterr().err == "error: cv2 cannot load libGL.so.1: sudo apt-get install libgl1\n"
        assert run_install(project)[0] == 2
    assert run_install(project) == (0, ["cpu packages", "imports"])


def test_build_of_torch_stays_until_another_is_asked_for(project):
    assert run_install(project, "--torch", "cuda") == (0, ["venv", "cuda packages", "imports"])
    assert run_install(project) == (0, [])
    assert run_install(project, "--torch", "cpu") == (0, ["venv", "cpu packages", "imports"])
    assert run_install(project) == (0, [])


def test_environment_of_a_moved_repository_is_made_anew(project, monkeypatch, tmp_path):
    run_install(project)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("pyproject.toml", "uv.lock", ".venv"):
        (tmp_path / name).rename(moved / name)
    monkeypatch.setattr(project, "ROOT", moved)
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def test_environment_with_another_cv2_is_made_anew_when_the_packages_change(project):
    run_install(project)
    other = project.ROOT / ".venv/lib/python3.11/site-packages/opencv_contrib_python-4.11.0.86.dist-info"
    other.mkdir(parents=True)
    assert run_install(project) == (0, [])
    with (project.ROOT / "uv.lock").open("a") as file:
        file.write("# changed\n")
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def note_python(project, version):
    """Lets the environment be one that was made with another Python."""
    file = project.ROOT / ".venv" / "facevox-install.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"python": version}))


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0"])
def test_environment_of_another_python_is_made_anew(project, version):
    run_install(project)
    note_python(project, version)
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


@pytest.mark.parametrize(("version", "reason"), [((3, 10), ""), ((3, 14), "TensorFlow has no release")])
def test_python_that_does_not_fit_is_refused_in_one_line(project, monkeypatch, capsys, version, reason):
    monkeypatch.setattr(project.sys, "version_info", (*version, 0))
    assert run_install(project) == (2, [])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "make install PYTHON=/path/to/python3.13" in error
    assert reason in error
    assert ("TensorFlow" in error) == bool(reason)


def test_python_that_is_asked_for_replaces_an_environment_of_another_version(project, monkeypatch):
    run_install(project)
    note_python(project, "3.11.0" if sys.version_info[:2] == (3, 12) else "3.12.0")
    assert run_install(project) == (0, [])  # supported, and nobody asked for another one
    monkeypatch.setenv("PYTHON", sys.executable)
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def test_env_is_copied_once_and_never_overwritten(project):
    run_install(project)
    settings = project.ROOT / ".env"
    assert settings.read_text() == "SERVER_PORT=8001\n"
    settings.write_text("SERVER_PORT=9000\n")
    run_install(project)
    assert settings.read_text() == "SERVER_PORT=9000\n"


def test_missing_lock_is_one_line(project, capsys):
    (project.ROOT / "uv.lock").unlink()
    assert run_install(project) == (2, [])
    said = capsys.readouterr().err
    assert "uv.lock" in said
    assert said.count("\n") == 1


def test_pip_settings_are_read_with_pips_own_order_of_precedence(load_script):
    listing = (
        "global.index-url='https://mirror.example/a b'\n"
        "global.timeout='60'\n"
        "install.timeout='90'\n"
        ":env:.timeout='120'\n"
        "wheel.timeout='1'\n"
        'global.find-links="/wheels of o\'brien\\n/more"\n'
        "broken line\n"
    )
    assert load_script("setup/install").parse_pip_config(listing) == {
        "index-url": "https://mirror.example/a b",
        "timeout": "120",
        "find-links": "/wheels of o'brien\n/more",
    }


def test_pip_settings_become_uvs(load_script):
    uv_variables = load_script("setup/install").uv_variables
    pip = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://b.example/simple\nhttps://c.example/simple",
        "find-links": "/wheels /more",
        "cert": "/ca.pem",
        "trusted-host": "mirror.example",
        "proxy": "http://proxy:3128",
        "timeout": "90",
    }
    assert uv_variables(pip, {}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://mirror.example/simple https://b.example/simple https://c.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INSECURE_HOST": "mirror.example",
        "ALL_PROXY": "http://proxy:3128",
        "UV_HTTP_TIMEOUT": "90",
    }
    assert uv_variables({}, {}) == {}


def test_what_is_set_for_uv_wins_over_pips_settings(load_script):
    uv_variables = load_script("setup/install").uv_variables
    mine = {"UV_DEFAULT_INDEX": "https://mine.example", "SSL_CERT_FILE": "/mine.pem"}
    pip = {"index-url": "https://mirror.example", "extra-index-url": "https://b.example", "cert": "/ca.pem"}
    assert uv_variables(pip, mine) == {}


@pytest.fixture
def uv(load_script, tmp_path, monkeypatch):
    """install.py with a uv that notes its calls in `calls()`; one that holds the text of $FAILS fails."""
    install = load_script("setup/install")
    notes, program = tmp_path / "calls.txt", tmp_path / "uv"
    program.write_text(
        f'#!/bin/sh\necho "$* [$UV_FIND_LINKS]" >> "{notes}"\n'
        'if [ -n "$FAILS" ]; then case "$*" in *"$FAILS"*) echo "why: no wheel" >&2; exit 3 ;; esac; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("UV_FIND_LINKS", "/wheels")

    def run(*options, fails=""):
        notes.unlink(missing_ok=True)
        monkeypatch.setenv("FAILS", fails)
        code = install.main(["--venv", str(tmp_path / "venv"), "--uv", str(program), *options])
        return code, notes.read_text().splitlines() if notes.exists() else []

    run.install, run.program = install, str(program)
    return run


def packages(calls):
    """What the one call that installs asks for, and where it may look."""
    (call,) = [call for call in calls if call.startswith("pip install") and "--dry-run" not in call]
    return call.partition("constraints.txt ")[2]


def test_environment_that_is_a_link_is_replaced_and_its_target_left_alone(uv, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "venv").symlink_to(other)
    uv("--extras", "cluster")
    assert not (tmp_path / "venv").is_symlink()
    assert other.is_dir()


def test_cpu_build_of_torch_is_taken_from_where_it_is(uv, monkeypatch, tmp_path, capsys):
    def install(fails=""):
        monkeypatch.setenv("FAILS", fails)
        (tmp_path / "calls.txt").unlink(missing_ok=True)
        uv.install._install_packages(tmp_path / "venv", uv.program, is_cuda=False)
        return packages((tmp_path / "calls.txt").read_text().splitlines())

    torch = f"torch=={locked('torch')}+cpu"
    assert install() == f"-e .[dev] {torch} [/wheels]"
    # Not among the machine's own packages: PyTorch's index. Nor there: what the index has, told before.
    assert install(fails=f"--quiet {torch}") == f"-e .[dev] {torch} --torch-backend cpu [/wheels]"
    assert "CUDA build" not in capsys.readouterr().out
    assert install(fails="--dry-run") == "-e .[dev] [/wheels]"
    assert "a CUDA build, 3 GB to fetch" in capsys.readouterr().out


def test_cuda_build_is_not_taken_from_local_wheels(uv, tmp_path):
    uv.install._install_packages(tmp_path / "venv", uv.program, is_cuda=True)
    assert packages((tmp_path / "calls.txt").read_text().splitlines()) == "-e .[dev,cuda] []"


def test_versions_and_hashes_are_those_of_the_lock(uv):
    _, calls = uv("--extras", "cluster")
    (export,) = [call for call in calls if call.startswith("export")]
    assert "--frozen" in export
    assert "--all-extras" in export
    assert "--no-hashes" not in export
    assert "-c" in calls[-1].split()


def test_failing_uv_is_shown_and_ends_in_one_line(uv, capfd):
    assert uv("--extras", "cluster", fails="pip install")[0] == 1
    assert capfd.readouterr().err == "why: no wheel\nerror: the packages could not be installed (above)\n"


# --- the packages of an image ----------------------------------------------------------------------------


def locked(name):
    found = tomllib.loads((Path(__file__).resolve().parents[2] / "uv.lock").read_text("utf-8"))["package"]
    return next(package["version"] for package in found if package["name"] == name)


IMAGE = "--compile-bytecode -r pyproject.toml setuptools"


def test_cuda_image_takes_torch_and_torchvision_of_the_cuda_extra(uv):
    code, calls = uv("--torch", "cuda", "--extras", "face-voice", "lipsync")
    assert (code, packages(calls)) == (
        *(0, f"{IMAGE} --extra face-voice --extra lipsync --extra cuda [/wheels]"),
    )


def test_cuda_image_takes_tensorflow_with_its_libraries_but_not_for_mtcnn(uv):
    code, calls = uv("--torch", "cuda", "--extras", "emotion", "cluster")
    extras = "--extra emotion --extra cluster --extra emotion-cuda"
    assert (code, packages(calls)) == (0, f"{IMAGE} {extras} [/wheels]")
    _, calls = uv("--torch", "cuda", "--extras", "landmarks", "mtcnn")
    assert packages(calls) == f"{IMAGE} --extra landmarks --extra mtcnn --extra cuda [/wheels]"


def test_image_of_the_server_alone_is_the_same_with_and_without_cuda(uv):
    for accelerator in ("cpu", "cuda"):
        code, calls = uv("--torch", accelerator, "--extras", "emotion-server")
        assert (code, packages(calls)) == (0, f"{IMAGE} --extra emotion-server [/wheels]")


def test_image_for_cpus_takes_the_cpu_build_or_ends_and_says_so(uv, capsys):
    code, calls = uv("--torch", "cpu", "--extras", "landmarks")
    assert (code, packages(calls)) == (0, f"{IMAGE} --extra landmarks torch=={locked('torch')}+cpu [/wheels]")
    code, calls = uv("--torch", "cpu", "--extras", "landmarks", fails="--dry-run")
    assert code == 1
    assert "UV_FIND_LINKS" in capsys.readouterr().err
    assert not any("--compile-bytecode" in call for call in calls)


def test_unknown_extra_is_one_line(uv, capsys):
    assert uv("--extras", "landmark", "cluster") == (2, [])
    said = capsys.readouterr().err
    assert said.startswith("error: no such extra: landmark (there are face-voice, ")
    assert said.count("\n") == 1


# --- install.sh: uv and a Python -------------------------------------------------------------------------


def fake_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def install_sh(repository, tmp_path):
    """Runs a copy of install.sh with only the folder `bin` to look for programs in."""
    setup = tmp_path / "a b" / "scripts" / "setup"
    setup.mkdir(parents=True)
    shutil.copy(repository / "scripts" / "setup" / "install.sh", setup)
    (tmp_path / "a b" / "uv.lock").write_text('name = "uv"\nversion = "0.13.8"\n')
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sed").symlink_to(shutil.which("sed"))
    (tmp_path / "bin" / "dirname").symlink_to(shutil.which("dirname"))

    def run(*options, **variables):
        return subprocess.run(
            ["/bin/sh", str(setup / "install.sh"), *options],
            env={"PATH": str(tmp_path / "bin"), "HOME": "/nonexistent", **variables},
            capture_output=True, text=True,
        )  # fmt: skip

    return run


UV = 'case "$1" in --version) echo "uv 0.13.8 (x)" ;; python) shift 4; echo "$FOUND" ;; esac'


def test_uv_on_path_finds_the_python_that_sets_up(install_sh, tmp_path):
    uv = fake_program(tmp_path / "bin" / "uv", UV)
    python = fake_program(tmp_path / "py thon", 'echo "$@"')
    answer = install_sh("--torch", "cuda", FOUND=str(python))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == f"scripts/setup/install.py --uv {uv} --torch cuda\n"


def test_uv_is_fetched_once_at_the_locked_version_where_there_is_none(install_sh, tmp_path):
    own = tmp_path / "a b" / ".uv" / "bin"
    fake_program(tmp_path / "uv", UV)
    pip = f'case "$*" in *" uv==0.13.8") /bin/cp "{tmp_path}/uv" "{own}/uv" ;; esac'
    fake_program(tmp_path / "pip", pip)
    make = f'if [ "$2" = venv ]; then /bin/mkdir -p "{own}"; /bin/cp "{tmp_path}/pip" "{own}/python"; fi'
    fake_program(tmp_path / "bin" / "python3", make)
    python = fake_program(tmp_path / "python", 'echo "$@"')
    for fetched in ("setup: fetching uv 0.13.8\n", ""):
        answer = install_sh(FOUND=str(python))
        assert (answer.returncode, answer.stderr) == (0, "")
        assert answer.stdout == f"{fetched}scripts/setup/install.py --uv {own}/uv\n"


def test_no_uv_and_no_python_to_fetch_it_is_one_line(install_sh, tmp_path):
    fake_program(tmp_path / "bin" / "python3", "exit 1")  # as Debian's without python3-venv
    answer = install_sh()
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    assert "sudo apt-get install python3-venv" in answer.stderr


def test_no_python_that_fits_is_one_line_with_the_way_to_get_one(install_sh, tmp_path):
    fake_program(tmp_path / "bin" / "uv", '[ "$1" = --version ]')
    answer = install_sh()
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    assert "uv python install 3.13" in answer.stderr
    named = install_sh(PYTHON="/no/such/python")
    assert named.returncode == 2
    assert named.stderr.startswith("error: PYTHON=/no/such/python does not run")


def test_package_is_found_beside_a_clone_of_its_name(repository, tmp_path):
    """Python takes a folder named facevox in the current one for the package, if the set-up lets it."""
    (tmp_path / "facevox").symlink_to(repository)
    words = [sys.executable, "-c", "import facevox.errors, sys; sys.stdout.write(facevox.errors.__file__)"]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert answer.stdout == str(repository / "facevox" / "errors.py"), answer.stderr


def test_the_large_packages_are_compiled_once_at_set_up(project, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    venv = project.ROOT / ".venv"
    package = venv / "lib" / "python3.11" / "site-packages" / "keras"

    def install_packages(venv, uv, *, is_cuda):
        package.mkdir(parents=True)
        (package / "layers.py").write_text("x = 1\n")
        (package / "broken.py").write_text("x = = 1\n")  # is passed over

    monkeypatch.setattr(project, "_install_packages", install_packages)
    assert run_install(project)[0] == 0
    assert [path.name.partition(".")[0] for path in package.rglob("*.pyc")] == ["layers"]
