"""The report as one PDF file, printed by a browser that is on this machine: `python -m health_actions.pdf`."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from health_actions.paths import atomic_write, find_root

NAMES = ["chromium", "chromium-browser", "google-chrome", "chrome", "msedge"]
PLACES = [Path(f"/Applications/{name}.app/Contents/MacOS/{name}") for name in ("Google Chrome", "Chromium")]  # macOS
SECONDS = 300  # a page that takes longer will not come


class PrintError(Exception):
    """The report could not be printed; the message says why and what to do."""


def find_chromium() -> str | None:
    """Where Chromium or a browser built from it is; None if there is none."""
    found = [*map(shutil.which, NAMES), *(str(place) for place in PLACES if place.is_file())]
    return next(filter(None, found), None)


def count_pages(path: Path) -> int:
    """How many pages a PDF file of Chromium has; 0 if it is none."""
    content = path.read_bytes() if path.is_file() else b""
    return len(re.findall(rb"/Type\s*/Page\b", content)) if content.startswith(b"%PDF") else 0


def print_report(page: Path, output: Path) -> int:
    """Print a page to a PDF file, as a whole or not at all; returns its number of pages."""
    if not page.is_file():
        raise PrintError(f"there is no {page} to print; it is made by: make repro")
    browser = find_chromium()
    if browser is None:
        raise PrintError(f"no Chromium found: looked for {', '.join(NAMES)} on the path and in /Applications. "
                         "Debian and Ubuntu have it: apt install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, atomic_write(output) as temporary:
        command = [browser, "--headless", f"--user-data-dir={folder}/profile", "--no-pdf-header-footer",
                   f"--print-to-pdf={temporary.resolve()}", page.resolve().as_uri()]
        if os.geteuid() == 0:  # Chromium has no sandbox for root
            command.insert(1, "--no-sandbox")
        log = Path(folder) / "log.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise PrintError(f"{browser} did not print {page} within {SECONDS} seconds") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
        pages = count_pages(temporary)
        if code or not pages:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
            raise PrintError(f"{browser} printed no PDF (exit code {code}): {said[-1]}")
    return pages


def main(output: Annotated[Path | None, typer.Option(help="Where to write; default build/report.pdf.")] = None) -> None:
    """Print reports/index.html to a PDF file."""
    root = find_root()
    output = output or root / "build" / "report.pdf"
    try:
        pages = print_report(root / "reports" / "index.html", output)
    except (PrintError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"{pages} pages: {output}")


if __name__ == "__main__":
    typer.run(main)
