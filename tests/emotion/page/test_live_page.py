"""The page in a real browser: webcam, boxes and bars, words, uploads, recording, keyboard, reconnection."""

import csv
import io
import re
import time

import numpy as np
import pytest
from browser_waits import wait_for

pytestmark = pytest.mark.browser

LIVE = "document.querySelector('#status').dataset.state === 'live'"
HAS_FACES = "document.querySelectorAll('#faces tbody td').length > 0"
# How many pixels of the canvas have (nearly) the colour of bars and boxes, whatever the class.
COLOURED = """() => {
  const canvas = document.querySelector('#canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const style = getComputedStyle(document.documentElement);
  const counts = [];
  for (let k = 1; k <= 5; k += 1) {
    const hex = style.getPropertyValue(`--picture-${k}`).trim();
    const rgb = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 250 && rgb.every((value, c) => Math.abs(value - data[i + c]) <= 3)) count += 1;
    }
    counts.push(count);
  }
  return counts;
}"""


def start(page):
    page.click("#start")
    wait_for(page, LIVE)
    wait_for(page, HAS_FACES)


def shares(page):
    """Percent by face: columns of the table."""
    # In one call: between two of them the next frame may come.
    rows = page.evaluate(
        """() => [...document.querySelectorAll('#faces tbody tr')].map(
             (row) => [...row.querySelectorAll('.share')].map((cell) => Number(cell.innerText)))"""
    )
    return list(zip(*rows, strict=True))


def test_webcam_shows_boxes_bars_and_numbers_for_the_face(open_page, artefacts_dir):
    page = open_page()
    page.screenshot(path=artefacts_dir / "desktop_start.png")
    start(page)
    wait_for(page, "Number(document.querySelector('#fps').textContent) > 1")
    (column,) = shares(page)
    assert sum(column) == pytest.approx(100, abs=3)
    counts = page.evaluate(COLOURED)
    assert max(counts) > 300, "no box in the colour of a class"
    assert sum(count > 0 for count in counts) >= 2, "no bars"
    assert re.fullmatch(r"\d+", page.inner_text("#p50"))
    assert int(page.inner_text("#p95")) >= int(page.inner_text("#p50"))
    assert page.inner_text("#dropped").isdigit()
    page.screenshot(path=artefacts_dir / "desktop.png")
    page.click("#camera-toggle")
    page.wait_for_selector("#welcome:not([hidden])")
    assert page.evaluate("document.querySelector('#camera').srcObject") is None


def test_two_faces_have_a_column_and_a_box_each(open_page, artefacts_dir):
    page = open_page("two")
    start(page)
    wait_for(page, "document.querySelectorAll('#faces thead th').length === 3")
    assert [sum(column) for column in shares(page)] == pytest.approx([100, 100], abs=3)
    page.screenshot(path=artefacts_dir / "two_faces.png")


def test_frame_is_mirrored_and_its_boxes_with_it(open_page):
    page = open_page("two")
    start(page)
    assert page.get_attribute("#mirror", "aria-pressed") == "true"
    sums = """() => { const c = document.querySelector('#canvas');
      const line = c.getContext('2d').getImageData(0, Math.floor(c.height * 0.9), c.width, 1).data;
      let [left, right] = [0, 0];
      for (let x = 0; x < c.width; x += 1) {
        if (x < c.width / 2) left += line[4 * x]; else right += line[4 * x];
      }
      return [left, right]; }"""
    left, right = page.evaluate(sums)
    page.click("#mirror")
    assert page.get_attribute("#mirror", "aria-pressed") == "false"
    # Two different people side by side: which half is brighter at their chests changes.
    wait_for(page, f"(({sums})()).reduce((one, other) => one - other) * {left - right} < 0")


def test_language_switches_every_word_and_is_remembered(open_page, artefacts_dir):
    page = open_page()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").inner_text() == "Expressions, live"
    page.click("#lang-ko")
    assert page.evaluate("document.documentElement.lang") == "ko"
    english = re.compile("[A-Za-z]{3,}")
    kept = re.compile("facevox|English|CSV|JavaScript|EU|CIEDE")
    for element in page.locator("[data-text], #status-text, #faces-none-text, #legend li").all():
        text = element.inner_text()
        assert not english.search(kept.sub("", text)), text
    assert page.locator("#legend li").first.inner_text() == "기쁨"
    start(page)
    assert page.locator("#faces tbody th").first.inner_text() == "기쁨"
    page.screenshot(path=artefacts_dir / "korean.png")
    page.reload()
    wait_for(page, "document.querySelector('#status-text').textContent !== ''")
    assert page.evaluate("document.documentElement.lang") == "ko"


def test_korean_browser_starts_in_korean(open_page):
    assert open_page(locale="ko-KR").locator("h1").inner_text() == "실시간으로 보는 표정"


