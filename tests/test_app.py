"""The page: its answers, and what a browser shows at two widths: no request to others, nothing left at its end."""

import base64
import contextlib
import io
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import gradio
import httpx
import numpy as np
import pytest
import typer
from bs4 import BeautifulSoup
from conftest import HANDWASH_CLASSES, ROOT, SHARED, draw_square, list_files, write_video
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from random_models import make_project, save_random_model

from app import page as app
from app.answers import check_wash, watch_patient
from app.charts import plot_timeline
from app.uploads import Upload, check_upload, read_upload
from benchmarks.page_pictures import take_pictures
from health_actions.analysis.recognition import UNSEEN, Answer
from health_actions.analysis.studies import load_recogniser
from health_actions.analysis.timeline import build_timeline, find_events
from health_actions.data.video import TooLong
from health_actions.figures.pictures import BODY_BONES, COLOURS, HAND_BONES, draw_landmarks
from health_actions.models.landmarks import HandTracker, PoseTracker

pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")
WIDTHS = [1280, 390]
SECONDS = 60  # that a slow machine may take for an answer
# Gradio cancels a job before it has a number, where files change within a moment of the click; the job goes on.
TOO_EARLY = "/gradio_api/cancel", "/gradio_api/reset"
ALERTS = ["falling_down", "staggering"]
PATIENT_CLASSES = ["sneeze_cough", "staggering", "falling_down", "everyday"]
BLUE, ORANGE = COLOURS


def find(kind: str, seen=True) -> dict[str, np.ndarray]:
    """Landmarks as a tracker gives them: a left hand in the left half of a frame, or a body; or nothing."""
    shapes = {"hands": HandTracker, "pose": PoseTracker}[kind].SHAPES
    found = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
    if seen:
        place = np.linspace(0.1, 0.4, found["image"].shape[-2])
        slot = 0 if kind == "hands" else ...
        found["image"][slot] = np.stack([place, 2 * place, 0 * place], axis=1)
        found["presence"][slot] = 1
        if kind == "pose":
            found["visibility"][:] = 1
    return found


class Stub:
    """In the place of a `LandmarkRecogniser`: its answers to a file are (action, probability) by the file's name.

    One is the answer to a clip; more are the windows of a long video. Files of other names are as "any".
    """

    def __init__(self, kind: str, classes: list[str], script: dict[str, list]):
        self.kind, self.classes, self.script = kind, classes, script

    def read(self, upload, **_):
        check_upload(upload.path)
        upload.seconds = 60.0
        yield from np.full((25, 48, 64, 3), 90, np.uint8)

    def recognise(self, upload) -> Answer:
        frames, windows = np.stack(list(self.read(upload, height=240, every=0.1, longest=30.0))), self.find(upload)
        if len(windows) > 1:
            raise TooLong("too long: more than 30 seconds")
        return self.answer(frames, 0.0, len(frames) / 10, *windows[0])

    def watch(self, upload):
        frames = np.stack(list(itertools.islice(self.read(upload, height=240, every=0.1, longest=14400.0), 20)))
        for number, window in enumerate(self.find(upload)):
            yield self.answer(frames + np.uint8(number), number / 2, number / 2 + 2, *window)

    def find(self, upload) -> list:
        return self.script.get(upload.path.stem, self.script["any"])

    def answer(self, frames, start, end, action, probability=0.0) -> Answer:
        probabilities = np.full(len(self.classes), (1 - probability) / (len(self.classes) - 1))
        if action in self.classes:
            probabilities[self.classes.index(action)] = probability
        found = [find(self.kind, action in self.classes)] * len(frames)
        return Answer(start, end, frames, probabilities, np.zeros(0), action, found)


WASHES = {"any": [("step_2_left", 0.93)], "dark": [(UNSEEN["hands"],)], "dark film": [(UNSEEN["hands"],)] * 4,
          "film": [("step_1", 0.8)] * 5 + [("step_3", 0.6)] * 2 + [(UNSEEN["hands"],)] * 4 + [("step_2_left", 0.7)] * 3}
