"""Takes the pictures of the page in docs/images: a served walk, answers, the memory, the map.

Use: python scripts/draw_page.py [SEED]        (needs Chromium and the scenes extra; SEED is a held-out home)
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a plain checkout

from spatial_ttt.loading import open_model  # noqa: E402
from spatial_ttt.serve.app import create_app  # noqa: E402
from spatial_ttt.serve.settings import ServeSettings  # noqa: E402

IMAGES = ROOT / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUESTIONS = (
    "How many chair(s) are in this room?",
    "What is the size of this room (in square meters)?",
)


def draw(url: str, seed: str) -> None:
    """Watch a walk, ask, draw, and take the pictures."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1240}, color_scheme="light")
        page.set_default_timeout(240_000)
        page.goto(url)
        expect(page.locator("#health")).to_have_class(re.compile("ok"))
        page.check("#fast")
        page.fill("#seed", seed)
        page.click("#walk")
        expect(page.locator("#counts")).to_have_text("frame 119", timeout=240_000)
        for question in QUESTIONS:
            page.fill("#question", question)
            page.keyboard.press("Enter")
            expect(page.locator("#answers .t").first).to_have_text(
                re.compile("whole"), timeout=60_000
            )
        page.keyboard.press("Escape")
        page.click("#keep")
        page.click("#fork")
        expect(page.locator("#sessions [data-id]")).to_have_count(2)
        page.locator("#sessions [data-id]").nth(1).click()
        page.click("#draw")
        expect(page.locator("#mapnote")).to_have_text(re.compile("placed|nothing"), timeout=240_000)
        page.mouse.move(0, 0)
        time.sleep(6)  # the messages in the corner go
        page.screenshot(path=IMAGES / "page_light.png")
        page.click("#theme")
        page.mouse.move(0, 0)
        page.screenshot(path=IMAGES / "page_dark.png")
        phone(page)
        browser.close()


def phone(page: Page) -> None:
    """The same session, dark, on a small screen."""
    page.set_viewport_size({"width": 390, "height": 844})
    time.sleep(0.5)  # drawn again for the new width
    page.screenshot(path=IMAGES / "page_phone.png", full_page=True)


def main(seed: str) -> None:
    """Serve the shipped model for as long as it takes."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(open_model(None), ServeSettings(snapshot_dir=Path(folder), snapshot_s=2))
        config = uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.05)
            port = server.servers[0].sockets[0].getsockname()[1]
            draw(f"http://127.0.0.1:{port}", seed)
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "2")
