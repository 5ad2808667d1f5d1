"""The page in a real browser: stream the shipped walk, ask, fork, reload, restore."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from spatial_ttt.loading import SHIPPED, open_model
from tests.serve import parts
from tests.serve.parts import ANN, live, tokens_file

CHROMIUM = Path("/usr/bin/chromium")
STATIC = Path(parts.create_app.__code__.co_filename).parent / "static"
WALK = SHIPPED / "demo" / "walk.mp4"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic"]  # fmt: skip

PATIENCE_MS = 120_000
"""No wait is for a fixed time, so a quick machine never waits so long."""

needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")


@contextmanager
def browser_page(**context):
    """A page of a real browser that fails the test for any error of its scripts."""
    playwright = pytest.importorskip("playwright.sync_api")
    errors = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(PATIENCE_MS)
        playwright.expect.set_options(timeout=PATIENCE_MS)  # its own default is 5 s
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        foreign = []
        page.on("request", lambda r: foreign.append(r.url) if "127.0.0.1" not in r.url else None)
        yield page, playwright.expect
        browser.close()
    assert [error for error in errors if "401" not in error] == []
    assert [url for url in foreign if not url.startswith(("blob:", "data:"))] == []


def ask(page, expect, question):
    """Ask and return the answer's text."""
    page.fill("#question", question)
    page.keyboard.press("Enter")
    first = page.locator("#answers li").first
    expect(first.locator(".q")).to_have_text(question)
    expect(first.locator(".t")).to_have_text(re.compile(r"about everything to .* whole"))
    return first.locator(".a").inner_text()


@needs_browser
@pytest.mark.skipif(not WALK.exists(), reason="no walkthrough ships yet")
def test_stream_ask_fork_reload_restore(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "loaded", lambda: shipped)
    shipped = open_model(None, device="cpu")
    with live(tmp_path, max_frames=400) as server, browser_page() as (page, expect):
        page.goto(server.url)
        expect(page.locator("#health")).to_have_class(re.compile("ok"))
        page.check("#fast")
        page.select_option("#fps", "1")
        page.set_input_files("#file", str(WALK))
        expect(page.locator("#counts")).to_have_text("frame 31")
        expect(page.locator("#stop")).to_be_hidden()
        assert page.locator("#clock").inner_text() == "0:31.0"
        answer = ask(page, expect, "How many chair(s) are in this room?")
        assert re.search(r"\d", answer)
        painted = page.evaluate(
            "() => { const c = document.querySelector('#timeline'); const seen = new Set();"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i+1] << 8 | d[i+2]);"
            "return seen.size; }"
        )
        assert painted > 20  # the heat of many slots, not an empty strip
        page.click("#keep")
        expect(page.locator("[data-snapshot]")).to_have_count(1)
        page.click("#fork")
        expect(page.locator("#sessions [data-id]")).to_have_count(2)
        expect(page.locator("#title")).to_have_text("walk.mp4 fork")
        assert ask(page, expect, "How many chair(s) are in this room?") == answer
        chosen = page.url
        page.reload()
        expect(page.locator("#title")).to_have_text("walk.mp4 fork")
        assert page.url == chosen
        expect(page.locator("#answers .a").first).to_have_text(answer)
        page.click("[data-snapshot] >> text=Restore")
        expect(page.locator("#sessions [data-id]")).to_have_count(3)
        expect(page.locator("#title")).to_have_text(re.compile("again$"))
        assert ask(page, expect, "How many chair(s) are in this room?") == answer


@needs_browser
def test_a_walk_is_watched_and_its_map_is_drawn_beside_the_truth(tmp_path, monkeypatch):
    pytest.importorskip("spatial_ttt.serve.walks", reason="the scenes extra is not installed")
    shipped = open_model(None, device="cpu")
    monkeypatch.setattr(parts, "loaded", lambda: shipped)
    with live(tmp_path, max_frames=400) as server, browser_page() as (page, expect):
        page.goto(server.url)
        page.check("#fast")
        page.select_option("#fps", "1")
        page.fill("#seed", "3")
        page.click("#walk")
        expect(page.locator("#title")).to_have_text("home 3")
        expect(page.locator("#counts")).to_have_text("frame 59")
        page.click("summary >> text=Things asked about")
        page.fill("#things", "chair, table, sofa")
        page.click("#draw")
        expect(page.locator("#mapnote")).to_have_text(re.compile("placed|nothing"))
        asked = page.locator("#mapasked li").all_text_contents()
        assert [re.search("How many (.*)\\(s\\)", line)[1] for line in asked[:3]] == [
            "chair", "table", "sofa"
        ]  # fmt: skip
        expect(page.locator("#mapcounts summary")).to_have_text(
            re.compile(r"Counts: \d of \d right")
        )
        with_truth = page.locator("#map").screenshot()
        page.uncheck("#truth")
        expect(page.locator("#maplegend")).to_be_hidden()
        expect(page.locator("#mapcounts summary")).to_have_text("Counts")
        assert page.locator("#map").screenshot() != with_truth


@needs_browser
def test_a_token_is_asked_for_and_a_phone_shows_everything(tmp_path):
    tokens = tokens_file(tmp_path)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "color_scheme": "dark"}
    with live(tmp_path, token_file=tokens) as server, browser_page(**phone) as (page, expect):
        page.goto(server.url)
        page.fill("#token", "wrong-wrong-wrong-wrong")
        page.click("#login button")
        expect(page.locator("#loginerror")).to_be_visible()
        page.fill("#token", ANN)
        page.click("#login button")
        expect(page.locator("#login")).to_be_hidden()
        assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        page.click("#drawer")
        page.click("#new")
        expect(page.locator("#sessions [data-id]")).to_have_count(1)
        for part in ("#stage", "#talk", "#timeline", "#map"):
            box = page.locator(part).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        page.keyboard.press("/")
        assert page.evaluate("() => document.activeElement.id") == "question"
        page.keyboard.press("Escape")
        page.keyboard.press("d")
        assert page.evaluate("() => document.documentElement.dataset.theme") == "light"


def test_the_page_names_nothing_outside_this_server():
    for path in STATIC.iterdir():
        text = path.read_text()
        links = [url for url in re.findall(r"https?://[^\s\"'`)]+", text) if "w3.org" not in url]
        assert links == [], path
        assert " style=" not in text and "onclick=" not in text.replace("onclick: ", "")
