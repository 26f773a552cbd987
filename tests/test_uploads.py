"""Files that went wrong or mean ill: one clear line for each, nothing left behind, and the app goes on."""

import functools
import json
import os
import shutil
import tempfile
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import HANDWASH_CLASSES, ROOT, draw_square, list_files, write_video
from gradio import processing_utils
from PIL import Image
from test_recognition import make_card

from app import page as app
from app.answers import check_wash, watch_patient
from health_actions.analysis import recognition
from health_actions.analysis.recognition import NONE, Familiarity, Recogniser
from health_actions.analysis.studies import load_recogniser
from health_actions.data import sandbox as uploads
from health_actions.data.extraction import extract_archives
from health_actions.data.sandbox import Upload, sample_apart
from health_actions.data.video import UnreadableVideo, sample_frames
from health_actions.models import build_model
from health_actions.models.folder import save_model

pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")
NTU_CLASSES = ["sneeze_cough", "staggering", "falling_down"]
ALERTS = ["falling_down", "staggering"]


def make_project(root: Path, data_folder: Path, frames_folder: Path) -> Path:
    """A project with a tiny model of each study: every wash is step_2_left, every patient falls down."""
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copy(ROOT / "matplotlibrc", root)
    (root / "dvc.yaml").touch()
    tables = {"handwash": ("table_1.csv", {"architecture": ["cnn_lstm_custom"], "validation": [0.5]}),
              "ntu": ("figure_16.csv", {"model": ["squeezenet"], "start": ["scratch"], "validation": [0.5]})}
    models = {"handwash": ("cnn_lstm_custom", HANDWASH_CLASSES, "step_2_left", {"stride": None, "lstm_width": 16}),
              "ntu": ("squeezenet/scratch", NTU_CLASSES, "falling_down", {"stride": 2})}
    torch.manual_seed(0)
    for study, (folder, classes, said, options) in models.items():
        card = make_card(folder.split("/")[0], **options) | {"classes": classes}
        card["architecture"]["num_classes"] = len(classes)
        model = build_model(**card["architecture"])
        bias = [weights for name, weights in model.named_parameters() if name.endswith("bias")][-1]
        bias.data[classes.index(said)] += 8
        build = root / "build" / study
        save_model(build / "models" / folder / "fold_1", model, card)
        (build / "evaluation").mkdir()
        pd.DataFrame(tables[study][1]).to_csv(build / "evaluation" / tables[study][0], index=False)
    shutil.copytree(frames_folder, root / "build" / "handwash" / "frames")
    extract_archives(data_folder, root / "build" / "ntu" / "frames", ["step_1", "step_2_left", "step_2_right"],
                     height=48, quality=90, processes=1)
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory, data_folder, frames_folder) -> Path:
    return make_project(tmp_path_factory.mktemp("project"), data_folder, frames_folder)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Where temporary files are put meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(app, "claim_folder", functools.cache(app.claim_folder.__wrapped__))
        patch.setenv("GRADIO_TEMP_DIR", "none yet")
        yield folder


def load(project: Path, study: str) -> Recogniser:
    """A study's model, as the app uses it."""
    recogniser = load_recogniser(project, study)
    recogniser.read = sample_apart
    return recogniser


@pytest.fixture(scope="module")
def wash(project):
    return load(project, "handwash")


@pytest.fixture(scope="module")
def monitor(project):
    return load(project, "ntu")


def ignore(*_, **__):
    """In the place of Gradio's progress."""


def ask(recogniser, *paths) -> BeautifulSoup:
    """The last page of a wash."""
    return BeautifulSoup(list(check_wash(recogniser, [str(path) for path in paths], ignore))[-1], "html.parser")


def watch(recogniser, path) -> BeautifulSoup:
    """The last page of a patient's video."""
    return BeautifulSoup(list(watch_patient(recogniser, ALERTS, str(path), ignore))[-1], "html.parser")


