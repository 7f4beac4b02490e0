"""scripts/setup/fetch_weights.py: what is there, what is fetched, and what is said without a network."""

import pytest

from emotion.classifier.pretrained import FILE_NAME
from facevox import cli
from facevox.errors import ExitCode


@pytest.fixture
def fetch_weights(load_script, tmp_path, monkeypatch):
    """The program with empty weight folders and no network."""
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("facevox.downloads.answers", lambda url, timeout_s=3.0: False)
    return load_script("setup/fetch_weights")


def test_without_network_each_missing_thing_has_a_line_with_its_place(fetch_weights, tmp_path, capsys):
    assert cli.run(fetch_weights.main, []) == ExitCode.USAGE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(fetch_weights.NAMES) + 1
    assert all(line.startswith("missing: ") and ": put it at " in line for line in said[:-1])
    assert said[-1].startswith("error: no network")
    place = tmp_path / ".deepface" / "weights" / "facenet_weights.pth"
    assert said[0] == f"missing: DeepFace embedding model Facenet: put it at {place}"


def test_weights_placed_by_hand_are_seen(fetch_weights, tmp_path, capsys):
    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    (folder / "retinaface.pth").write_bytes(b"\x80\x02")
    (folder / "deploy.prototxt").write_text("layer")  # one of the two files of ssd
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / FILE_NAME).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90))
    assert cli.run(fetch_weights.main, ["--list"]) == ExitCode.DONE
    states = dict(reversed(line.split("  ")[:2]) for line in capsys.readouterr().out.splitlines())
    assert sorted(name for name, state in states.items() if state == "present") == [
        "mobilenetv3",
        "retinaface",
    ]
    assert set(states) == set(fetch_weights.NAMES)
    assert cli.run(fetch_weights.main, ["--only", "retinaface"]) == ExitCode.DONE


def test_files_that_are_no_weights_are_damaged_and_are_fetched_again(
    fetch_weights, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    (folder / "retinaface.pth").touch()
    (folder / "facenet_weights.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (folder / "arcface_weights.pth").write_text("<!doctype html><title>Quota exceeded</title>")
    (folder / "face_recognition_sface_2021dec.onnx").write_bytes(b"\x08\x07\x3a\xff\x01" + b"x" * 90)
    snapshot = tmp_path / "cache" / "models--facebook--wav2vec2-base" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes((900).to_bytes(8, "little") + b"{")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert cli.run(fetch_weights.main, ["--list"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    damaged = {line.split("  ")[1]: line for line in lines if line.startswith("damaged  ")}
    assert {name: text in damaged[name] for name, text in {
        "retinaface": "(retinaface.pth is empty (0 bytes)",
        "Facenet": "is a Git LFS pointer, not the file itself",
        "ArcFace": "is a web page: the download failed",
        "SFace": "is cut off (95 of 260 bytes)",
        "wav2vec2": "model.safetensors is cut off (9 of 908 bytes)",
    }.items()} == dict.fromkeys(damaged, True)  # fmt: skip
    assert str(tmp_path / "cache") in damaged["wav2vec2"]
    assert cli.run(fetch_weights.main, ["--only", "Facenet"]) == ExitCode.USAGE
    message = capsys.readouterr()
    assert message.out.startswith("damaged: Facenet (facenet_weights.pth is a Git LFS pointer")
    assert "error: no network: 1 not fetched" in message.err


def test_only_fetches_what_is_named(fetch_weights, capsys):
    assert cli.run(fetch_weights.main, ["--only", "vit", "SFace"]) == ExitCode.USAGE
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said[:-1]] == [
        "Hugging Face model google/vit-base-patch16-224-in21k",
        "DeepFace embedding model SFace",
    ]


def test_unknown_name_lists_the_names(fetch_weights, capsys):
    assert cli.run(fetch_weights.main, ["--only", "facenet9000"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "facenet9000" in said
    assert "Facenet512" in said
    assert said.count("\n") == 1


def test_one_failed_download_does_not_keep_the_others_from_being_fetched(fetch_weights, monkeypatch, capsys):
    monkeypatch.setattr("facevox.downloads.answers", lambda url, timeout_s=3.0: "down" not in url)
    fetched = []

    def entry(name, server="https://up.example", error=None):
        def fetch():
            if error:
                raise error
            fetched.append(name)

        return fetch_weights.Weights(
            name=name, what=name, place="there", fault=lambda: "missing", server=server, fetch=fetch
        )

    missing = [entry("a", error=OSError("disk\nfull")), entry("b"), entry("c", "https://down.example")]
    assert fetch_weights.fetch_all(missing) == ExitCode.SOME_FAILED
    assert fetched == ["b"]
    assert capsys.readouterr().err.splitlines() == [
        "failed: a: OSError: disk full; put it at there",
        "missing: c: put it at there",
    ]
    assert fetch_weights.fetch_all([entry("b")]) == ExitCode.DONE