WARDS = {"any": [("everyday", 0.6)] * 4 + [("falling_down", 0.8), ("falling_down", 0.9)] + [("everyday", 0.7)] * 6,
         "calm": [("everyday", 0.6), ("everyday", 0.8), (UNSEEN["pose"],), (UNSEEN["pose"],), ("sneeze_cough", 0.5)],
         "empty": [(UNSEEN["pose"],)] * 12,
         "bad day": [window for probability in (0.5, 0.9, 0.8, 0.7, 0.6)
                     for window in [("staggering", probability)] + [("everyday", 0.95)] * 5]}


@pytest.fixture
def wash():
    return Stub("hands", HANDWASH_CLASSES, WASHES)


@pytest.fixture
def monitor():
    return Stub("pose", PATIENT_CLASSES, WARDS)


def ask(recogniser, folder, *names) -> list[BeautifulSoup]:
    """All answers to files of these names: of a wash, or of a patient."""
    paths = [folder / f"{name}.mp4" for name in names]
    for path in paths:
        path.write_bytes(b"....ftyp" if path.stem != "text" else b"no video")
    if recogniser.kind == "hands":
        pages = check_wash(recogniser, list(map(str, paths)), lambda *_, **__: None)
    else:
        pages = watch_patient(recogniser, ALERTS, str(paths[0]), lambda *_, **__: None)
    return [BeautifulSoup(page, "html.parser") for page in pages]


def read_table(page: BeautifulSoup, selector="table") -> list[list[str]]:
    """The texts of a table's cells."""
    return [[cell.get_text() for cell in row.select("th, td")] for row in page.select(f"{selector} tr")]