def test_phone_has_no_sideways_scrolling_and_large_targets(open_page, artefacts_dir):
    phone = {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    }
    page = open_page(**phone)
    page.screenshot(path=artefacts_dir / "phone_start.png")
    start(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.locator("button:visible, select:visible").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 36, button.inner_text()
    page.screenshot(path=artefacts_dir / "phone.png", full_page=True)


def test_picture_upload_draws_and_tabulates_its_faces(open_page, media, artefacts_dir):
    page = open_page(None)
    page.set_input_files("#file", media["picture"])
    wait_for(page, HAS_FACES)
    assert [sum(column) for column in shares(page)] == pytest.approx([100, 100], abs=3)
    assert max(page.evaluate(COLOURED)) > 300
    assert media["picture"].name in page.get_attribute("#canvas", "aria-label")
    page.screenshot(path=artefacts_dir / "picture.png")
    page.keyboard.press("Escape")
    page.wait_for_selector("#welcome:not([hidden])")


def test_dropped_picture_is_analysed(open_page, media):
    page = open_page(None)
    page.evaluate(
        """async (bytes) => {
          const file = new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' });
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(file);
          for (const name of ['dragenter', 'dragover', 'drop']) {
            const how = { dataTransfer, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent(name, how));
          }
        }""",
        list(media["picture"].read_bytes()),
    )
    wait_for(page, HAS_FACES)
    assert page.locator("#drop").is_hidden()


def test_video_upload_has_a_time_line_that_seeks_and_plays(open_page, media, artefacts_dir):
    page = open_page(None)
    page.set_input_files("#file", media["video"])
    page.wait_for_selector("#timeline:not([hidden])")
    wait_for(page, HAS_FACES)
    assert page.inner_text("#clock") == "0:00 / 0:02"
    painted = page.evaluate(
        "() => { const c = document.querySelector('#strip'); return c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v > 0).length; }"
    )
    assert painted > 1000, "no lane for the face"
    page.focus("#seek")
    page.keyboard.press("End")
    wait_for(page, "document.querySelector('#clip').currentTime > 1.8")
    page.screenshot(path=artefacts_dir / "video.png")
    page.keyboard.press("Home")
    wait_for(page, "document.querySelector('#clip').currentTime < 0.1")
    page.click("#play")
    wait_for(page, "document.querySelector('#clip').currentTime > 0.3")
    assert page.locator("#play").get_attribute("aria-label") in ("Pause", "Play")
    with page.expect_download() as download:
        page.click("#download")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) >= 8  # the server looks at five frames a second
    assert float(rows[-1]["time_s"]) > 1.5


def test_boxes_move_between_the_frames_that_were_analysed(open_page):
    page = open_page(None)
    found = page.evaluate(
        """async () => {
          const { facesAt } = await import('/static/uploads.js');
          const face = (id, left) => ({ id, box: [left, 10, 20, 30] });
          const frames = [
            { time_s: 0, faces: [face(1, 0), face(2, 50)] }, { time_s: 0.2, faces: [face(1, 8)] },
            { time_s: 2.2, faces: [face(1, 28)] }];
          return [0, 0.05, 0.2, 1.2, 5].map((at) => facesAt(frames, at).map(({ id, box }) => [id, box[0]]));
        }"""
    )
    assert found == [[[1, 0], [2, 50]], [[1, 2], [2, 50]], [[1, 8]], [[1, 8]], [[1, 28]]]


def test_quantiles_are_those_of_numpy(open_page):
    values = [31.0, 5.5, 12.0, 90.25, 44.0, 7.0]
    page = open_page(None)
    found = page.evaluate(
        "async (v) => { const { quantile } = await import('/static/meters.js');"
        " return [0, 0.5, 0.95, 1].map((q) => quantile(v, q)); }",
        values,
    )
    assert found == pytest.approx(np.quantile(values, [0, 0.5, 0.95, 1]).tolist())


def test_file_that_is_no_picture_is_refused_in_both_languages(open_page, media):
    open_page.allowed.append("status of 4")
    page = open_page(None)
    page.set_input_files("#file", media["text"])
    page.wait_for_selector("#message:not([hidden])")
    english = page.inner_text("#message-text")
    page.click("#lang-ko")
    assert re.search("[가-힣]", page.inner_text("#message-text"))
    assert not re.search("[가-힣]", english)
    page.click("#message-close")
    page.wait_for_selector("#welcome:not([hidden])")


