"""The page in a real browser: washes, falls, two widths, no request to another machine, nothing left at its end."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest
import typer
from conftest import draw_square, list_files, write_video
from playwright.sync_api import expect, sync_playwright
from random_models import make_project

from app import page as app

pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")
WIDTHS = [1280, 390]
SECONDS = 60  # that a slow machine may take for an answer


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


@contextlib.contextmanager
def start_page(project, place):
    """The page as `make app` starts it, with a folder for temporary files: its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--port", str(port)], cwd=project, env=os.environ | {"TMPDIR": str(place)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/" in line, line + process.stdout.read()
    yield process, f"http://127.0.0.1:{port}/"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def address(project, tmp_path_factory):
    """Of a page that is open during all tests."""
    with start_page(project, tmp_path_factory.mktemp("temporary")) as (_, address):
        yield address


@pytest.fixture(scope="module")
def chromium():
    browser = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(chromium):
    """Open an address at a width; the test fails on any error in the page and any request to another machine."""
    opened, problems = [], []

    def visit(address: str, width: int):
        tab = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
        tab.set_default_timeout(SECONDS * 1000)
        tab.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        tab.on("request", lambda request: problems.append(request.url) if not re.match(
            rf"(data:|blob:)?{re.escape(address)}|data:", request.url) else None)
        tab.goto(address)
        opened.append(tab)
        return tab

    yield visit
    for tab in opened:
        tab.wait_for_timeout(200)
        assert tab.evaluate("document.scrollingElement.scrollWidth") <= tab.viewport_size["width"]
        tab.context.close()
    assert problems == []


def hand_in(tab, *paths) -> None:
    """Choose files on the tab that is open."""
    tab.locator("[role=tabpanel]:visible input[type=file]").last.set_input_files(paths)


def check_pictures(tab, selector: str, count: int) -> None:
    """Pictures are there, are loaded and have a text."""
    pictures = tab.locator(selector)
    expect(pictures).to_have_count(count)
    for picture in pictures.all():
        assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 50
        assert len(picture.get_attribute("alt")) > 10


@pytest.fixture
def clip(tmp_path):
    """Ten seconds of 320 x 240."""
    return write_video(tmp_path / "ten seconds.mp4", draw_square(frames=300, width=320, height=240))


@pytest.mark.parametrize("width", [WIDTHS[0], pytest.param(WIDTHS[1], marks=pytest.mark.slow)])
def test_clips_of_a_wash_are_named_and_missing_actions_shown(width, address, open_page, clip, square_video, tmp_path):
    tab = open_page(address, width)
    expect(tab.get_by_text("not a medical device")).to_be_visible()
    expect(tab.get_by_text("synthetic clips")).to_be_visible()
    expect(tab.get_by_text("nothing is sent anywhere")).to_be_visible()
    hostile = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    hostile.write_bytes(square_video.read_bytes())
    (tmp_path / "text.mp4").write_text("no video")
    hand_in(tab, clip, tmp_path / "text.mp4", hostile)
    tab.get_by_role("heading", name="The wash: 1 of 12 actions done").wait_for()
    assert [text.split(",")[0] for text in tab.locator(".answer").all_inner_texts()] == ["step 2 left"] * 2
    expect(tab.get_by_role("heading", name="ten seconds.mp4")).to_be_visible()
    assert tab.locator(".answers .notice").all_inner_texts() == [
        "Not used: not a video, expected MP4, MOV, WebM, MKV, AVI or MPEG."]
    check_pictures(tab, "img.strip", 2)
    check_pictures(tab, "li.missing img", 11)
    assert tab.locator("li.done").all_inner_texts() == ["✓ step 2 left: done"]
    tab.get_by_label("Clear").or_(tab.get_by_label("Remove")).first.click()
    expect(tab.locator("li.missing")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_a_patient_who_falls_is_an_alert(width, address, open_page, clip):
    tab = open_page(address, width)
    tab.get_by_role("tab", name="Patient monitor").click()
    expect(tab.get_by_label("Capture from camera")).to_be_visible()
    hand_in(tab, clip)
    tab.locator("img.attention").wait_for()
    assert tab.get_by_role("alert").inner_text().startswith("Alert: falling down from 0:00 to 0:10 (confidence ")
    check_pictures(tab, "img.chart, img.attention", 2)
    rows = [row.locator("th, td").all_inner_texts() for row in tab.locator(".answers tr").all()]
    assert rows[0] == ["action", "from", "to", "confidence"] and rows[1][:3] == ["falling down", "0:00", "0:10"]
    assert 0.9 < float(rows[1][3]) <= 1


@pytest.mark.slow
def test_a_study_without_models_says_what_to_run(project, open_page, tmp_path):
    for name in ("params.yaml", "matplotlibrc", "dvc.yaml"):
        (tmp_path / name).write_bytes((project / name).read_bytes())
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "ntu").symlink_to(project / "build" / "ntu")
    page = app.build_app(tmp_path)
    try:
        _, own, _ = page.launch(prevent_thread_lock=True, share=True)  # not even when it is asked for
        tab = open_page(own, 390)
        expect(tab.locator(".answers .notice")).to_contain_text("make repro")
        assert not tab.locator("[role=tabpanel]:visible input[type=file]").count() and page.share_url is None
        tab.get_by_role("tab", name="Patient monitor").click()
        expect(tab.locator("[role=tabpanel]:visible input[type=file]").first).to_be_attached()
    finally:
        page.close()


@pytest.mark.slow
def test_what_keeps_it_from_starting_is_reported_in_one_line(address, project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for folder, words in ((project, "port"), (tmp_path, "no dvc.yaml")):
        monkeypatch.chdir(folder)
        with pytest.raises(typer.Exit) as stopped:
            app.main(port=int(address.rstrip("/").rsplit(":", 1)[1]))
        [line] = capsys.readouterr().err.strip().splitlines()
        assert stopped.value.exit_code == 2 and line.startswith("error: ") and words in line


@pytest.mark.slow
def test_it_ends_and_leaves_nothing(project, square_video, tmp_path):
    with start_page(project, tmp_path) as (process, address):
        uploaded = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.mp4", square_video.read_bytes())})
        assert uploaded.status_code == 200
        assert [path.name.startswith("health-actions-") for path in tmp_path.iterdir()] == [True]
        process.terminate()
        output, _ = process.communicate(timeout=30)
        assert "Traceback" not in output and process.returncode == 0
        assert list_files(tmp_path) == []
        assert not [path for path in list_files(project) if path.endswith((".mp4", ".pyi"))]