def read_picture(picture) -> np.ndarray:
    """The pixels of a picture that is in the page itself."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(picture["src"].split(",")[1]))))


def count_pixels(picture: np.ndarray, colour) -> int:
    """Pixels of about a colour."""
    return int((abs(picture.astype(int) - colour).max(axis=-1) < 30).sum())


# ---- answers

def test_the_table_of_a_wash_grows_with_each_file(wash, tmp_path):
    pages = ask(wash, tmp_path, "first", "text", "dark", "last")
    rows = [["file", "action", "probability"], ["first.mp4", "step 2 left", "0.93"],
            ["text.mp4", "Not used: not a video, expected MP4, MOV, WebM, MKV, AVI or MPEG.", ""],
            ["dark.mp4", "No hand is seen in it.", ""], ["last.mp4", "step 2 left", "0.93"]]
    assert [read_table(page) for page in pages] == [rows[:2], rows[:3], rows[:4], rows, rows]
    assert [heading.get_text() for heading in pages[-1].select("section h2")] == ["first.mp4", "dark.mp4", "last.mp4"]
    assert not pages[-2].select("li") and len(pages[-1].select("li.missing img")) == 11
    assert [entry.get_text() for entry in pages[-1].select("li.done")] == ["✓ step 2 left: done, 5\xa0s"]  # 2 x 2.5
    first, dark, _ = map(read_picture, pages[-1].select("img.strip"))
    assert first.shape == (160, 8 * 213, 3) and count_pixels(first[:, -213:], BLUE) > 50
    assert not count_pixels(first, ORANGE) and not count_pixels(dark, BLUE)


def test_a_long_wash_has_a_timeline_and_seconds(wash, tmp_path):
    pages = ask(wash, tmp_path, "film", "dark film")
    assert read_table(pages[0])[1] == ["film.mp4", "Longer than 30 seconds: watched up to 0:06 of 1:00.", ""]
    rows = [["film.mp4", "Actions: 2, see below.", ""], ["dark film.mp4", "No hand is seen in it.", ""]]
    assert read_table(pages[-1], ".files")[1:] == rows
    events = read_table(pages[-1], ".long")[1:]  # two windows of step_3 are too few
    assert events == [["step 1", "0:00", "0:03", "0.80"], ["step 2 left", "0:06", "0:08", "0.70"]]
    assert [entry.get_text() for entry in pages[-1].select("li.done")] == [
        "✓ step 1: done, 3\xa0s", "✓ step 2 left: done, 2\xa0s"]
    assert len(pages[-1].select("img.chart")) == 1 and len(pages[-1].select("section .notice")) == 1


def test_seconds_of_clips_and_long_washes_are_added_up(wash, tmp_path):
    wash.script = WASHES | {"any": [("step_1", 0.9)]}
    [entry] = ask(wash, tmp_path, "clip", "film", "other clip")[-1].select("li.done")[:1]
    assert entry.get_text() == "✓ step 1: done, 8\xa0s"  # 2.5 + 3.25 + 2.5


def test_a_fall_is_an_alert_while_it_is_watched_and_everyday_is_none(monitor, tmp_path):
    pages = ask(monitor, tmp_path, "ward")
    assert len(pages) == 2 and "Watched up to 0:06 of 1:00." in pages[0].get_text()
    for page in pages:
        [alarm] = page.select(".alarm")
        assert alarm.get_text() == "Alert: falling down from 0:02 to 0:04 (confidence 0.90)"
    assert read_table(pages[-1])[1:] == [["everyday", "0:00", "0:03", "0.60"], ["falling down", "0:03", "0:04", "0.85"],
                                         ["everyday", "0:04", "0:08", "0.70"]]
    assert [row.td.get_text() for row in pages[-1].select("tr.alert")] == ["falling down"]
    [moment] = pages[-1].select(".moments li")
    assert moment.get_text() == "falling down at 0:04"  # the middle of the second window
    picture = read_picture(moment.img)
    assert picture.shape == (480, 640, 3) and count_pixels(picture, ORANGE) > 300


def test_without_an_alert_the_surest_action_is_shown(monitor, tmp_path):
    [page] = ask(monitor, tmp_path, "calm")
    assert "No alert: no falling down and no staggering" in page.select_one(".calm").get_text()
    assert not page.select(".alarm, tr.alert")
    assert [row[0] for row in read_table(page)[1:]] == ["everyday", "sneeze cough"]
    assert [moment.get_text() for moment in page.select(".moments li")] == ["everyday at 0:02"]


def test_of_many_alerts_three_are_shown(monitor, tmp_path):
    page = ask(monitor, tmp_path, "bad day")[-1]
    assert [moment.get_text() for moment in page.select(".moments li")] == [
        "staggering at 0:04", "staggering at 0:07", "staggering at 0:10"]
    assert page.select_one(".alarm").get_text().count("confidence") == 5


def test_nobody_in_a_video_is_said(monitor, tmp_path):
    page = ask(monitor, tmp_path, "empty")[-1]
    assert page.get_text(" ", strip=True) == "empty.mp4 Nobody is seen in it." and not page.select("img, table, .calm")


@pytest.mark.parametrize("recogniser", ["wash", "monitor"])
def test_without_a_file_it_asks_for_one(recogniser, request):
    recogniser = request.getfixturevalue(recogniser)
    look = check_wash if recogniser.kind == "hands" else lambda *given: watch_patient(given[0], ALERTS, *given[1:])
    [page] = look(recogniser, None, None)
    assert BeautifulSoup(page, "html.parser").get_text().strip() == "Choose a video first."


def test_a_timeline_is_grey_where_nobody_is_seen_and_everyday_is_its_last_row(monitor, tmp_path):
    (tmp_path / "calm.mp4").write_bytes(b"....ftyp")
    timeline = build_timeline(monitor.watch(Upload(tmp_path / "calm.mp4")), PATIENT_CLASSES)
    events = find_events(timeline, PATIENT_CLASSES)
    assert events["action"].tolist() == ["everyday", "sneeze_cough"]
    axis = plot_timeline(timeline, events, PATIENT_CLASSES, ALERTS).axes[0]
    labels = axis.get_yticklabels()
    assert labels[-1].get_text() == "everyday" and labels[-1].get_position()[1] == 3
    assert [label.get_color() == "C1" for label in labels] == [False, True, True, False]
    hidden = np.ma.getmaskarray(axis.collections[0].get_array())
    assert hidden.all(axis=0).tolist() == hidden.any(axis=0).tolist() == [False, False, True, True, False]


# ---- drawing

def test_missing_landmarks_draw_nothing():
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    body = find("pose")
    body["visibility"][:] = 0.49
    for found in (find("hands", seen=False), find("pose", seen=False), body):
        assert (draw_landmarks(frame, found) == frame).all()


def test_hands_and_bodies_are_drawn_where_they_are():
    frame, found = np.zeros((240, 320, 3), np.uint8), find("hands")
    found["image"][1] = found["image"][0] + [0.5, 0, 0]
    drawn = draw_landmarks(frame, found)
    assert not frame.any()
    for hand, colour in enumerate(COLOURS):
        for point in found["image"][hand]:
            column, row = (point[:2] * [320, 240]).round().astype(int)
            assert abs(drawn[row, column].astype(int) - colour).max() < 10
    found["image"][0, 20] = np.nan  # the last point of the left hand is skipped
    fewer = draw_landmarks(frame, found)
    assert count_pixels(fewer, ORANGE) == count_pixels(drawn, ORANGE)
    assert 0 < count_pixels(fewer, BLUE) < count_pixels(drawn, BLUE)
    large = draw_landmarks(np.zeros((960, 1280, 3), np.uint8), find("pose"))
    assert count_pixels(large, ORANGE) > 6 * count_pixels(draw_landmarks(frame, find("pose")), ORANGE)  # wider lines


@pytest.mark.parametrize(("bones", "points", "count"), [(HAND_BONES, 21, 21), (BODY_BONES, 33, 35)])
def test_bones_join_each_landmark_once(bones, points, count):
    assert {point for bone in bones for point in bone} == set(range(points))
    assert len({frozenset(bone) for bone in bones}) == len(bones) == count


# ---- with real clips

@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a landmark stream of each study, of random weights."""
    root = make_project(tmp_path_factory.mktemp("project"))
    for study, kind, classes in (("handwash", "hands", HANDWASH_CLASSES), ("ntu", "pose", PATIENT_CLASSES)):
        save_random_model(root / "build" / study / "models" / "landmarks" / "fold_1", "landmarks", study,
                          classes=classes, kind=kind)
    return root


