"""Damaged, odd and hostile videos, given to both extractions and to recognition: none may end them, or get lost.

    python benchmarks/damage.py --count 1000

Prints, for each kind of file, how many were used, refused with a reason and lost, what took longest and how much memory
a process needed; exit code 1 when a file was lost, was not treated as its kind must be, or memory ran over.
"""

import contextlib
import io
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import pandas as pd
import psutil
import torch
import typer
from PIL import Image

from health_actions.analysis.recognition import Recogniser, Sampling
from health_actions.cli import predict_video
from health_actions.data import extraction
from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_archives, extract_frames
from health_actions.data.sandbox import sample_apart
from health_actions.models import build_model
from health_actions.models.folder import save_model

CLASSES = ["step_1", "step_2"]
WINDOW = 8
LONGEST = 90.0  # seconds that one file may take: the patience of decoding, and a margin
MEMORY = 2_000_000_000  # bytes of one process
HUGE = 30_000  # pixels that a header claims of a side

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
            tone = av.AudioFrame.from_ndarray(random.uniform(-0.1, 0.1, (1, 8192)).astype(np.float32), "fltp", "mono")
            tone.sample_rate = 16000
            container.mux([*voice.encode(tone), *voice.encode()])
        container.close()
        return Path(file.name).read_bytes()


CONTAINERS = {".mp4": {"movflags": "faststart"}, ".m4v": {"form": "mp4"}, ".mov": {"form": "mov", "codec": "mpeg4"},
              ".avi": {"form": "avi", "codec": "mpeg4"}, ".mkv": {"form": "matroska"},
              ".webm": {"form": "webm", "codec": "libvpx"}, ".mpg": {"form": "mpeg", "codec": "mpeg2video"}}


def make_whole(random) -> tuple[str, bytes]:
    suffix = random.choice(list(CONTAINERS))
    return suffix, encode(random, **CONTAINERS[suffix])


