"""Study A's Figures 10 and 11 of this project's own page, in a browser: `python -m benchmarks.page_pictures`.

It needs a finished run (make repro), its embedded clips and Chromium, and writes docs/pictures, which is committed.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from app import build_app
from health_actions.paths import find_root

STEPS = ["Step_1", "Step_2_Left", "Step_2_Right", "Step_5_Left"]


def take_pictures(tab: Page, clips: list[Path], folder: Path) -> None:
    """Write figure_10_upload.png, clips that are chosen, and figure_11_answer.png, what the page then says of them."""
    tab.locator("[role=tabpanel]:visible input[type=file]").last.set_input_files(clips)
    expect(tab.locator("[role=tabpanel]:visible .file")).to_have_count(len(clips))
    tab.screenshot(path=folder / "figure_10_upload.png")
    tab.get_by_role("button", name="Check the wash").click()
    tab.get_by_role("heading", name="The wash:").wait_for()
    tab.locator(".block.answers:visible").screenshot(path=folder / "figure_11_answer.png")


def main() -> None:
    """Take both pictures of the project around the working folder; exit with a message where something is missing."""
    root = find_root()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("no Chromium found; on Debian and Ubuntu: apt install chromium")
    clips = [min((root / "data" / "handwash" / step).glob("*.mp4"), default=None) for step in STEPS]
    if None in clips:
        sys.exit(f"no clips of {', '.join(STEPS)} in {root / 'data' / 'handwash'}; the embedded ones: make clips")
    folder = root / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    page = build_app(root)
    _, address, _ = page.launch(prevent_thread_lock=True)
    with sync_playwright() as playwright:
        tab = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page(
            viewport={"width": 900, "height": 640})
        tab.set_default_timeout(120_000)  # milliseconds, for an answer on a slow machine
        tab.goto(address)
        take_pictures(tab, clips, folder)
    page.close()


if __name__ == "__main__":
    main()
