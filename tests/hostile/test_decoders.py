"""Only the decoders that are meant: no other program, no other file, no network, no code out of a file."""

import ast
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facevox.errors import UserError
from facevox.files import read_image
from facevox.media import iter_audio, iter_frames, probe

FOLDERS = ("facevox", "facevox_demo", "facevox_programs", "lc_pytorch", "lipsync", "emotion", "scripts")
READERS = (
    "facevox/media/container.py",
    "facevox/media/sequences.py",
    "lipsync/clips/live.py",
    "lipsync/clips/sources.py",
)

UNSAFE = (("trust_remote_code", "True"), ("safe_mode", "False"), ("shell", "True"))
# What is opened there is no file of somebody else: a camera, or what the program itself has made.
MEANT = {
    ("emotion/live/camera.py", "cv2.VideoCapture"),
    ("benchmarks/extraction.py", "cv2.VideoCapture"),
    ("benchmarks/hq_loading.py", "pickle.load"),
}


def calls(repository: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """(file, name as it is written, call) of each call in the code, the benchmarks and the examples."""
    for folder in (*FOLDERS, "benchmarks", "examples", "docker", "slurm"):
        for file in sorted((repository / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield file.relative_to(repository).as_posix(), ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str:
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == name), "")


def fault(file: str, name: str, call: ast.Call) -> str:
    """What a call could open or run that is not meant; "" for every other one."""
    end = name.rpartition(".")[2]
    if name == "Image.open" and not keyword(call, "formats"):
        return "any of Pillow's decoders, Ghostscript among them"
    mode = keyword(call, "mode") or (ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'")
    if name == "av.open" and mode != "'w'" and file not in READERS:
        return "any of FFmpeg's demuxers: facevox.media.open_media is meant"
    if name.startswith("yaml.") and end not in ("safe_load", "safe_dump"):
        return "objects out of YAML"
    if name == "torch.load" and keyword(call, "weights_only") != "True":
        return "code out of a checkpoint"
    if name == "np.load" and keyword(call, "allow_pickle") not in ("", "False"):
        return "code out of an array file"
    if name in (
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "pd.read_pickle",
        "eval",
        "exec",
        "marshal.loads",
    ):
        return "code out of a file"
    if "keras" in name and end == "load_model":
        return "Lambda layers"
    if any(keyword(call, word) == value for word, value in UNSAFE):
        return "code that comes with a model, or a shell"
    return "any of OpenCV's decoders" if end == "VideoCapture" else ""


def test_files_are_opened_with_a_list_of_decoders(repository: Path) -> None:
    found = list(calls(repository))
    names = {name for _, name, _ in found}
    assert {"Image.open", "av.open", "torch.load", "np.load"} <= names
    faults = [
        f"{file}:{call.lineno}: {name}: {text}"
        for file, name, call in found
        if (text := fault(file, name, call)) and (file, name) not in MEANT
    ]
    assert not faults


@pytest.mark.parametrize(
    "code",
    ["Image.open(x)", "av.open(x)", "av.open(x, 'r')", "yaml.load(x)", "torch.load(x)", "eval(x)",
     "np.load(x, allow_pickle=True)",
     "keras.models.load_model(x)", "f(trust_remote_code=True)", "cv2.VideoCapture(x)", "pickle.load(x)"],
)  # fmt: skip
def test_this_test_knows_the_others(code: str) -> None:
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert fault("other.py", ast.unparse(statement.value.func), statement.value)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        yield server


def play_lists(port: int, secret: Path) -> dict[str, str]:
    address = f"http://127.0.0.1:{port}/x.ts"
    return {
        "concat": f"ffconcat version 1.0\nfile '{secret}'\nfile {address}\n",
        "hls": f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f'<AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{address}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "rtsp": f"RTSPtext\nrtsp://127.0.0.1:{port}/x\n",
        "asx": f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>',
    }


@pytest.mark.parametrize("kind", play_lists(0, Path()))
@pytest.mark.parametrize(
    "read", [probe, lambda path: list(iter_frames(path)), lambda path: list(iter_audio(path, 16000))]
)
def test_play_lists_open_no_other_file_and_no_address(
    kind: str, read: Callable[[Path], object], listener: socket.socket, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    file = tmp_path / "talk.mp4"
    file.write_text(play_lists(listener.getsockname()[1], secret)[kind])
    with pytest.raises(UserError, match=r"talk\.mp4") as refusal:
        read(file)
    assert "secret" not in str(refusal.value).replace(str(tmp_path), "")
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "-i.mp4", "concat:a|b.mp4", "pipe:0.mp4", "subfile,,start,0:.mp4"]
)
def test_names_are_no_addresses_and_no_options(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"no video")
    with pytest.raises(UserError, match="not a readable media file"):
        probe(Path(name))


@pytest.mark.parametrize("text", [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touched) (w) file\n",
    b"\xd7\xcd\xc6\x9a" + bytes(36), b"SIMPLE  =                    T", b"BM" + bytes(60),
    b"icns" + bytes(60),
    b"GIF89a" + bytes(20), b"\x89HDF\r\n\x1a\n" + bytes(60), b"%PDF-1.4\n", b"P6\n1 1\n255\nabc",
])  # fmt: skip
def test_other_pictures_are_not_decoded(text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = tmp_path / "gs"
    ghost.write_text(f"#!/bin/sh\ntouch {tmp_path / 'touched'}\n")
    ghost.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "x.jpg").write_bytes(text)
    with pytest.raises(UserError):
        read_image(tmp_path / "x.jpg")
    assert not (tmp_path / "touched").exists()
