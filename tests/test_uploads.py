"""Files that are damaged or hostile: one clear line for each, nothing left behind, and the page goes on working."""

import functools
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import AsyncMock

import av
import httpx
import numpy as np
import psutil
import pytest
from bs4 import BeautifulSoup
from conftest import HANDWASH_CLASSES, ROOT, draw_square, list_files, write_video
from gradio import processing_utils
from random_models import make_project
from test_app import PATIENT_CLASSES, Stub

from app import page as app
from app.answers import check_wash, watch_patient
from app.uploads import MAX_BYTES, MAX_FILES, Upload, read_upload
from health_actions.data.video import TooLong, sample_frames

pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")
ALERTS = ["falling_down", "staggering"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """The folder for temporary files meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(app, "claim_folder", functools.cache(app.claim_folder.__wrapped__))
        patch.setenv("GRADIO_TEMP_DIR", "none yet")
        yield folder


def make_stub(study: str) -> Stub:
    """In the place of a study's model, as the page uses it: every wash is step_2_left, every patient falls down."""
    stub = Stub("hands", HANDWASH_CLASSES, {"any": [("step_2_left", 0.9)]}) if study == "handwash" else Stub(
        "pose", PATIENT_CLASSES, {"any": [("falling_down", 0.9)]})
    stub.read = read_upload
    return stub


@pytest.fixture(scope="module")
def wash():
    return make_stub("handwash")


@pytest.fixture(scope="module")
def monitor():
    return make_stub("ntu")


def ignore(*_, **__):
    """In the place of Gradio's progress."""


def ask(recogniser, *paths) -> BeautifulSoup:
    """The last answer to a wash."""
    return BeautifulSoup(list(check_wash(recogniser, [str(path) for path in paths], ignore))[-1], "html.parser")


def watch(recogniser, path) -> BeautifulSoup:
    """The last answer to a patient's video."""
    return BeautifulSoup(list(watch_patient(recogniser, ALERTS, str(path), ignore))[-1], "html.parser")


def read_refusal(page: BeautifulSoup, path: Path) -> str:
    """The one line that says why a file is not used."""
    [notice] = [place.get_text() for place in page.select(".notice, td") if place.get_text().startswith("Not used: ")]
    assert "\n" not in notice and len(notice) < 160
    assert "Traceback" not in str(page) and str(path.parent) not in str(page)
    return notice


# ---- names

NAMES = [
    "; rm -rf ~.mp4", "$(touch pwned).mp4", "`touch pwned`.mp4", "| cat.mp4", "a && touch pwned.mp4", "line\nbreak.mp4",
    "tab\t.mp4", "\x1b[31mred.mp4", "bell\x07.mp4", "<img src=x onerror=alert(1)>.mp4", "<svg onload=alert(1)>",
    '"onmouseover="alert(1)" x=".mp4', "'quote'.mp4", "{{7*7}}.mp4", "${alert(1)}.mp4", "%2e%2e%2fetc.mp4", "..mp4",
    "-rf.mp4", "--help", "手を洗う.mp4", "lavé.MP4", "🧼.mp4", "\u202egnp.mp4", "a" * 240 + ".mp4", " .mp4", "CON.mp4",
    "no extension", ".hidden.mp4", "clip.mp4.exe", "&lt;b&gt;.mp4", "a;b,c=d.mp4", "\udcff\udcfe.mp4"]


def test_a_name_is_only_shown(wash, square_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    paths = [shutil.copy(square_video, tmp_path / "in" / name) for name in NAMES]
    half = len(paths) // 2
    pages = [ask(wash, *paths[:half]), ask(wash, *paths[half:])]
    shown = [title.get_text() for page in pages for title in page.select("tbody td:first-child, section h2")]
    assert sorted(shown) == sorted(2 * [Upload(Path(path)).name for path in paths])
    assert all(name.isprintable() and len(name) <= 60 for name in shown) and NAMES[0] in shown
    assert sum(len(page.select("td strong")) for page in pages) == len(NAMES)  # recognised under every name
    elements = [element for page in pages for element in page.find_all(True)]
    assert {element.name for element in elements} <= {"section", "h2", "p", "strong", "div", "img", "ul", "li", "span",
                                                      "table", "thead", "tbody", "tr", "th", "td"}
    assert not [element for element in elements if [key for key in element.attrs if key.startswith("on")]]
    assert {element["src"][:11] for element in elements if "src" in element.attrs} == {"data:image/"}
    assert list_files(tmp_path) == sorted(f"in/{name}" for name in NAMES)


# ---- contents

BOX = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
NOISE = np.random.default_rng(1).bytes(20000)
KIND = "not a video, expected MP4"
HEADER = "not a video, or its header is missing|no pictures|no frames|damaged|too short|codec"
CONTENTS = {  # what is written, and how it is refused; damaged videos: see the tests of `video` and `sandbox`
    "empty.mp4": (b"", "empty file"),
    "text.mp4": (b"I am a video. Really.\n" * 50, KIND),
    "pickle.mp4": (b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.", KIND),
    "sound.avi": (b"RIFF\xff\xff\0\0WAVEfmt " + bytes(300), KIND),
    "list of files.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n", KIND),
    "list of addresses.mp4": (b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", KIND),
    "chain.mp4": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", KIND),
    "stream.mp4": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", KIND),
    "manifest.mp4": (b'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"></MPD>', KIND),
    "header and noise.mp4": (BOX + NOISE, HEADER),
    "header.avi": (b"RIFF\xff\xff\0\0AVI " + NOISE, HEADER),
    "header.ts": ((b"G" + NOISE[:187]) * 100, HEADER),
    "huge pictures.mp4": (lambda path: write_video(path, draw_square(frames=1, width=4096, height=2160)),
                          "too large: 4096 x 2160"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_an_unusable_file_is_refused_in_one_line(name, wash, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = CONTENTS[name]
    path = tmp_path / name
    content(path) if callable(content) else path.write_bytes(content)
    page = ask(wash, path)
    refusal = read_refusal(page, path)
    assert any(word in refusal for word in words.split("|")), refusal
    assert len(page.select("li.missing")) == 12  # nothing was seen in it
    assert list_files(tmp_path) == [name]


@pytest.mark.parametrize(("name", "codec", "form"), [
    ("phone.MOV", "libx265", "mov"), ("web.webm", "libvpx", "webm"), ("film.mkv", "libx265", "matroska"),
    ("old.avi", "mpeg4", "avi"), ("older.mpg", "mpeg1video", "mpeg"), ("bare.hevc", "libx265", "hevc"),
    ("television.ts", "mpeg2video", "mpegts")])
def test_videos_of_all_kinds_are_used(name, codec, form, wash, monitor, tmp_path):
    path = tmp_path / name
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in draw_square(frames=60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    assert ask(wash, path).select("td strong") and watch(monitor, path).select(".alarm")


def test_what_is_not_a_file_is_refused_in_one_line(wash, monitor, tmp_path):
    os.mkfifo(tmp_path / "endless.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "linked.mp4").symlink_to("/etc/passwd")
    (tmp_path / "nowhere.mp4").symlink_to(tmp_path / "nothing")
    for name in ("endless.mp4", "folder.mp4", "linked.mp4", "nowhere.mp4", "../up.mp4", "a" * 300, "with\0zero.mp4"):
        words = KIND if name == "linked.mp4" else "no such file"
        for page in (ask(wash, tmp_path / name), watch(monitor, tmp_path / name)):
            assert words in read_refusal(page, tmp_path / name), name
    assert "no such file" in read_refusal(watch(monitor, "/dev/zero"), Path("/dev/nothing"))


def test_a_file_that_is_too_large_is_not_read_and_good_ones_beside_it_are_used(wash, square_video, tmp_path):
    path = tmp_path / "large.mp4"
    path.write_bytes(BOX)
    os.truncate(path, MAX_BYTES + 1)  # takes no room on the disk
    page = ask(wash, square_video, path, square_video)
    assert "too large: 500 MB, the limit is 500 MB" in read_refusal(page, path)
    assert [bool(row.select("strong")) for row in page.select("tbody tr")] == [True, False, True]
    assert [entry.get_text() for entry in page.select("li.done")] == ["✓ step 2 left: done, 3\xa0s"]


def test_too_many_files_are_refused_together(wash, square_video):
    page = ask(wash, *[square_video] * (MAX_FILES + 1))
    assert page.get_text().strip() == "25 files are too many: the limit is 24."
    assert len(ask(wash, *["nothing"] * MAX_FILES).select("tbody tr")) == MAX_FILES


def test_an_upload_gives_the_frames_of_the_video_and_its_length(square_video):
    options = {"every": 1 / 30, "longest": 30, "height": 48}
    upload = Upload(square_video)
    np.testing.assert_array_equal(list(read_upload(upload, **options)), list(sample_frames(square_video, **options)))
    assert upload.seconds == pytest.approx(40 / 30)
    with pytest.raises(TooLong, match="too long"):
        list(read_upload(upload, **options | {"longest": 1}))


# ---- over HTTP

@pytest.fixture(scope="module")
def server(project, place):
    """The app on a free port, with files of 1 MB at most; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "MAX_BYTES", 1_000_000)
        patch.setattr(app, "load_recogniser", lambda _, study: make_stub(study))
        page = app.build_app(project)
        _, address, _ = page.launch(prevent_thread_lock=True)
    yield address.rstrip("/")
    page.close()


def upload(server: str, name: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{server}/gradio_api/upload", files={"files": (name, content)}, timeout=60)


def call(server: str, study: str, value) -> tuple[str, object]:
    """What an event of the page ends with: its kind, and the answer."""
    started = httpx.post(f"{server}/gradio_api/call/{study}", json={"data": [value]}, timeout=60)
    if started.status_code != 200:
        return "error", started.text
    stream = httpx.get(f"{server}/gradio_api/call/{study}/{started.json()['event_id']}", timeout=120).text
    kind, data = stream.strip().split("\n\n")[-1].split("\n", 1)
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def describe(path: str) -> dict:
    """A file as Gradio's page names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def use(server: str, name: str, content: bytes) -> BeautifulSoup:
    """Upload a clip of a wash and get the page."""
    [path] = upload(server, name, content).json()
    kind, answer = call(server, "handwash", [describe(path)])
    assert kind == "complete", answer
    return BeautifulSoup(answer[0], "html.parser")


@pytest.mark.parametrize("name", [
    "../../../../tmp/pwned.mp4", "..\\..\\pwned.mp4", "/etc/cron.d/pwned.mp4", "....//....//pwned.mp4", "..", ".",
    "%00.mp4", "a%2f..%2fpwned.mp4", "pwned.mp4\r\nX-Header: 1", "$(touch pwned).mp4", "<b>bold.mp4",
    "a" * 3000 + ".mp4", "手.mp4", "\x01\x02.mp4"])
def test_uploads_stay_in_the_one_folder(name, server, square_video, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answered = upload(server, name, square_video.read_bytes())
    if answered.status_code == 200:
        path = Path(answered.json()[0]).resolve()
        assert path.is_relative_to(Path(app.claim_folder().name).resolve()) and path.is_file()
        kind, page = call(server, "handwash", [describe(str(path))])
        assert kind == "complete" and "<strong>step 2 left</strong>" in page[0] and "<b>" not in page[0]
    else:
        assert answered.status_code in (400, 413) and "Traceback" not in answered.text
    assert [entry.name for entry in place.iterdir()] == [Path(app.claim_folder().name).name]
    assert not list_files(tmp_path) and not Path("/tmp/pwned.mp4").exists()


def test_a_file_over_the_limit_is_refused_while_it_comes(server, place):
    before = list_files(place)
    answered = upload(server, "large.mp4", BOX + bytes(1_000_001))
    assert answered.status_code == 413 and "maximum allowed size" in answered.text
    assert list_files(place) == before


@pytest.mark.parametrize("value", [
    [describe("/etc/passwd")], [describe(str(ROOT / "README.md"))], [describe("../../etc/passwd")], [describe("")],
    "text", 7, [7], [None], {"a": 1}, [{"path": ["x"], "meta": {"_type": "gradio.FileData"}}]])
def test_only_what_was_uploaded_can_be_asked_about(value, server, square_video):
    kind, answer = call(server, "handwash", value)
    assert kind == "error" and "Traceback" not in str(answer)
    assert "root:" not in str(answer) and use(server, "good.mp4", square_video.read_bytes()).select("td strong")


def test_no_address_in_the_web_is_fetched_and_a_browser_is_told_to_ask_none(server, monkeypatch):
    fetch = AsyncMock(side_effect=OSError)
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    for address in ("http://192.0.2.1/a.mp4", "https://example.invalid/a.mp4", "HTTPS://example.invalid/a.mp4"):
        for study, value in (("handwash", [describe(address)]), ("ntu", describe(address))):
            assert call(server, study, value)[0] == "error"
    assert not fetch.called
    policy = httpx.get(server).headers["content-security-policy"]
    assert policy.startswith("default-src 'self' data:") and "http" not in policy and "*" not in policy
    assert server.startswith("http://127.0.0.1:")


def test_what_the_page_does_not_need_and_other_files_are_not_served(server, square_video, place):
    before = list_files(place)
    for path in ("process_recording", "proxy=http://192.0.2.1/", "vibe-code", "vibe-edit", "dev/reload"):
        assert httpx.get(f"{server}/gradio_api/{path}").status_code == 404
        with square_video.open("rb") as file:
            assert httpx.post(f"{server}/gradio_api/{path}", files={"video": file}).text == "not here"
    assert httpx.get(f"{server}/monitoring").status_code == 404 and list_files(place) == before
    for path in ("/etc/passwd", str(ROOT / "README.md"), "../../../etc/passwd"):
        assert httpx.get(f"{server}/gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.slow
def test_many_at_once_are_served_and_memory_stays(server, square_video, project):
    good, before, memory = square_video.read_bytes(), list_files(project), []
    others = set(psutil.Process().children())  # earlier tests may have left workers, waiting
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            pages = pool.map(functools.partial(use, server, "wash.mp4"), [BOX + NOISE, good, good] * 2)
        assert [bool(page.select("td strong")) for page in pages] == [False, True, True] * 2
        memory.append(psutil.Process().memory_info().rss)
    assert max(memory) - memory[0] < 60e6
    assert set(psutil.Process().children()) <= others and list_files(project) == before
