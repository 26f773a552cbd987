"""Damaged, odd and hostile videos, given to extraction, sampled and whole, and to recognition: no file may get lost.

    python benchmarks/damage.py --count 1000

Prints for each kind of file how many were used, refused with a reason and lost, which took longest and how much memory
a process needed. Exit code 1 when a file was lost, was not treated as its kind must be, or memory was exceeded.
"""

import io
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import pandas as pd
import torch
import typer
from PIL import Image

from health_actions.analysis.recognition import Recogniser
from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.data.sandbox import MEMORY, PATIENCE, Sandbox, sample_in_sandbox
from health_actions.data.video import UnreadableVideo
from health_actions.models import build_model
from health_actions.models.weights import save_model

CLASSES = ["step_1", "step_2"]
WINDOW = 8
HUGE = 30_000  # pixels that a header claims of a side
EXTRACTIONS = {"sampled": {"height": 32, "length": WINDOW, "stride": 4}, "whole": {"height": 48}}

# ---- Videos that are whole


def draw(random: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    """A smooth picture that moves: uint8 (count, height, width, 3)."""
    rows, columns = np.mgrid[:height, :width]
    waves = rows[..., None] * random.uniform(0, 0.3, 3) + columns[..., None] * random.uniform(0, 0.3, 3)
    return (127 + 100 * np.sin(waves + 0.3 * np.arange(count)[:, None, None, None])).astype(np.uint8)


def encode(random, *, form="mp4", codec="libx264", pixels="yuv420p", fps=30, count=24, size=(64, 48), moments=None,
           sound=False, **options) -> bytes:
    """The bytes of a video file; `moments` are the times of its frames in thousandths of a second."""
    options |= {"fflags": "+bitexact"}  # no dates, no random names
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=fps, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if moments is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264" and form == "h264":
            stream.codec_context.profile = "Baseline"
        voice = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number, picture in enumerate(draw(random, count, *size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            if moments is not None:
                frame.pts, frame.time_base = int(moments[number]), stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice:
            add_sound(container, voice)
        container.close()
        return Path(file.name).read_bytes()


def add_sound(container, voice) -> None:
    """Half a second of silence."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), "fltp", "mono")
    frame.sample_rate = 16000
    container.mux([*voice.encode(frame), *voice.encode()])


CONTAINERS = {".mp4": {"movflags": "faststart"}, ".m4v": {"form": "mp4"}, ".mov": {"form": "mov", "codec": "mpeg4"},
              ".avi": {"form": "avi", "codec": "mpeg4"}, ".mkv": {"form": "matroska"},
              ".webm": {"form": "webm", "codec": "libvpx"}, ".mpg": {"form": "mpeg", "codec": "mpeg2video"}}
SUFFIXES = {"matroska": ".mkv", "avi": ".avi", "mov": ".mov"}
PIXELS = [("libx264", "yuv420p10le"), ("libx264", "yuv444p"), ("libx264", "gray"), ("ffv1", "gray16le"),
          ("ffv1", "yuva420p"), ("ffv1", "bgra"), ("qtrle", "argb"), ("png", "rgba")]
SIZES = [(1, 1), (3, 5), (17, 999), (9999, 17), (1, 64), (333, 1), (63, 47), (2, 2), (1000, 63)]
PLAIN = [("png", "rgb24"), ("mjpeg", "yuvj444p"), ("rawvideo", "bgr24")]  # for frames of any size


def make_whole(random) -> tuple[str, bytes]:
    suffix = random.choice(list(CONTAINERS))
    return suffix, encode(random, **CONTAINERS[suffix])


def make_unusual(random, what: str) -> tuple[str, bytes]:
    fps = int(random.choice([1, 2, 5, 10, 15, 24, 25, 50, 60, 100, 120, 240]))
    (codec, pixels), (plain, plain_pixels) = PIXELS[random.integers(len(PIXELS))], PLAIN[random.integers(len(PLAIN))]
    options = {
        "1 to 240 frames a second": {"fps": fps, "count": max(12, fps // 2)},
        "variable rate": {"form": "matroska", "count": 30, "moments": np.cumsum(random.integers(5, 120, 30))},
        "with sound": {"sound": True}, "few frames": {"count": int(random.integers(WINDOW))},
        "10-bit, grey, alpha": {"form": "mov" if codec in ("qtrle", "png") else "matroska", "codec": codec,
                                "pixels": pixels},
        "odd size": {"form": "avi", "codec": plain, "pixels": plain_pixels, "count": 10,
                     "size": SIZES[random.integers(len(SIZES))]}}[what]
    return SUFFIXES.get(options.get("form"), ".mp4"), encode(random, **options)


def make_rotated(random):
    content = encode(random, movflags="faststart")
    turns = [[0, 1, -1, 0], [-1, 0, 0, -1], [0, -1, 1, 0]][random.integers(3)]
    matrix = [turns[0] << 16, turns[1] << 16, 0, turns[2] << 16, turns[3] << 16, 0, 0, 0, 1 << 30]
    return ".mp4", patch(content, [content.index(b"tkhd") + 44], np.array(matrix, ">i4"))


def make_changing_size(random):
    parts = [encode(random, form="h264", size=size) for size in ((64, 48), (48, 64), (96, 48))]
    return ".mp4", b"".join(random.permutation(np.array(parts, object))[:2])


# ---- Videos that are damaged


def make_damaged(random, how: str) -> tuple[str, bytes]:
    """Cut a video off, flip some bytes, write over a part, or join it to another one."""
    suffix, content = make_whole(random) if how != "index flipped" else (".mp4", encode(random, movflags="faststart"))
    start, length = int(random.integers(len(content))), int(random.integers(1, 2000))
    if how == "truncated":
        return suffix, content[:start]
    if how == "overwritten":
        other = [random.bytes(length), bytes(length)][random.integers(2)]
        return suffix, content[:start] + other + content[start + length:]
    if how == "spliced":
        return suffix, content[:start] + make_whole(random)[1][random.integers(200):]
    first, last = {"header flipped": (0, 200), "payload flipped": (len(content) // 2, len(content)),
                   "index flipped": (content.find(b"moov"), content.find(b"mdat"))}[how]
    places = random.integers(first, max(first + 1, min(last, len(content))), random.integers(1, 12))
    changed = np.frombuffer(content, np.uint8).copy()
    changed[places] ^= random.integers(1, 256, len(places), dtype=np.uint8)
    return suffix, changed.tobytes()


# ---- Files that claim what they do not have


def patch(content: bytes, places: list[int], value: np.ndarray) -> bytes:
    """Overwrite bytes at some places."""
    changed = bytearray(content)
    for place in places:
        changed[place:place + value.nbytes] = value.tobytes()
    return bytes(changed)


def make_huge_mp4(random):
    content = encode(random, movflags="faststart")
    content = patch(content, [content.index(b"tkhd") + 80], np.array([HUGE << 16] * 2, ">u4"))
    return ".mp4", patch(content, [content.index(b"avc1", content.index(b"stsd")) + 28], np.array([HUGE] * 2, ">u2"))


def make_huge_avi(random):
    codec, pixels = [("rawvideo", "bgr24"), ("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")][random.integers(3)]
    content = encode(random, form="avi", codec=codec, pixels=pixels)
    places = [content.index(b"avih") + 40, content.index(b"strf") + 12]
    return ".avi", patch(content, places, np.array([HUGE] * 2, "<u4"))


def make_huge_jpeg(random):
    content = encode(random, form="avi", codec="mjpeg", pixels="yuvj420p")
    places = [place + 5 for place in range(len(content)) if content.startswith(b"\xff\xc0\0\x11", place)]
    return ".avi", patch(content, places, np.array([HUGE] * 2, ">u2"))


def make_huge_h264(random):
    """The stream, not its container, claims huge pictures: its numbers are Exp-Golomb codes."""
    content = encode(random, form="h264")
    start = content.index(b"\0\0\0\1\x67") + 5
    end = content.index(b"\0\0\0\1", start)
    header = content[start:end].replace(b"\0\0\3", b"\0\0")
    bits = f"{int.from_bytes(header):0{8 * len(header)}b}"
    place = bits.index("00100" + "011", 24)  # width and height: 4 and 3 blocks of 16 pixels, each less 1
    side = f"{HUGE // 16:b}"
    bits = bits[:place] + 2 * ("0" * (len(side) - 1) + side) + bits[place + 8:]
    bits += "0" * (-len(bits) % 8)
    return ".mp4", content[:start] + int(bits, 2).to_bytes(len(bits) // 8) + content[end:]


def make_huge_table(random):
    content = encode(random, movflags="faststart")
    place = content.find(random.choice([b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"elst", b"mdhd", b"mvhd"]))
    values = random.choice([1, 2, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000], 3).astype(">u4")
    return ".mp4", patch(content, [place + 8] if place >= 0 else [], values)


def make_nested(_):
    content = b""
    for _ in range(2000):
        content = np.array(len(content) + 8, ">u4").tobytes() + b"moov" + content
    return ".mp4", b"\0\0\0\x14ftypisom\0\0\0\0isom" + content


# ---- Files that are no videos

LISTS = ["ffconcat version 1.0\nfile /etc/passwd\n", "#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n",
         "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
         "<?xml version='1.0'?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>"]


def make_other(random, what: str) -> tuple[str, bytes]:
    file = io.BytesIO()
    if what == "picture":
        Image.fromarray(draw(random, 1, 64, 48)[0]).save(file, random.choice(["JPEG", "PNG", "GIF"]))
    elif what == "sound alone":
        with av.open(file, "w", format="mp4") as container:
            add_sound(container, container.add_stream("aac", rate=16000, layout="mono"))
    else:
        file.write({"playlist": LISTS[random.integers(len(LISTS))].encode(), "empty": b"",
                    "text": "no video \u00e4\n".encode() * int(random.integers(1, 500)),
                    "noise": random.bytes(random.integers(1, 20_000))}[what])
    return random.choice(list(CONTAINERS)), file.getvalue()


# What makes each kind, and what must become of it: True, it is used; False, it is refused; None, either.
KINDS = {
    "whole": (make_whole, True), "rotated": (make_rotated, True),
    **{what: (partial(make_unusual, what=what), True)
       for what in ("1 to 240 frames a second", "variable rate", "with sound", "10-bit, grey, alpha")},
    "odd size": (partial(make_unusual, what="odd size"), None),
    "few frames": (partial(make_unusual, what="few frames"), False),
    "changing size": (make_changing_size, None),
    "wrong suffix": (lambda random: (random.choice([*CONTAINERS, ".txt", ""]), make_whole(random)[1]), None),
    **{how: (partial(make_damaged, how=how), None) for how in (
        "truncated", "header flipped", "index flipped", "payload flipped", "overwritten", "spliced")},
    "huge by MP4 header": (make_huge_mp4, None), "huge by AVI header": (make_huge_avi, None),
    "huge by JPEG header": (make_huge_jpeg, False), "huge by H.264 header": (make_huge_h264, False),
    "huge table": (make_huge_table, None), "nested": (make_nested, False),
    **{what: (partial(make_other, what=what), False)
       for what in ("playlist", "text", "empty", "noise", "picture", "sound alone")},
}


def write_files(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write files of all kinds in turn to a class folder; returns path -> kind."""
    (folder / "Step_1").mkdir(parents=True)
    kinds = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        suffix, content = KINDS[kind][0](np.random.default_rng([seed, number]))
        path = folder / "Step_1" / f"{number:05d}{suffix}"
        path.write_bytes(content)
        kinds[path.relative_to(folder).as_posix()] = kind
    return kinds


def build_recogniser(folder: Path) -> Recogniser:
    """A network with random weights, as `health-actions predict` uses one."""
    card = {"architecture": {"name": "squeezenet", "num_classes": 2, "frames": WINDOW, "size": 32}, "classes": CLASSES,
            "preprocessing": {"mean": [0.45] * 3, "std": [0.225] * 3, "colour": "rgb"}, "data": {}, "scores": {},
            "clip": {"size": 32, "window": WINDOW, "stride": 1, "crop": "corner"}, "training": {"precision": "32-true"},
            "frames": {"height": 48, "length": None, "stride": 1}}
    torch.manual_seed(0)
    save_model(folder, build_model(**card["architecture"]), card)
    return Recogniser(folder, read=sample_in_sandbox)


def run_everything(folder: Path, count: int, seed: int, workers: int = 2) -> pd.DataFrame:
    """Write files, give them to everything, and collect what became of them.

    Returns:
        A row for each file and what it was given to ("sampled", "whole", "predict"): file, kind, by, seconds (of an
        extraction: all of it), reason (empty: used) and lost: why it is, or empty.
    """
    kinds, rows = write_files(folder / "clips", count, seed), []
    clips = find_clips(folder / "clips", CLASSES)
    for by, settings in EXTRACTIONS.items():
        start = time.monotonic()
        index = extract_frames(folder / "clips", folder / by, clips, **settings, workers=workers).set_index("path")
        for path, row in index.reindex(list(kinds), fill_value="not listed").iterrows():
            kept = (folder / by / path).with_suffix(".zip").is_file()
            right = row["reason"] != "not listed" and kept == (row["status"] == "ok") == (row["reason"] == "")
            rows.append((path, by, time.monotonic() - start, row["reason"], "" if right else "frames and index differ"))
    recogniser = build_recogniser(folder / "model")

    def predict(path: str) -> tuple:
        start, reason, lost = time.monotonic(), "", ""
        try:
            lost = "" if recogniser.recognise(folder / "clips" / path).action in CLASSES else "no answer"
        except UnreadableVideo as error:
            reason = str(error)
        return path, "predict", time.monotonic() - start, reason, lost

    with ThreadPoolExecutor(workers) as pool:
        rows += pool.map(predict, kinds)
    table = pd.DataFrame(rows, columns=["file", "by", "seconds", "reason", "lost"])
    table.insert(1, "kind", table["file"].map(kinds))
    expected = table["kind"].map({kind: must for kind, (_, must) in KINDS.items()})
    by_name = table["file"].isin(clips.loc[clips["reason"] != "", "path"]) & (table["by"] != "predict")
    table.loc[table["reason"].str.contains("\n"), "lost"] = "a reason of several lines"
    table.loc[(table["seconds"] > 1.5 * PATIENCE) & (table["by"] == "predict"), "lost"] = "took too long"
    table.loc[(expected == True) & (table["reason"] != "") & ~by_name, "lost"] = "refused"  # noqa: E712
    table.loc[(expected == False) & (table["reason"] == ""), "lost"] = "used"  # noqa: E712
    return table


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """A row a kind: tried (files, each given to three), used, refused, crashed (of the refused), lost, seconds."""
    return table.assign(used=(table["reason"] == "") & (table["lost"] == ""),
                        refused=(table["reason"] != "") & (table["lost"] == ""),
                        crashed=table["reason"].str.contains("crashed"), is_lost=table["lost"] != "",
                        slowest=table["seconds"].where(table["by"] == "predict")).groupby("kind", sort=False).agg(
        tried=("kind", "size"), used=("used", "sum"), refused=("refused", "sum"), crashed=("crashed", "sum"),
        lost=("is_lost", "sum"), slowest=("slowest", "max")).round(1)


def watch_memory() -> list[int]:
    """From now on, gets the largest memory of each sandbox as it is closed: bytes, resident; nothing without /proc.

    `getrusage` would also count what this process had in memory as it started them.
    """
    peaks, close = [], Sandbox.close

    def close_and_note(sandbox, *_):
        with suppress(OSError):  # it has crashed, or the system has no /proc
            status = Path(f"/proc/{sandbox.process.pid}/status").read_text() if sandbox.process else ""
            peaks.extend(1024 * int(size) for size in re.findall(r"VmHWM:\s+(\d+) kB", status))
        close(sandbox)

    Sandbox.close = Sandbox.__exit__ = Sandbox.__del__ = close_and_note
    return peaks


def main(
    count: Annotated[int, typer.Option(min=1, help="How many files.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of all files.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Files that are decoded at a time.")] = 2,
) -> None:
    """Give damaged, odd and hostile videos to everything that reads videos."""
    with tempfile.TemporaryDirectory() as place:
        start, peaks = time.monotonic(), watch_memory()
        table = run_everything(Path(place), count, seed, workers)
    print(summarise(table).to_string())
    lost, seconds = table[table["lost"] != ""], table.groupby("by")["seconds"].max().round(1)
    memory = max(peaks, default=0)
    print(f"\n{count} files in {time.monotonic() - start:.0f} s; slowest file {seconds['predict']} s; extractions "
          f"{seconds['sampled']} s and {seconds['whole']} s; largest sandbox {memory / 1e6:.0f} MB; lost: {len(lost)}")
    if len(lost):
        print(lost[["file", "kind", "by", "lost", "reason"]].to_string(index=False))
    if len(lost) or memory > MEMORY:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