def test_recording_is_saved_as_csv_with_the_numbers_of_each_frame(open_page):
    page = open_page()
    start(page)
    start_s = time.monotonic()
    page.click("#record")
    wait_for(page, "Number(document.querySelector('#recording-text').textContent.replace(/\\D/g, '')) >= 5")
    page.click("#record")
    longest_s = time.monotonic() - start_s
    page.click("#camera-toggle")  # the rows outlast the camera
    with page.expect_download() as download:
        page.click("#download")
    assert re.fullmatch(r"facevox_\d{4}-\d\d-\d\d_\d{6}\.csv", download.value.suggested_filename)
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) >= 5
    times = [float(row["time_s"]) for row in rows]
    assert times == sorted(times)
    assert times[-1] < longest_s
    for row in rows:
        if row["face"]:
            probabilities = [
                float(row[name]) for name in ("happy", "sad", "neutral", "embarrassed", "anxiety")
            ]
            assert sum(probabilities) == pytest.approx(1, abs=1e-3)
            assert float(row["width"]) > 20
            assert float(row["latency_ms"]) > 0
    assert any(row["face"] for row in rows)


def test_everything_works_by_keyboard_alone(open_page):
    page = open_page()
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or order[-1] == "", order
        if order[-1] == "start":
            break
    assert order[0] == "skip"
    assert order[-1] == "start", order
    page.keyboard.press("Enter")
    wait_for(page, LIVE)
    wait_for(page, HAS_FACES)
    page.keyboard.press("r")
    page.wait_for_selector("#recording-badge:not([hidden])")
    page.keyboard.press("r")
    page.keyboard.press("m")
    assert page.get_attribute("#mirror", "aria-pressed") == "false"
    page.keyboard.press("l")
    assert page.evaluate("document.documentElement.lang") == "ko"
    page.keyboard.press("h")
    assert page.locator("#help").is_visible()
    assert page.locator("#keys kbd").count() >= 8
    page.locator("#keys-on").focus()
    page.keyboard.press("Space")  # single keys off
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("l")
    assert page.evaluate("document.documentElement.lang") == "ko", "the switched-off key did something"
    page.locator("#camera-toggle").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#welcome:not([hidden])")


def test_page_comes_back_when_the_server_does(
    open_page, live_server_class, model_dir, tmp_path, artefacts_dir, page_server
):
    open_page.allowed += ["WebSocket", "ERR_CONNECTION"]
    first = live_server_class(tmp_path / "first", model_dir)
    port = first.port
    with first:
        page = open_page("one", f"http://127.0.0.1:{port}/")
        start(page)
        first.stop()
        wait_for(page, "document.querySelector('#status').dataset.state === 'waiting'")
        assert "Reconnecting in" in page.inner_text("#status-text")
        page.wait_for_selector("#hint:not([hidden])")
        assert page.locator("#faces-scroll").is_hidden()
        page.screenshot(path=artefacts_dir / "reconnecting.png")
    second = live_server_class(tmp_path / "second", model_dir, "--server_port", str(port))
    second.port = port
    with second:
        wait_for(page, LIVE)
        wait_for(page, HAS_FACES)
        assert page.locator("#hint").is_hidden()


def test_without_a_model_the_page_says_how_to_train_one(
    open_page, live_server_class, tmp_path, artefacts_dir
):
    with live_server_class(tmp_path, tmp_path / "no models") as server:
        page = open_page("one", f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("#message:not([hidden])")
        assert "make demo" in page.inner_text("#message-commands")
        assert "emotion-train" in page.inner_text("#message-commands")
        assert page.get_attribute("#status", "data-state") == "nomodel"
        page.screenshot(path=artefacts_dir / "no_model.png")


def test_full_server_is_said_and_tried_again(open_page, live_server_class, model_dir, tmp_path):
    open_page.allowed.append("WebSocket")
    with live_server_class(tmp_path, model_dir, "--max_connections", "1") as server:
        address = f"http://127.0.0.1:{server.port}/"
        first, second = open_page("one", address), open_page("one", address)
        start(first)
        second.click("#start")
        wait_for(second, "document.querySelector('#status').dataset.state === 'waiting'")
        wait_for(second, "document.querySelector('#status-text').textContent.startsWith('Server full')")
        first.click("#camera-toggle")
        wait_for(second, LIVE)


def test_refused_missing_and_insecure_cameras_are_explained(open_page):
    page = open_page(None)
    for name, title in (
        ("NotAllowedError", "The camera is blocked"),
        ("NotFoundError", "No camera found"),
        ("NotReadableError", "The camera is in use"),
        ("OddError", "The camera could not be opened"),
    ):
        page.evaluate(
            "(name) => { navigator.mediaDevices.getUserMedia = async () => {"
            " throw new DOMException('reason of the test', name); }; }",
            name,
        )
        page.keyboard.press("c")
        wait_for(page, f"document.querySelector('#message-title').textContent === {title!r}")
        assert page.inner_text("#alert").startswith(title)
        page.click("#message-close")
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.keyboard.press("c")
    wait_for(page, "document.querySelector('#message-text').textContent.includes('https://')")
