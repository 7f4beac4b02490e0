"""A real Chromium with a webcam that plays a real face, and the real server behind it."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from browser_waits import wait_for
from face_pictures import frame_of_faces
from small_classifier import write_small_classifier

from facevox.files import encode_image, write_image
from facevox.media import iter_frames, write_video

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Of the real sample data, with one and with two faces; where it is absent a portrait moves to and fro.
ONE_FACE, TWO_FACES = "talking/May_5s.mp4", "talking/multi_interview.mp4"
CAMERA_SIZE = (640, 480)
CAMERA_FRAMES = 60  # two seconds at the 30 Hz at which Chromium plays an .mjpeg, over and over


def load_live_server() -> ModuleType:
    """tests/emotion/serving/live_server.py: pytest knows its folder only while tests of it are collected."""
    if "live_server" not in sys.modules:
        path = Path(__file__).resolve().parents[1] / "serving" / "live_server.py"
        spec = importlib.util.spec_from_file_location("live_server", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["live_server"] = module
        spec.loader.exec_module(module)
    return sys.modules["live_server"]


@pytest.fixture(scope="session")
def chromium_path() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    pytest.importorskip("playwright.sync_api", reason="no playwright (pip install playwright)")
    return found


@pytest.fixture(scope="session")
def artefacts_dir(repository: Path) -> Path:
    """Screenshots for people; git ignores them."""
    folder = repository / "runs" / "test_artifacts" / "emotion_page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def face_frames(num_faces: int) -> list[np.ndarray]:
    """Real faces in (480, 640, 3) uint8 RGB, from the sample data or else from a free portrait."""
    import cv2

    data = os.environ.get("FACEVOX_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")
    clip = Path(data) / (ONE_FACE if num_faces == 1 else TWO_FACES)
    if not clip.is_file():
        frames = [frame_of_faces(num_faces, int(20 * np.sin(k / 5))) for k in range(CAMERA_FRAMES)]
        for image in frames:
            image[400:, :200] = 230  # left and right can be distinguished
        return frames
    frames = []
    width, height = CAMERA_SIZE
    for frame in iter_frames(clip, rate_hz=30, max_frames=CAMERA_FRAMES):
        scale = min(width / frame.image.shape[1], height / frame.image.shape[0])
        small = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas = np.full((height, width, 3), 40, np.uint8)
        top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        frames.append(canvas)
    return frames


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`one` and `two` (.mjpeg for the webcam), `picture`, `video`, `text`."""
    folder = tmp_path_factory.mktemp("media")
    paths = {}
    for name, count in (("one", 1), ("two", 2)):
        paths[name] = folder / f"{name}.mjpeg"
        paths[name].write_bytes(b"".join(encode_image(image, ".jpg", 90) for image in face_frames(count)))
    paths["picture"] = folder / "얼굴 '사진'.png"
    write_image(paths["picture"], frame_of_faces(2))
    paths["video"] = folder / "clip.mp4"
    write_video(paths["video"], [frame_of_faces(1, 2 * k) for k in range(20)], 10)
    paths["text"] = folder / "text.jpg"
    paths["text"].write_text("no picture")
    return paths


@pytest.fixture(scope="session")
def live_server_class() -> Any:
    return load_live_server().LiveServer


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classifier(tmp_path_factory.mktemp("page model")).parent


@pytest.fixture(scope="session")
def page_server(
    model_dir: Path, live_server_class: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    with live_server_class(tmp_path_factory.mktemp("page server"), model_dir) as running:
        yield running


class Browser:
    """Chromium with a fake webcam; pages whose console and security complaints are kept."""

    def __init__(self, playwright: Any, path: str, camera: Path | None) -> None:
        options = ["--no-sandbox", "--disable-gpu"]
        if camera is not None:
            options += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
            options += [f"--use-file-for-fake-video-capture={camera}"]
        self.playwright = playwright
        self.browser = playwright.chromium.launch(executable_path=path, args=options)
        self.complaints: list[str] = []

    def open(self, address: str, *, camera: bool = True, **options: Any) -> Any:
        """A page in its own context, of a desktop's size unless stated otherwise."""
        chosen = {"viewport": {"width": 1366, "height": 860}, "locale": "en-US", **options}
        context = self.browser.new_context(**chosen, permissions=["camera"] if camera else [])
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective));"
        )
        page.goto(address)
        wait_for(page, "document.querySelector('#status-text').textContent !== ''")
        return page


@pytest.fixture(scope="module")
def browsers(chromium_path: str) -> Iterator[Callable[[Path | None], Browser]]:
    """`browsers(camera)`: one Chromium for each webcam file, all closed at the end."""
    from playwright.sync_api import sync_playwright

    made: dict[Path | None, Browser] = {}
    with sync_playwright() as playwright:

        def browser_of(camera: Path | None) -> Browser:
            if camera not in made:
                made[camera] = Browser(playwright, chromium_path, camera)
            return made[camera]

        try:
            yield browser_of
        finally:
            for browser in made.values():
                browser.browser.close()


@pytest.fixture
def open_page(
    browsers: Callable[[Path | None], Browser], media: dict[str, Path], page_server: Any
) -> Iterator[Callable[..., Any]]:
    """`open_page(faces="one", address=…, **context options)`; at the end nothing may have complained."""
    opened = []
    used = set()

    def open_one(faces: str | None = "one", address: str | None = None, **options: Any) -> Any:
        browser = browsers(media[faces] if faces else None)
        browser.complaints.clear()
        used.add(browser)
        page = browser.open(address or f"http://127.0.0.1:{page_server.port}/", **options)
        opened.append(page)
        return page

    # Reading the canvas is the test's doing.
    open_one.allowed = ["willReadFrequently"]  # type: ignore[attr-defined]
    try:
        yield open_one
    finally:
        for page in opened:
            page.context.close()
    allowed = open_one.allowed  # type: ignore[attr-defined]
    complaints = [text for browser in used for text in browser.complaints]
    assert [text for text in complaints if not any(part in text for part in allowed)] == []
