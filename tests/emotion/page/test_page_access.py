"""Who cannot see or move much: names, contrast, motion, live regions; and nothing from outside."""

import itertools
import re
from pathlib import Path

import pytest
from browser_waits import wait_for

pytestmark = pytest.mark.browser

NAMELESS = """() => [...document.querySelectorAll(
    'button, input, select, a, [role=img], progress, [tabindex]')]
  .filter((element) => element.checkVisibility() && !element.closest('[aria-hidden=true]'))
  .filter((element) => {
    const named = element.getAttribute('aria-labelledby');
    const label = element.getAttribute('aria-label') || element.labels?.[0]?.textContent
      || (named && document.getElementById(named).textContent)
      || (element.matches('button, a, #stage') ? element.textContent : '');
    return !label?.trim();
  }).map((element) => element.outerHTML.slice(0, 120))"""

# Text against the nearest opaque ground, by the formula of WCAG 2.2; below 4.5 (large: 3) it is listed.
PALE = """() => {
  const parse = (css) => css.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(e).backgroundColor);
      if (a > 0.8) return [r, g, b];
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const faults = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: element, textContent } = walker.currentNode;
    if (!textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest('.unseen, noscript, .skip, .tool.small')) continue; // seen by screen readers alone
    if (element.closest('.empty') || element.closest(':disabled')) continue; // a dash for "nothing yet"
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(ground(element))].sort((x, y) => y - x);
    const sizePx = parseFloat(style.fontSize);
    const isLarge = sizePx >= 24 || (sizePx >= 18.6 && style.fontWeight >= 700);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < (isLarge ? 3 : 4.5)) faults.push(`${contrast.toFixed(2)} ${textContent.trim()}`);
  }
  return faults;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_contrast(open_page, media, scheme, artefacts_dir):
    page = open_page(color_scheme=scheme)
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(PALE) == []
    page.click("#start")
    wait_for(page, "document.querySelectorAll('#faces tbody td').length > 0")
    page.click("#record")
    page.wait_for_selector("#recording-badge:not([hidden])")
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(PALE) == []
    page.screenshot(path=artefacts_dir / f"{scheme}.png")
    page.keyboard.press("h")
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("Escape")
    page.set_input_files("#file", media["video"])
    page.wait_for_selector("#timeline:not([hidden])")
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(PALE) == []


def test_screen_reader_hears_what_changes_and_not_more_often_than_it_can_read(open_page):
    page = open_page()
    page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push([performance.now(),"
        " document.querySelector('#announce').textContent])).observe(document.querySelector('#announce'),"
        " { childList: true, characterData: true, subtree: true }); }"
    )
    page.click("#start")
    wait_for(
        page,
        "said.some(([, text]) => /^Face \\d+: \\w+, \\d+ percent/.test(text))",
    )
    page.wait_for_timeout(3000)
    times_ms = [at for at, text in page.evaluate("said") if text.startswith("Face")]
    assert all(later - before > 3900 for before, later in itertools.pairwise(times_ms))
    assert page.locator("#announce").get_attribute("aria-live") == "polite"
    table = page.locator("#faces")
    assert table.locator("caption").inner_text()
    assert table.locator("tbody th[scope=row]").count() == 5
    assert table.locator("thead th[scope=col]").count() == 2


def test_reduced_motion_stops_what_moves_by_itself(open_page):
    for motion, wanted in (("reduce", "none"), ("no-preference", "pulse")):
        page = open_page(reduced_motion=motion)
        page.click("#start")
        wait_for(page, "document.querySelector('#status').dataset.state === 'live'")
        assert (
            page.evaluate("getComputedStyle(document.querySelector('#status .lamp')).animationName") == wanted
        )


def test_law_and_privacy_are_on_the_page_in_four_lines(open_page):
    page = open_page(None)
    for language, words in (
        ("en", ("stored", "not a feeling", "5(1)(f)", "Ask")),
        ("ko", ("저장", "감정이 아닙니다", "제5조", "동의")),
    ):
        page.click(f"#lang-{language}")
        lines = page.locator(".note li").all_inner_texts()
        assert len(lines) == 4
        assert all(word in line for word, line in zip(words, lines, strict=True))


def test_page_asks_no_other_machine_for_anything(open_page, page_server):
    page = open_page(None)
    addresses = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(addresses) > 5
    assert all(address.startswith(f"http://127.0.0.1:{page_server.port}/") for address in addresses)


def test_files_of_the_page_have_no_outside_addresses_and_no_inline_code(repository: Path):
    folder = repository / "emotion" / "static"
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        others = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace("http://www.w3.org/2000/svg", ""))
        assert others == [], file.name
        assert len(text.splitlines()) <= 500, file.name
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", page)
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="static/script.js">']


def test_both_languages_have_the_same_words(repository: Path):
    text = (repository / "emotion" / "static" / "texts.js").read_text(encoding="utf-8")
    english, korean = text.split("\n  ko: {")
    keys = [re.findall(r"^    (\w+):", part, re.MULTILINE) for part in (english, korean)]
    assert keys[0] == keys[1]
    used = {
        key
        for file in (repository / "emotion" / "static").glob("*")
        for key in re.findall(
            r"""(?:\bt\(\s*|data-(?:text|label)=|text: |title: |shown: )["'](\w+)["']""",
            file.read_text(encoding="utf-8"),
        )
    }
    assert {key for key in used if key not in keys[0] and len(key) > 1} == set()
