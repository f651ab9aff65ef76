"""A real browser on a page: the system's Chromium, everything that it complains about kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DESKTOP = (1280, 900)
PHONE = (390, 844)
# Where pictures of every page are put, for a person to look at; none are taken when unset.
PICTURES = os.environ.get("CONSOLE_PICTURES")


def find_chromium() -> str | None:
    """The system's Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def launched() -> Generator[Browser]:
    """A headless browser."""
    path = find_chromium()
    assert path is not None, "No Chromium. On Debian: sudo apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page and what was wrong with it: errors, refusals by its policy, requests elsewhere."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Listens from now on."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self._check_address(request.url))

    def go(self, path: str) -> Page:
        """Opens a page of the console."""
        self.page.goto(self.base + path)
        return self.page

    def take_complaints(self) -> list[str]:
        """What was wrong since this was last asked."""
        found, self.complaints = self.complaints, []
        return found

    def picture(self, name: str) -> None:
        """Keeps a picture of the whole page where pictures are wanted."""
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _check_address(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:")):
            self.complaints.append(f"elsewhere: {url}")


def open_page(
    browser: Browser,
    base: str,
    *,
    size: tuple[int, int] = DESKTOP,
    dark: bool = False,
) -> tuple[BrowserContext, Watched]:
    """A new window, watched."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(15_000)
    watched = Watched(context.new_page(), base)
    watched.begin()
    return context, watched