@pytest.mark.parametrize(("study", "clip"), [("handwash", "handwash/Step_5_Left/HandWash_005_A_07_G_01.mp4"),
                                             ("ntu", "falls/fall/subject_1_14.mp4")])
def test_real_hands_and_people_are_drawn(study, clip, project, monkeypatch):
    path = SHARED / "clips" / clip
    if not path.is_file():
        pytest.skip(f"no real clips beside this checkout (../shared/clips/{clip})")
    monkeypatch.chdir(ROOT)
    recogniser = load_recogniser(project, study)
    recogniser.read = read_upload
    given = ([str(path)],) if study == "handwash" else (ALERTS, str(path))
    look = check_wash if study == "handwash" else watch_patient
    page = BeautifulSoup([*look(recogniser, *given, lambda *_, **__: None)][-1], "html.parser")
    picture = read_picture(page.select_one("img.strip, .moments img"))
    assert max(count_pixels(picture, one) for one in COLOURS) > 100
    assert read_table(page)[1][0] == path.name if study == "handwash" else page.select("img.chart")


# ---- in a browser

@contextlib.contextmanager
def start_page(project, place):
    """The page as `make app` starts it, with a folder for temporary files: its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"TMPDIR": str(place)}
    env.pop("ORT_DISABLE_TELEMETRY", None)  # the page sets it; else ONNX Runtime leaves a file in TMPDIR
    process = subprocess.Popen([sys.executable, "-m", "app", "--port", str(port)], cwd=project, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}/" in line, line
        yield process, f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(project):
    """Of a page that is open during all tests; its models are stubs, its videos are read in the sandbox."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "load_recogniser", lambda _, study: Stub("hands", HANDWASH_CLASSES, WASHES)
                      if study == "handwash" else Stub("pose", PATIENT_CLASSES, WARDS))
        page = app.build_app(project)
    _, address, _ = page.launch(prevent_thread_lock=True)
    yield address
    page.close()


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
        tab.on("console", lambda said: problems.append(said.text) if said.type == "error" and not (
            "422" in said.text and said.location["url"].endswith(TOO_EARLY)) else None)
        tab.on("response", lambda answer: problems.append(answer.url) if answer.status == 422
               and '"event_id":"' in (answer.request.post_data or "") else None)
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