def make_rate(random):
    fps = int(random.choice([1, 2, 5, 10, 15, 24, 25, 50, 60, 100, 120, 240]))
    return ".mp4", encode(random, fps=fps, count=max(12, fps // 2))


def make_variable_rate(random):
    return random.choice([".mp4", ".mkv"]), encode(
        random, form="matroska", count=30, moments=np.cumsum(random.integers(5, 120, 30)))


def make_rotated(random):
    content = bytearray(encode(random, movflags="faststart"))
    place = content.index(b"tkhd") + 44
    turns = [[0, 1, -1, 0], [-1, 0, 0, -1], [0, -1, 1, 0]][random.integers(3)]
    matrix = [turns[0] << 16, turns[1] << 16, 0, turns[2] << 16, turns[3] << 16, 0, 0, 0, 1 << 30]
    content[place:place + 36] = np.array(matrix, ">i4").tobytes()
    return ".mp4", bytes(content)


def make_sound(random):
    return ".mp4", encode(random, sound=True)


def make_pixels(random):
    codec, pixels = [("libx264", "yuv420p10le"), ("libx264", "yuv444p"), ("libx264", "gray"), ("ffv1", "gray16le"),
                     ("ffv1", "yuva420p"), ("ffv1", "bgra"), ("qtrle", "argb"), ("png", "rgba")][random.integers(8)]
    return ".mov", encode(random, form="mov" if codec in ("qtrle", "png") else "matroska", codec=codec, pixels=pixels)


# ---- Videos that are odd


def make_odd_size(random):
    size = [(1, 1), (3, 5), (17, 999), (9999, 17), (1, 64), (333, 1), (63, 47), (2, 2), (1000, 63)][random.integers(9)]
    codec, pixels = [("png", "rgb24"), ("mjpeg", "yuvj444p"), ("rawvideo", "bgr24")][random.integers(3)]
    return ".avi", encode(random, form="avi", codec=codec, pixels=pixels, size=size, count=10)


def make_few_frames(random):
    count = int(random.integers(0, WINDOW))
    return ".mp4", encode(random, count=count)


def make_changing_size(random):
    parts = [encode(random, form="h264", size=size) for size in ((64, 48), (48, 64), (96, 48))]
    return ".mp4", b"".join(random.permutation(np.array(parts, object))[:2])


def make_wrong_suffix(random):
    return random.choice([*CONTAINERS, ".txt", ""]), make_whole(random)[1]


# ---- Videos that are damaged


def make_truncated(random):
    suffix, content = make_whole(random)
    return suffix, content[:random.integers(len(content))]


def flip(random, content: bytes, start: int, end: int) -> bytes:
    """Some bytes of a stretch are others."""
    changed = bytearray(content)
    for place in random.integers(start, max(start + 1, min(end, len(content))), random.integers(1, 12)):
        changed[place] ^= random.integers(1, 256)
    return bytes(changed)


def make_flipped_header(random):
    suffix, content = make_whole(random)
    return suffix, flip(random, content, 0, 200)


def make_flipped_index(random):
    content = encode(random, movflags="faststart")
    return ".mp4", flip(random, content, content.index(b"moov"), content.index(b"mdat"))


def make_flipped_payload(random):
    suffix, content = make_whole(random)
    return suffix, flip(random, content, len(content) // 2, len(content))


def make_overwritten(random):
    suffix, content = make_whole(random)
    start = int(random.integers(len(content)))
    length = int(random.integers(1, 2000))
    other = random.bytes(length) if random.random() < 0.5 else bytes(length)
    return suffix, content[:start] + other + content[start + length:]


def make_spliced(random):
    (suffix, first), (_, second) = make_whole(random), make_whole(random)
    return suffix, first[:random.integers(len(first))] + second[random.integers(len(second)):]


# ---- Files that claim what they do not have


def patch(content: bytes, places: list[int], value: bytes) -> bytes:
    changed = bytearray(content)
    for place in places:
        changed[place:place + len(value)] = value
    return bytes(changed)


def find_all(content: bytes, mark: bytes) -> list[int]:
    return [place for place in range(len(content)) if content.startswith(mark, place)]


def make_huge_mp4(random):
    content = encode(random, movflags="faststart")
    content = patch(content, [content.index(b"tkhd") + 80], np.array([HUGE << 16] * 2, ">u4").tobytes())
    return ".mp4", patch(content, [content.index(b"avc1", content.index(b"stsd")) + 28],
                         np.array([HUGE, HUGE], ">u2").tobytes())


def make_huge_avi(random):
    codec, pixels = [("rawvideo", "bgr24"), ("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")][random.integers(3)]
    content = encode(random, form="avi", codec=codec, pixels=pixels)
    sides = np.array([HUGE, HUGE], "<u4").tobytes()
    content = patch(content, [content.index(b"avih") + 40], sides)
    return ".avi", patch(content, [content.index(b"strf") + 12], sides)


def make_huge_jpeg(random):
    content = encode(random, form="avi", codec="mjpeg", pixels="yuvj420p")
    return ".avi", patch(content, [place + 5 for place in find_all(content, b"\xff\xc0\0\x11")],
                         np.array([HUGE, HUGE], ">u2").tobytes())


def write_number(number: int) -> str:
    """A number as H.264 has them: Exp-Golomb."""
    return "0" * ((number + 1).bit_length() - 1) + f"{number + 1:b}"


def make_huge_h264(random):
    """The stream itself, not its container, claims huge pictures."""
    content = encode(random, form="h264")
    start = content.index(b"\0\0\0\1\x67") + 5
    end = content.index(b"\0\0\0\1", start)
    bits = "".join(f"{byte:08b}" for byte in content[start:end].replace(b"\0\0\3", b"\0\0"))
    place = 24  # behind profile and level

    def read_number() -> int:
        nonlocal place
        zeros = bits.index("1", place) - place
        place += 2 * zeros + 1
        return int(bits[place - zeros - 1:place], 2) - 1

    read_number(), read_number()
    if read_number() == 0:  # how the order of the pictures is told
        read_number()
    read_number()
    place += 1
    before = bits[:place]
    read_number(), read_number()  # width and height in blocks of 16 pixels
    bits = before + write_number(HUGE // 16 - 1) * 2 + bits[place:]
    claimed = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return ".mp4", content[:start] + claimed + content[end:]


def make_huge_table(random):
    content = encode(random, movflags="faststart")
    name = random.choice([b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"elst", b"mdhd", b"mvhd"])
    place = content.find(name)
    values = random.choice([1, 2, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000], 3).astype(">u4").tobytes()
    return ".mp4", patch(content, [place + 8] if place >= 0 else [], values)


def make_nested(random):
    content = b""
    for _ in range(2000):
        content = np.array(len(content) + 8, ">u4").tobytes() + b"moov" + content
    return ".mp4", b"\0\0\0\x14ftypisom\0\0\0\0isom" + content


# ---- Files that are no videos


def make_playlist(random):
    text = random.choice(["ffconcat version 1.0\nfile /etc/passwd\n", "#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n",
                          "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
                          "<?xml version='1.0'?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>"])
    return random.choice([".mp4", ".avi", ".mkv"]), str(text).encode()


def make_text(random):
    return random.choice(list(CONTAINERS)), "no video \u00e4\n".encode() * int(random.integers(1, 500))


def make_empty(random):
    return random.choice(list(CONTAINERS)), b""


def make_noise(random):
    return random.choice(list(CONTAINERS)), random.bytes(random.integers(1, 20_000))


def make_picture(random):
    file = io.BytesIO()
    Image.fromarray(draw(random, 1, 64, 48)[0]).save(file, random.choice(["JPEG", "PNG", "GIF"]))
    return ".mp4", file.getvalue()


def make_sound_alone(random):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        voice = container.add_stream("aac", rate=16000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), "fltp", "mono")
        tone.sample_rate = 16000
        container.mux([*voice.encode(tone), *voice.encode()])
    return ".mp4", file.getvalue()


# What makes each kind, and what must come of it: True, it is used; False, it is refused; None, either.
KINDS = {
    "whole": (make_whole, True), "1 to 240 frames a second": (make_rate, True),
    "variable rate": (make_variable_rate, True), "rotated": (make_rotated, True), "with sound": (make_sound, True),
    "10-bit, grey, alpha": (make_pixels, True), "odd size": (make_odd_size, None),
    "few frames": (make_few_frames, False), "changing size": (make_changing_size, None),
    "wrong suffix": (make_wrong_suffix, None), "truncated": (make_truncated, None),
    "header flipped": (make_flipped_header, None), "index flipped": (make_flipped_index, None),
    "payload flipped": (make_flipped_payload, None), "overwritten": (make_overwritten, None),
    "spliced": (make_spliced, None), "huge by MP4 header": (make_huge_mp4, None),
    "huge by AVI header": (make_huge_avi, None), "huge by JPEG header": (make_huge_jpeg, False),
    "huge by H.264 header": (make_huge_h264, False), "huge table": (make_huge_table, None),
    "nested": (make_nested, False), "playlist": (make_playlist, False), "text": (make_text, False),
    "empty": (make_empty, False), "noise": (make_noise, False), "picture": (make_picture, False),
    "sound alone": (make_sound_alone, False),
}


def write_files(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write so many files to a class folder, all kinds in turn; returns path -> kind."""
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
            "clip": {"size": 32, "window": WINDOW, "stride": 1}, "training": {"precision": "32-true"}}
    torch.manual_seed(0)
    save_model(folder, build_model(**card["architecture"]), card)
    recogniser = Recogniser(folder, sampling=Sampling(1, height=48))
    recogniser.read = sample_apart
    return recogniser


class Watch(threading.Thread):
    """The largest memory that a process which this one started ever had, bytes, looked at all the time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.largest, self.over = 0, threading.Event()

    def run(self):
        own = psutil.Process()
        while not self.over.wait(0.02):
            for process in own.children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):
                    if process.cmdline() != own.cmdline():  # the same: just begun, with this process's memory
                        self.largest = max(self.largest, measure_peak(process))


def measure_peak(process: psutil.Process) -> int:
    """The most memory that a process had so far, bytes; where the system does not tell, what it has now."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else process.memory_info().rss


def run_everything(folder: Path, count: int, seed: int, processes: int = 2) -> pd.DataFrame:
    """Write files, give them to everything, and tell what came of it.

    Returns:
        A row for each file and what it was given to ("frames", "archives", "predict"): file, kind, by, seconds (of
        "predict" for the file, of an extraction the longest wait for any file), reason (empty: used) and lost: why it
        is, or empty. `attrs["memory"]` has the largest memory of a process, bytes.
    """
    kinds, rows, watch = write_files(folder / "clips", count, seed), [], Watch()
    watch.start()
    extractions = {"frames": lambda: extract_frames(folder / "clips", folder / "frames", CLASSES, sizes=[32],
                                                    length=WINDOW, stride=4, processes=processes),
                   "archives": lambda: extract_archives(folder / "clips", folder / "archives", CLASSES, height=48,
                                                        naming="handwash", processes=processes)}
    by_name = find_clips(folder / "clips", CLASSES).set_index("path")["reason"]
    for by, extract in extractions.items():
        moments = [time.monotonic()]

        def note(results, moments=moments, **_):
            for result in results:
                moments.append(time.monotonic())
                yield result

        extraction.track, track = note, extraction.track
        try:
            index = extract().set_index("path")
        finally:
            extraction.track = track
        suffix = {"frames": ".npz", "archives": ".zip"}[by]
        there = {path.relative_to(folder / by).with_suffix("").as_posix() for path in (folder / by).rglob(f"*{suffix}")}
        for path, kind in kinds.items():
            if path not in index.index:
                rows.append((path, kind, by, np.nan, "", "not listed"))
                continue
            row = index.loc[path]
            kept = row["clip"] in there
            lost = "" if kept == (row["status"] == "ok") else "frames and index differ"
            rows.append((path, kind, by, max(np.diff(moments)), row["reason"], lost))
    recogniser = build_recogniser(folder / "model")

    def predict(path: str) -> tuple:
        start = time.monotonic()
        row = predict_video(recogniser, folder / "clips" / path)
        lost = "" if bool(row["error"]) != bool(row["action"]) else "neither an answer nor a reason"
        return path, kinds[path], "predict", time.monotonic() - start, row["error"] or "", lost

    with ThreadPoolExecutor(processes) as pool:
        rows += pool.map(predict, kinds)
    watch.over.set()
    watch.join()
    table = pd.DataFrame(rows, columns=["file", "kind", "by", "seconds", "reason", "lost"])
    expected = table["kind"].map({kind: must for kind, (_, must) in KINDS.items()})
    refused_by_name = table["file"].map(by_name.ne("").to_dict()) & (table["by"] != "predict")
    table.loc[table["reason"].str.contains("\n"), "lost"] = "a reason of several lines"
    table.loc[table["seconds"] > LONGEST, "lost"] = "took too long"
    table.loc[(expected == True) & (table["reason"] != "") & ~refused_by_name, "lost"] = "refused"  # noqa: E712
    table.loc[(expected == False) & (table["reason"] == ""), "lost"] = "used"  # noqa: E712
    table.attrs["memory"] = watch.largest
    return table


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """A row a kind: tried (files, each given to three), used, refused, crashed (of the refused), lost, seconds."""
    return table.assign(used=(table["reason"] == "") & (table["lost"] == ""),
                        refused=(table["reason"] != "") & (table["lost"] == ""),
                        crashed=table["reason"].str.contains("crashed|broke down"), is_lost=table["lost"] != "",
                        slowest=table["seconds"].where(table["by"] == "predict")).groupby("kind", sort=False).agg(
        tried=("kind", "size"), used=("used", "sum"), refused=("refused", "sum"), crashed=("crashed", "sum"),
        lost=("is_lost", "sum"), slowest=("slowest", "max")).round(1)


def main(
    count: Annotated[int, typer.Option(min=1, help="How many files.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of all files.")] = 0,
    processes: Annotated[int, typer.Option(min=2, help="That decode at a time.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Where the files stay; else they are deleted.")] = None,
) -> None:
    """Give damaged, odd and hostile videos to everything that reads videos."""
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        table = run_everything(Path(place), count, seed, processes)
    print(summarise(table).to_string())
    lost, memory = table[table["lost"] != ""], table.attrs["memory"]
    waits = table[table["by"] != "predict"].groupby("by")["seconds"].max().round(1).to_dict()
    print(f"\n{count} files in {time.monotonic() - start:.0f} s; slowest file {table['seconds'].max():.1f} s (longest "
          f"wait for one: {waits}); largest process {memory / 1e6:.0f} MB; lost: {len(lost)}")
    if len(lost):
        print(lost[["file", "kind", "by", "lost", "reason"]].to_string(index=False))
    if len(lost) or memory > MEMORY:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
