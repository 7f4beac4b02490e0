"""scripts/setup/install.py: what is skipped, done again, handed to uv and written beside the environment."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def project(load_script, tmp_path, monkeypatch):
    """install.py on a made-up repository; what it would do to the environment is noted in `.done`."""
    install = load_script("setup/install")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "requirements.lock").write_text(
        "numpy==1.26.4\ntorch==2.13.0\n# cuda: more\nnvidia-nvtx==13.0\n"
    )
    (tmp_path / ".env.example").write_text("SERVER_PORT=8001\n")
    done: list[str] = []

    def make_venv(venv):
        done.append("venv")
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        python = venv / "bin" / "python"
        python.unlink(missing_ok=True)
        python.symlink_to(sys.executable)
        (venv / "pyvenv.cfg").write_text("version = {}.{}.{}\n".format(*sys.version_info[:3]))
        (venv / "facevox-install.json").unlink(missing_ok=True)

    def install_packages(venv, *, is_cuda):
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


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_changed_requirements_are_installed_into_the_same_environment(project, name):
    run_install(project)
    file = project.ROOT / name
    file.write_text(file.read_text() + "# changed\n")
    assert run_install(project) == (0, ["cpu packages", "imports"])


def test_interrupted_install_starts_from_nothing(project, monkeypatch):
    def killed(venv, *, is_cuda):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(project, "_install_packages", killed)
        assert run_install(project) == (75, ["venv"])
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def test_missing_system_library_is_asked_for_again_without_installing_again(project, monkeypatch, capsys):
    def fails(venv):
        raise project.SetupError("cv2 cannot load libGL.so.1: sudo apt-get install libgl1")

    with monkeypatch.context() as patch:
        patch.setattr(project, "check_imports", fails)
        assert run_install(project) == (2, ["venv", "cpu packages"])
        assert capsys.readouterr().err == "error: cv2 cannot load libGL.so.1: sudo apt-get install libgl1\n"
        assert run_install(project)[0] == 2
    assert run_install(project) == (0, ["imports"])


def test_build_of_torch_stays_until_another_is_asked_for(project):
    assert run_install(project, "--torch", "cuda") == (0, ["venv", "cuda packages", "imports"])
    assert run_install(project) == (0, [])
    assert run_install(project, "--torch", "cpu") == (0, ["venv", "cpu packages", "imports"])
    assert run_install(project) == (0, [])


def test_environment_of_a_moved_repository_is_made_anew(project, monkeypatch, tmp_path):
    run_install(project)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("pyproject.toml", "requirements.lock", ".venv"):
        (tmp_path / name).rename(moved / name)
    monkeypatch.setattr(project, "ROOT", moved)
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


@pytest.mark.parametrize("version", ["3.10.13", "3.13.0"])
def test_environment_of_another_python_is_made_anew(project, version):
    run_install(project)
    (project.ROOT / ".venv" / "pyvenv.cfg").write_text(f"version = {version}\n")
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def test_python_that_is_asked_for_replaces_an_environment_of_another_version(project, monkeypatch):
    run_install(project)
    other = "3.11.0" if sys.version_info[:2] == (3, 12) else "3.12.0"
    (project.ROOT / ".venv" / "pyvenv.cfg").write_text(f"version = {other}\n")
    assert run_install(project)[1] == [
        "cpu packages",
        "imports",
    ]  # supported, and nobody asked for another one
    monkeypatch.setenv("PYTHON", sys.executable)
    assert run_install(project) == (0, ["venv", "cpu packages", "imports"])


def test_env_is_copied_once_and_never_overwritten(project):
    run_install(project)
    settings = project.ROOT / ".env"
    assert settings.read_text() == "SERVER_PORT=8001\n"
    settings.write_text("SERVER_PORT=9000\n")
    run_install(project)
    assert settings.read_text() == "SERVER_PORT=9000\n"


def test_requirements_txt_holds_the_pins_without_the_cuda_part_and_the_project(project):
    run_install(project)
    lines = (project.ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["numpy==1.26.4", "torch==2.13.0", "-e ."]
    assert "requirements.lock" in lines[0]


def test_missing_lock_is_one_line(project, capsys):
    (project.ROOT / "requirements.lock").unlink()
    assert run_install(project) == (2, [])
    said = capsys.readouterr().err
    assert "requirements.lock" in said
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
    uv_environment = load_script("setup/install").uv_environment
    pip = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://b.example/simple\nhttps://c.example/simple",
        "find-links": "/wheels /more",
        "cert": "/ca.pem",
        "trusted-host": "mirror.example",
        "proxy": "http://proxy:3128",
        "timeout": "90",
    }
    assert uv_environment(pip, {}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://mirror.example/simple https://b.example/simple https://c.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INSECURE_HOST": "mirror.example",
        "HTTPS_PROXY": "http://proxy:3128",
        "HTTP_PROXY": "http://proxy:3128",
        "UV_HTTP_TIMEOUT": "90",
    }
    assert uv_environment({}, {}) == {}


def test_what_is_set_for_uv_wins_over_pips_settings(load_script):
    uv_environment = load_script("setup/install").uv_environment
    mine = {"UV_DEFAULT_INDEX": "https://mine.example", "SSL_CERT_FILE": "/mine.pem"}
    pip = {"index-url": "https://mirror.example", "extra-index-url": "https://b.example", "cert": "/ca.pem"}
    assert uv_environment(pip, mine) == {}


def test_failing_installer_is_shown_in_full_and_ends_in_one_line(load_script, capfd):
    install = load_script("setup/install")
    noisy = [
        sys.executable,
        "-c",
        "print('Resolved 2 packages'); print('why: no wheel'); raise SystemExit(3)",
    ]
    with pytest.raises(install.SetupError, match="could not") as caught:
        install._run(noisy, {}, "could not install")
    assert caught.value.code == 1
    said = capfd.readouterr()
    assert "setup: Resolved 2 packages" in said.out
    assert "why: no wheel" in said.err
    install._run([sys.executable, "-c", "print('why: quiet')"], {}, "could not install")
    assert "why: quiet" not in "".join(capfd.readouterr())


def test_state_of_this_kind_is_on_disk_after_a_set_up(project):
    run_install(project)
    state = json.loads((project.ROOT / ".venv" / "facevox-install.json").read_text())
    assert state["status"] == "done"
    assert state["root"] == str(project.ROOT)


def fake_python(folder, name, version, has_venv=True):
    """A program that answers find_python.sh as a Python of `version` would."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    answer = f"{version} {'yes' if has_venv else 'no'} {program}"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    return program