def hand_in(tab, task: str, *paths) -> None:
    """Choose files on the tab that is open, and press its button when they are there."""
    tab.locator("[role=tabpanel]:visible input[type=file]").last.set_input_files(paths)
    expect(tab.locator("[role=tabpanel]:visible :is(.file, video)")).to_have_count(len(paths))
    tab.get_by_role("button", name=task).click()


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
    hand_in(tab, "Check the wash", clip, tmp_path / "text.mp4", hostile)
    tab.get_by_role("heading", name="The wash: 1 of 12 actions done").wait_for()
    rows = [row.locator("td").all_inner_texts() for row in tab.locator(".files tbody tr").all()]
    assert [row[1:] for row in rows] == [
        ["step 2 left", "0.93"], ["Not used: not a video, expected MP4, MOV, WebM, MKV, AVI or MPEG.", ""],
        ["step 2 left", "0.93"]]
    expect(tab.get_by_role("heading", name="ten seconds.mp4")).to_be_visible()
    check_pictures(tab, "img.strip", 2)
    check_pictures(tab, "li.missing img", 11)
    assert tab.locator("li.done").all_inner_texts() == ["✓ step 2 left: done, 11\xa0s"]
    tab.get_by_label("Remove this file").nth(1).click()  # what was said about other files goes
    expect(tab.locator("table.files, li.missing")).to_have_count(0)
    tab.locator("[role=tabpanel]:visible input[type=file]").last.set_input_files(square_video)  # one more
    expect(tab.locator("[role=tabpanel]:visible .file")).to_have_count(3)
    tab.get_by_role("button", name="Check the wash").click()
    tab.get_by_role("heading", name="The wash: 1 of 12 actions done").wait_for()
    assert tab.locator(".files tbody tr").count() == 3


def test_the_pictures_of_the_page_show_an_upload_and_an_answer(address, open_page, clip, square_video, tmp_path):
    tab = open_page(address, 900)
    take_pictures(tab, [clip, square_video], tmp_path)
    assert tab.locator(".files tbody tr").count() == 2
    sizes = {path.name: Image.open(path).size for path in tmp_path.glob("figure_*.png")}
    assert set(sizes) == {"figure_10_upload.png", "figure_11_answer.png"}
    assert sizes["figure_10_upload.png"] == (900, 900) and sizes["figure_11_answer.png"][1] > 400


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_a_patient_who_falls_is_an_alert(width, address, open_page, clip):
    tab = open_page(address, width)
    tab.get_by_role("tab", name="Patient monitor").click()
    expect(tab.get_by_label("Capture from camera")).to_be_visible()
    hand_in(tab, "Watch the video", clip)
    tab.get_by_role("heading", name="What the model sees").wait_for()
    assert tab.get_by_role("alert").inner_text() == "Alert: falling down from 0:02 to 0:04 (confidence 0.90)"
    check_pictures(tab, "img.chart, .moments img", 2)
    rows = [row.locator("th, td").all_inner_texts() for row in tab.locator(".answers tr").all()]
    assert rows[0] == ["action", "from", "to", "confidence"] and [row[0] for row in rows[1:]] == [
        "everyday", "falling down", "everyday"]


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


# ---- how it starts and ends

@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), ("192.0.2.1", True), ("127.0.0.1", False),
                                             ("localhost", False)])
def test_a_page_for_others_warns(host, warns, project, monkeypatch, capsys):
    served = {}
    monkeypatch.chdir(project)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(app.LocalBlocks, "host", "127.0.0.1")  # put back at the end
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: served.update(page=page, **options))
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda _: None)
    app.main(port=7860, host=host)
    text = " ".join(str(part["props"].get("value")) for part in served["page"].get_config_file()["components"])
    said = capsys.readouterr().err
    for words in ("Anybody in the network can upload videos to this machine", "no password and no encryption"):
        assert (words in text) == (words in said) == warns
    assert served["server_name"] == host and ("Your videos stay on this machine" in text) != warns


def test_a_notebook_opens_the_page_to_this_machine_alone(project, monkeypatch):
    served = {}
    monkeypatch.setattr(gradio.Blocks, "launch", lambda _, **options: served.update(options))
    app.build_app(project).launch(server_name="0.0.0.0", share=True)
    assert served["server_name"] == "127.0.0.1" and not served["share"]


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