def read_refusal(page: BeautifulSoup, path: Path) -> str:
    """The one line that says why a file is not used."""
    [notice] = [notice.get_text() for notice in page.select(".notice")]
    assert notice.startswith("Not used: ") and "\n" not in notice and len(notice) < 160
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
    shown = [title.get_text() for page in pages for title in page.select("section h2")]
    assert shown == [Upload(Path(path)).name for path in paths]
    assert all(name.isprintable() and len(name) <= 60 for name in shown) and shown[0] == NAMES[0]
    assert sum(len(page.select(".answer")) for page in pages) == len(NAMES)  # the clip was recognised under every name
    elements = [element for page in pages for element in page.find_all(True)]
    assert {element.name for element in elements} <= {"section", "h2", "p", "strong", "div", "img", "ul", "li", "span"}
    assert not [element for element in elements if [key for key in element.attrs if key.startswith("on")]]
    assert {element["src"][:11] for element in elements if "src" in element.attrs} == {"data:image/"}
    assert list_files(tmp_path) == sorted(f"in/{name}" for name in NAMES)


# ---- contents

def write_mp4(path: Path, *, size=(96, 64), frames=40, rate=30, codec="libx264", form="mp4") -> Path:
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        picture = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, number, 1), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_wave(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))


def write_picture(path: Path, form: str) -> None:
    Image.new("RGB", (640, 480), "red").save(path, form)


def make_noise(count=20000) -> bytes:
    return np.random.default_rng(1).bytes(count)


BOX = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
MOVING = draw_square(frames=60)


def cut(path: Path, share: float, form="mp4") -> None:
    write_mp4(path, form=form, frames=90)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])