def find_python(repository, path, **variables):
    """What find_python.sh answers with only `path` to look in."""
    return subprocess.run(
        ["/bin/sh", str(repository / "scripts" / "setup" / "find_python.sh")],
        env={"PATH": str(path), "HOME": "/nonexistent", **variables},
        capture_output=True, text=True,
    )  # fmt: skip


def test_supported_python_is_found_behind_others(repository, tmp_path):
    fake_python(tmp_path, "python3", "3.10.13")
    wanted = fake_python(tmp_path, "python3.12", "3.12.1")
    answer = find_python(repository, tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{wanted}\n", "")


def test_python_of_pyenv_is_found_when_path_has_none(repository, tmp_path):
    (tmp_path / "versions" / "3.11.7").mkdir(parents=True)
    wanted = fake_python(tmp_path / "versions" / "3.11.7" / "bin", "python", "3.11.7")
    answer = find_python(repository, "/nonexistent", PYENV_ROOT=str(tmp_path))
    assert (answer.returncode, answer.stdout) == (0, f"{wanted}\n")


@pytest.mark.parametrize("version", ["3.10.13", "3.13.0", "2.7.18", "3.1.2"])
def test_other_pythons_are_told_in_one_line_with_the_way_to_get_one(repository, tmp_path, version):
    fake_python(tmp_path, "python3", version)
    answer = find_python(repository, tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    assert f"python3 is {version}" in answer.stderr
    assert "apt-get install" in answer.stderr


def test_python_without_venv_names_debians_package(repository, tmp_path):
    fake_python(tmp_path, "python3", "3.11.2", has_venv=False)
    answer = find_python(repository, tmp_path)
    assert answer.returncode == 2
    assert "sudo apt-get install python3.11-venv" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_python_given_by_name_is_the_only_one_looked_at(repository, tmp_path):
    fake_python(tmp_path, "python3", "3.11.7")
    other = fake_python(tmp_path / "else where", "python3", "3.9.1")
    answer = find_python(repository, tmp_path, PYTHON=str(other))
    assert (answer.returncode, answer.stdout) == (2, "")
    missing = find_python(repository, tmp_path, PYTHON="/no/such/python")
    assert missing.returncode == 2
    assert "/no/such/python is not a Python that runs" in missing.stderr


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

    def install_packages(venv, *, is_cuda):
        package.mkdir(parents=True)
        (package / "layers.py").write_text("x = 1\n")
        (package / "broken.py").write_text("x = = 1\n")  # is passed over

    monkeypatch.setattr(project, "_install_packages", install_packages)
    assert run_install(project)[0] == 0
    assert [path.name.partition(".")[0] for path in package.rglob("*.pyc")] == ["layers"]
