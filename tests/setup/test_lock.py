"""uv.lock: public addresses, nothing of the machine that made it; compared with what is installed."""

import re
from importlib import metadata

import pytest


def test_lock_names_public_addresses_and_no_place_of_a_machine(repository):
    text = (repository / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^/\"]*", text)) == {"https://pypi.org", "https://files.pythonhosted.org"}
    assert re.findall(r"(?:path|registry|url|directory|editable) = \"(?!https://|\.\")[^\"]*", text) == []
    assert re.findall(r"\"(?:/|~|[A-Z]:)[^\"]*", text) == []


def test_one_distribution_has_the_module_cv2():
    """A second one would overwrite files of the first, with another version or without windows."""
    owners = metadata.packages_distributions()["cv2"]
    assert set(owners) == {"opencv-python"}


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("Would make no changes", 0, ""),
        ("Would install 1 package\n + six==1.17.0", 1, "not as in uv.lock (+ six==1.17.0): make install"),
        ("error: x\n  cause: Because a", 1, "not as in uv.lock (cause: Because a): make install"),
    ],
)
def test_installed_packages_are_compared_with_the_lock(load_script, tmp_path, capsys, said, code, words):
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\n")
    uv.chmod(0o755)
    assert load_script("setup/install").main(["--check", "--venv", str(tmp_path), "--uv", str(uv)]) == code
    assert words in capsys.readouterr().err


def test_environment_without_uv_is_told_to_install(load_script, tmp_path, capsys):
    assert load_script("setup/install").main(["--check", "--venv", str(tmp_path)]) == 2
    assert "run make install" in capsys.readouterr().err