def break_end(path: Path) -> None:
    write_video(path, MOVING, movflags="faststart")
    content = bytearray(path.read_bytes())
    content[len(content) // 3:] = make_noise(len(content) - len(content) // 3)
    path.write_bytes(content)


KIND = "not a video that can be read"
CONTENTS = {  # what is written, and how it is refused
    "empty.mp4": (b"", "empty file"),
    "one byte.mp4": (b"\0", KIND),
    "text.mp4": (b"I am a video. Really.\n" * 50, KIND),
    "json.mov": (b'{"path": "/etc/passwd"}', KIND),
    "page.mp4": (b"<html><script>alert(1)</script></html>", KIND),
    "script.mp4": (b"#!/bin/sh\ntouch pwned\n", KIND),
    "code.mp4": (b"import os; os.system('touch pwned')", KIND),
    "pickle.mp4": (b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.", KIND),
    "paper.mp4": (b"%PDF-1.7\n%\xe2\xe3\n", KIND),
    "archive.mp4": (b"PK\3\4" + bytes(100), KIND),
    "program.mp4": (b"\x7fELF" + bytes(300), KIND),
    "photo.mp4": (functools.partial(write_picture, form="JPEG"), KIND),
    "drawing.mp4": (functools.partial(write_picture, form="PNG"), KIND),
    "moving.mp4": (functools.partial(write_picture, form="GIF"), KIND),
    "sound.avi": (write_wave, KIND),
    "song.mp4": (b"ID3\4\0\0" + bytes(2000), KIND),
    "sound.mp4": (write_sound, "no pictures"),
    "list of files.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n", KIND),
    "list of addresses.mp4": (b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", KIND),
    "chain.mp4": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", KIND),
    "stream.mp4": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", KIND),
    "manifest.mp4": (b'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"></MPD>', KIND),
    "noise.mp4": (make_noise(), KIND),
    "zeros.mp4": (bytes(20000), KIND),
    "only a header.mp4": (BOX, "not a video, or its header is missing"),
    "header and zeros.mp4": (BOX + bytes(20000), "not a video, or its header is missing"),
    "header and noise.mp4": (BOX + make_noise(), "not a video, or its header is missing|no pictures"),
    "header.webm": (b"\x1aE\xdf\xa3" + make_noise(), "not a video, or its header is missing|no pictures"),
    "header.avi": (b"RIFF\xff\xff\0\0AVI " + make_noise(), "not a video, or its header is missing|no pictures"),
    "header.mpg": (b"\0\0\1\xba" + make_noise(), "not a video, or|no pictures|no frames|damaged|too short|codec"),
    "header.ts": ((b"G" + make_noise(187)) * 100, "not a video, or|no pictures|no frames|damaged|too short|codec"),
    "cut.mp4": (functools.partial(cut, share=0.6), "not a video, or its header is missing"),
    "cut.avi": (functools.partial(cut, share=0.5, form="avi"), "cut off|damaged|not a video"),
    "broken.mp4": (break_end, "damaged"),
    "three frames.mp4": (functools.partial(write_mp4, frames=3), "too short: 3 frames"),
    "huge pictures.mp4": (functools.partial(write_mp4, size=(4096, 2160), frames=1), "too large: 4096 x 2160"),
    "a wall.avi": (functools.partial(write_mp4, size=(16000, 600), frames=1, codec="ffv1", form="avi"), "too large"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_no_usable_video_is_told_in_one_line(name, wash, tmp_path, monkeypatch):
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
    ("phone.MOV", "libx265", "mov"), ("phone.mp4", "libx264", "mp4"), ("web.webm", "libvpx", "webm"),
    ("film.mkv", "libx265", "matroska"), ("old.avi", "mpeg4", "avi"), ("older.mpg", "mpeg1video", "mpeg"),
    ("bare.hevc", "libx265", "hevc"), ("television.ts", "mpeg2video", "mpegts")])
def test_videos_of_all_kinds_are_used(name, codec, form, wash, monitor, tmp_path):
    path = write_mp4(tmp_path / name, codec=codec, form=form, frames=60)
    assert ask(wash, path).select(".answer") and watch(monitor, path).select(".alarm")


def test_what_is_no_file_is_told_in_one_line(wash, monitor, tmp_path):
    os.mkfifo(tmp_path / "endless.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "linked.mp4").symlink_to("/etc/passwd")
    (tmp_path / "nowhere.mp4").symlink_to(tmp_path / "nothing")
    for name, words in (("endless.mp4", "no such file"), ("folder.mp4", "no such file"), ("linked.mp4", KIND),
                        ("nowhere.mp4", "no such file"), ("missing.mp4", "no such file"), ("../up.mp4", "no such file"),
                        ("a" * 300, "no such file"), ("with\0zero.mp4", "no such file")):
        for page in (ask(wash, tmp_path / name), watch(monitor, tmp_path / name)):
            assert words in read_refusal(page, tmp_path / name), name
    assert "no such file" in read_refusal(watch(monitor, "/dev/zero"), Path("/dev/nothing"))


def test_bad_files_do_not_keep_good_ones_from_being_used(wash, square_video, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    page = ask(wash, square_video, tmp_path / "text.mp4", square_video)
    assert [bool(part.select(".answer")) for part in page.select("section")] == [True, False, True]
    assert [entry.get_text() for entry in page.select("li.done")] == ["✓ step 2 left: done"]


# ---- limits

def test_a_file_that_is_too_large_is_not_read(wash, tmp_path):
    path = tmp_path / "large.mp4"
    path.write_bytes(BOX)
    os.truncate(path, uploads.LARGEST + 1)  # takes no room on the disk
    assert "too large: 500 MB, at most 500 MB are taken" in read_refusal(ask(wash, path), path)
    os.truncate(path, uploads.LARGEST)
    assert "header is missing" in read_refusal(ask(wash, path), path)


def test_too_many_files_are_refused_together(wash, square_video):
    page = ask(wash, *[square_video] * (uploads.FILES + 1))
    assert page.get_text().strip() == "25 files are too many: at most 24 are looked at together."
    assert len(ask(wash, *["nothing"] * uploads.FILES).select("section")) == uploads.FILES


def test_no_file_is_no_answer(wash, monitor):
    assert list(check_wash(wash, None, ignore)) == [""] and list(watch_patient(monitor, ALERTS, None, ignore)) == [""]


@pytest.fixture
def list_decoders():
    """Processes that this test started: earlier tests may have left workers of their own, waiting."""
    others = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - others


@pytest.mark.parametrize("limit", ["PATIENCE", "WORK"])
def test_a_file_that_takes_too_long_is_given_up(limit, monitor, square_video, list_decoders, monkeypatch):
    monkeypatch.setattr(uploads, limit, 0.0)
    assert "takes too long to decode" in read_refusal(watch(monitor, square_video), square_video)
    assert not list_decoders()


def test_a_decoder_that_hangs_is_killed(monitor, square_video, list_decoders, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    monkeypatch.setattr(uploads.sys, "executable", str(program))
    monkeypatch.setattr(uploads, "PATIENCE", 0.3)
    assert "takes too long to decode" in read_refusal(watch(monitor, square_video), square_video)
    assert not list_decoders()


def test_a_decoder_that_breaks_down_is_told(wash, square_video, monkeypatch):
    monkeypatch.setattr(uploads.sys, "executable", shutil.which("false"))
    assert "its decoder broke down" in read_refusal(ask(wash, square_video), square_video)


def test_a_file_that_takes_too_much_memory_is_given_up(wash, tmp_path, monkeypatch):
    path = write_mp4(tmp_path / "film.mp4", size=(1920, 1080), frames=12)
    assert ask(wash, path).select(".answer")
    monkeypatch.setattr(uploads, "MEMORY", 40_000_000)
    refusal = read_refusal(ask(wash, path), path)
    assert any(words in refusal for words in ("too much memory", "cannot allocate memory", "broke down")), refusal


def test_a_video_that_is_too_long_is_refused(monitor, tmp_path, monkeypatch):
    monkeypatch.setattr(recognition, "LONGEST", 2.0)
    path = write_video(tmp_path / "long.mp4", draw_square(frames=90))
    assert "too long: more than 2 seconds" in read_refusal(watch(monitor, path), path)


def test_more_frames_than_anybody_can_see_are_read_at_the_usual_pace(monitor, tmp_path):
    fast = write_mp4(tmp_path / "fast.mp4", size=(32, 32), frames=3000, rate=3000)
    assert watch(monitor, fast).select(".alarm")


def test_the_process_of_its_own_gives_the_same_frames(square_video):
    options = {"every": 1 / 30, "longest": 30, "height": 48}
    upload = Upload(square_video)
    np.testing.assert_array_equal(list(sample_apart(upload, **options)), list(sample_frames(square_video, **options)))
    assert upload.seconds == pytest.approx(40 / 30)
    assert len(list(sample_apart(square_video, **options))) == 40
    with pytest.raises(UnreadableVideo, match="too long"):
        list(sample_apart(upload, **options | {"longest": 1}))


def test_nobody_waits_nothing_is_decoded(square_video, list_decoders):
    frames = sample_apart(Upload(square_video), every=1 / 30, longest=30, size=32)
    next(frames)
    assert list_decoders()
    frames.close()
    assert not list_decoders()


# ---- what the pages say

def test_a_clip_like_no_action_is_none_of_these(project, square_video):
    recogniser = load(project, "handwash")
    width = recogniser.recognise(Upload(square_video)).features.numel()
    recogniser.familiarity = Familiarity(torch.zeros(1, width), torch.eye(width), largest=-1.0)
    page = ask(recogniser, square_video)
    assert page.select_one(".notice").get_text().lower().startswith(NONE) and not page.select(".answer, li.done")
    assert len(page.select("li.missing img")) == 12 and len(page.select("section img")) == 1


def test_a_long_wash_is_watched(wash, tmp_path):
    path = write_video(tmp_path / "whole.mp4", np.concatenate([draw_square(frames=48)] * 20))
    pages = [BeautifulSoup(page, "html.parser") for page in check_wash(wash, [str(path)], ignore)]
    assert "watched up to 0:" in pages[0].get_text() and not pages[0].select("li")
    assert [cell.get_text() for cell in pages[-1].select("td")][:3] == ["step 2 left", "0:00", "0:32"]
    assert len(pages[-1].select("li.done")) == 1 and len(pages[-1].select("img.chart")) == 1


def test_an_alert_is_told_while_the_video_is_watched(monitor, tmp_path):
    path = write_video(tmp_path / "ward.mp4", np.concatenate([draw_square(frames=48)] * 5))
    pages = [BeautifulSoup(page, "html.parser") for page in watch_patient(monitor, ALERTS, str(path), ignore)]
    assert len(pages) == 2 and pages[0].select(".alarm") and "of 0:08" in pages[0].get_text()
    last = pages[-1]
    assert last.select_one(".alarm").get_text() == "Alert: falling down from 0:00 to 0:08 (confidence 1.00)"
    assert len(last.select("tr.alert")) == 1 and last.select("img.chart, img.attention")
    calm = BeautifulSoup(list(watch_patient(monitor, ["staggering"], str(path), ignore))[-1], "html.parser")
    assert not calm.select(".alarm, tr.alert") and "No alert: no staggering" in calm.get_text()


# ---- over HTTP

@pytest.fixture(scope="module")
def server(project, place):
    """The app on a free port, with files of 1 MB at most; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "LARGEST", 1_000_000)
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
        assert kind == "complete" and 'class="answer"' in page[0] and "<b>" not in page[0]
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
    assert "root:" not in str(answer) and use(server, "good.mp4", square_video.read_bytes()).select(".answer")


def test_no_address_in_the_web_is_fetched(server, monkeypatch):
    asked = []

    async def fetch(address, **_):
        asked.append(address)
        raise OSError

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    for address in ("http://192.0.2.1/a.mp4", "https://example.invalid/a.mp4", "HTTPS://example.invalid/a.mp4"):
        for study, value in (("handwash", [describe(address)]), ("ntu", describe(address))):
            assert call(server, study, value)[0] == "error"
    assert asked == []


def test_what_the_page_does_not_need_is_not_served(server, square_video, place):
    before = list_files(place)
    for path in ("process_recording", "proxy=http://192.0.2.1/", "vibe-code", "vibe-edit", "dev/reload"):
        assert httpx.get(f"{server}/gradio_api/{path}").status_code == 404
        with square_video.open("rb") as file:
            assert httpx.post(f"{server}/gradio_api/{path}", files={"video": file}).text == "not here"
    assert httpx.get(f"{server}/monitoring").status_code == 404 and list_files(place) == before


def test_other_files_of_this_machine_are_not_served(server):
    for path in ("/etc/passwd", str(ROOT / "README.md"), "../../../etc/passwd"):
        assert httpx.get(f"{server}/gradio_api/file={path}").status_code in (403, 404)


def test_many_at_once_are_served_and_memory_stays(server, square_video, project, list_decoders):
    process, good, bad = psutil.Process(), square_video.read_bytes(), BOX + make_noise()
    before = list_files(project)

    def visit(number: int) -> bool:
        page = use(server, f"{number}.mp4", bad if number % 3 == 0 else good)
        return bool(page.select(".answer"))

    def round_of_visits() -> int:
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(visit, range(6))) == [number % 3 != 0 for number in range(6)]
        return process.memory_info().rss

    first = round_of_visits()
    assert round_of_visits() - first < 60e6 and round_of_visits() - first < 60e6
    assert not list_decoders() and list_files(project) == before


def test_a_browser_is_told_to_ask_no_other_machine(server):
    policy = httpx.get(server).headers["content-security-policy"]
    assert policy.startswith("default-src 'self' data:") and "http" not in policy and "*" not in policy
    assert server.startswith("http://127.0.0.1:")
