"""How time and memory grow with the number of clips, and what the full data sets will take.

    python benchmarks/growth.py                      # 1,000, 10,000 and 56,880 clips: NTU RGB+D has so many
    python benchmarks/growth.py --clips my_clips     # real clips (handwash/, falls/) for the estimates

Every step that sees all clips at once runs on catalogues of growing size. Their files are real, small and linked again
and again under NTU's names; their signatures are simulated: of each camera's place a background, before it a person who
moves, and noise; each clip is there twice, encoded anew. Seconds are the processor's, so that what else runs does not
count, of one thread; megabytes are the most that the process took until then. A step that grows faster than n log n,
or memory of more than 2 GB, is told, and the exit code is 1.
"""

import itertools
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import pandas as pd
import typer
import yaml

from health_actions.data.annotations import audit_splits, write_annotations
from health_actions.data.clips import NTU_ACTIONS, find_clips
from health_actions.data.extraction import extract_archives, extract_frames
from health_actions.data.frames import load_frames, name_folders, open_clip, read_index
from health_actions.data.splits import NTU_PROTOCOLS, PROTOCOLS, drop_duplicates, find_duplicates, make_splits, sign
from health_actions.progress import LOG_VARIABLE

SIZES = [1_000, 10_000, 56_880]
CLASSES = [*NTU_ACTIONS.values(), *(f"A{number:03d}" for number in range(50, 61))]
FACTS = {"frames": 16, "fps": 30.0, "duration": 0.533, "width": 64, "height": 36, "synthetic": False, "length": 16,
         "stride": 1, "status": "ok"}
TOLERANCE = 0.3  # of an exponent of growth above that of n log n
SHORTEST = 0.2  # seconds; steps that take less at the larger size are not judged
MOST = 2048  # megabytes
SETS = {"handwash": {"hand wash": 711}, "ntu": {"NTU RGB+D, 9 classes": 8_500, "NTU RGB+D, all": 56_880}}
FRAMES = {"handwash": 130, "ntu": 90}  # of a synthetic clip; study A reads no more of one, study B's are assumed so


def name_clips(count: int) -> list[str]:
    """The first of NTU's 56,880 names: 60 actions, each by 158 pairs of setup and performer, 2 takes, 3 cameras."""
    names = (f"S{1 + pair // 10:03d}C{camera:03d}P{1 + pair % 40:03d}R{take:03d}A{action:03d}_rgb"
             for action in range(1, 61) for take in (1, 2) for camera in (1, 2, 3) for pair in range(158))
    return list(itertools.islice(names, count))


def write_video(path: Path, *, width: int, height: int, frames: int, seed: int = 0) -> Path:
    """A soft picture that moves, without noise, as H.264 of 30 frames a second."""
    random = np.random.default_rng(seed)
    picture = np.kron(random.integers(40, 216, (9, 16, 3)), np.ones((height // 9 + 1, width // 16 + 1, 1)))
    picture = picture[:height, :width].astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            moved = np.roll(picture, (2 * number, 3 * number), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    return path


def draw_signatures(clips: pd.DataFrame) -> np.ndarray:
    """Simulated signatures, see `sign`: float32 (clips, 2048); every second clip is the one before, encoded anew."""
    scenes = pd.factorize(clips["clip"].str[:8])[0]
    random = np.random.default_rng(0)
    backgrounds = np.kron(random.uniform(20, 230, (scenes.max() + 1, 4, 4)), np.ones((4, 4)))
    places, moments, signatures = np.arange(16), np.arange(8)[:, None], []
    shown = np.zeros((8, 16, 16))
    for number, scene in enumerate(scenes):
        if number % 2:
            shown = shown + random.normal(0, 0.2, shown.shape)
        else:
            (row, column), (down, right) = random.uniform(3, 13, 2), random.uniform(-0.5, 0.5, 2)
            rows = np.exp(-((places - row - down * moments) / 4) ** 2)
            columns = np.exp(-((places - column - right * moments) / 2) ** 2)
            person = random.uniform(20, 60) * rows[:, :, None] * columns[:, None, :]
            shown = backgrounds[scene] + person + random.normal(0, 0.3, person.shape)
        signatures.append(shown.astype(np.float32).ravel())
    return np.stack(signatures)


def measure_steps(count: int, folder: Path) -> dict:
    """Take one catalogue of `count` clips through every step, in this process.

    Args:
        folder: an empty one to work in.

    Returns:
        steps: name -> [seconds of the processor, megabytes this process had at most until then]; handled: number of
        clips that came through every step.
    """
    steps, handled = {}, []

    def measure(name: str, work, *values, **options):
        best = math.inf
        for _ in range(3):  # what takes long is measured once
            start = time.process_time()
            result = work(*values, **options)
            best = min(best, time.process_time() - start)
            if best > 1:
                break
        steps[name] = [best, read_peak()]
        return result

    write_video(folder / "one" / "bow" / "one.mp4", width=64, height=36, frames=16)
    extract_archives(folder / "one", folder / "one_frames", CLASSES, height=36, processes=1)
    (folder / "clips").mkdir()
    (folder / "frames").mkdir()
    for name in name_clips(count):
        os.link(folder / "one" / "bow" / "one.mp4", folder / "clips" / f"{name}.avi")
        os.link(folder / "one_frames" / "bow" / "one.zip", folder / "frames" / f"{name}.zip")

    catalogue = measure("catalogue", find_clips, folder / "clips", CLASSES, "ntu")
    handled.append((catalogue["reason"] == "").sum())
    catalogue.assign(content=catalogue["clip"], **FACTS).to_csv(folder / "frames" / "index.csv", index=False)
    clips = measure("index", read_index, folder / "frames")
    signatures = draw_signatures(clips)
    duplicates = measure("duplicates", find_duplicates, clips, signatures, tolerance=0.5)
    del signatures
    kept = measure("drop duplicates", drop_duplicates, clips, duplicates)
    handled.append(len(kept) + duplicates["other"].nunique())
    for protocol in [*PROTOCOLS, *NTU_PROTOCOLS]:
        splits = measure(f"split {protocol}", make_splits, clips, protocol=protocol, folds=5)
        handled.append(splits.loc[splits["fold"] == 1, "clip"].nunique())
    strangers = clips.assign(recording=clips["clip"])
    splits = measure("split by_performer, all unknown", make_splits, strangers, protocol="by_performer", folds=5)
    handled.append(splits.loc[splits["subset"] == "testing", "clip"].nunique())
    audit = measure("audit", audit_splits, splits, duplicates, CLASSES)
    handled.append(audit[["training", "validation", "testing"]].sum(axis=1).min())
    lengths = dict(zip(clips["clip"], clips["length"]))
    measure("annotations", write_annotations, folder / "annotations", "ntu", splits, lengths, CLASSES,
            names=name_folders(clips))
    handled.append(len(json.loads((folder / "annotations" / "ntu_01.json").read_text())["database"]))
    load_batch(folder / "frames", clips.head(8))  # imports torch
    handled.append(measure("loader, first batch", load_batch, folder / "frames", clips))
    return {"steps": steps, "handled": int(min(handled))}


def load_batch(frames: Path, clips: pd.DataFrame) -> int:
    """Make what trains from all clips and take its first batch; returns how many clips it holds."""
    from health_actions.data.transforms import build_input_transform
    from health_actions.learning.datasets import FrameDataset, build_loader, seed_of  # here, since torch is large

    dataset = FrameDataset(frames, clips, CLASSES, size=32, window=8, stride=1, draw=(0, 1, 1),
                           input_transform=build_input_transform([0.5] * 3, [0.25] * 3))
    loader = build_loader(dataset, batch_size=8, shuffle=seed_of(0))
    next(iter(loader))
    return len(loader.sampler)


def read_peak() -> float:
    """Most memory that this process had so far, megabytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the process that started this one had, too
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_growth(sizes: list[int]) -> tuple[pd.DataFrame, int]:
    """Each size in a process of its own: the table of `tabulate_steps`, and how many clips came through."""
    results = {}
    for count in sizes:
        result = subprocess.run([sys.executable, __file__, "--only", str(count)], check=True, stdout=subprocess.PIPE,
                                text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
        results[count] = json.loads(result.stdout)
    return tabulate_steps(results), sum(result["handled"] for result in results.values())


def tabulate_steps(results: dict[int, dict]) -> pd.DataFrame:
    """Number of clips -> result of `measure_steps`, as one row a step and size: step, clips, seconds, megabytes."""
    rows = [(step, count, *values) for count, result in results.items() for step, values in result["steps"].items()]
    return pd.DataFrame(rows, columns=["step", "clips", "seconds", "megabytes"])


def compare_sizes(measured: pd.DataFrame) -> pd.DataFrame:
    """One row a step and pair of neighbouring sizes: step, from, to, exponent, allowed, seconds (at the larger)."""
    rows = []
    for step, sizes in measured.groupby("step", sort=False):
        for small, large in itertools.pairwise(sizes.sort_values("clips").itertuples()):
            ratio = math.log(large.clips / small.clips)
            allowed = 1 + math.log(math.log(large.clips) / math.log(small.clips)) / ratio + TOLERANCE
            exponent = math.log(max(large.seconds, 1e-9) / max(small.seconds, 1e-9)) / ratio
            rows.append((step, small.clips, large.clips, exponent, allowed, large.seconds))
    return pd.DataFrame(rows, columns=["step", "from", "to", "exponent", "allowed", "seconds"])


def find_faults(measured: pd.DataFrame) -> list[str]:
    """What grows too fast or takes too much memory, a line each."""
    compared = compare_sizes(measured)
    fast = compared[(compared["seconds"] >= SHORTEST) & (compared["exponent"] > compared["allowed"])]
    large = measured[measured["megabytes"] > MOST].drop_duplicates("clips")
    return [*(f"{row.step}: from {row._2:,} to {row.to:,} clips its time grows with exponent {row.exponent:.2f}, at "
              f"most {row.allowed:.2f} is n log n" for row in fast.itertuples()),
            *(f"{row.step}: {row.megabytes:,.0f} MB at {row.clips:,} clips, at most {MOST:,} MB"
              for row in large.itertuples())]


def measure_rates(folder: Path, clips: Path | None) -> pd.DataFrame:
    """What a clip takes, one at a time: synthetic ones of the full sets' sizes, and real ones where they are given.

    Returns:
        One row a kind of clips: study, kind, alike (as large as those of the full set), count, frames of a clip,
        extraction and signature (seconds a clip) and kilobytes (of a clip's extracted frames).
    """
    params = yaml.safe_load((Path(__file__).parent.parent / "params.yaml").read_text(encoding="utf-8"))
    steps, settings = params["handwash"]["classes"], params["laptop"]["handwash"]["frames"]
    kinds = [("ntu", "synthetic, 1920 x 1080", True, folder / "ntu", ["bow"]),
             ("handwash", "synthetic, 720 x 480", True, folder / "handwash", steps)]
    for number in range(3):
        write_video(folder / "ntu" / "bow" / f"{number}.mp4", width=1920, height=1080, frames=FRAMES["ntu"],
                    seed=number)
        write_video(folder / "handwash" / steps[0] / f"{number}.mp4", width=720, height=480, frames=FRAMES["handwash"],
                    seed=number)
    if clips and (clips / "falls").is_dir():
        kinds.append(("ntu", "real, falls", False, clips / "falls", ["fall", "adl"]))
    if clips and (clips / "handwash").is_dir():
        kinds.append(("handwash", "real, hand wash", True, clips / "handwash", steps))
    rows = []
    for number, (study, kind, alike, source, classes) in enumerate(kinds):
        output, start = folder / f"frames_{number}", time.perf_counter()
        if study == "ntu":
            index = extract_archives(source, output, classes, height=240, processes=1)
        else:
            index = extract_frames(source, output, classes, **settings, processes=1)
        extracted, usable = time.perf_counter() - start, index[index["status"] == "ok"]
        start = time.perf_counter()
        for clip in usable["clip"]:
            sign(open_clip(output, clip) if study == "ntu" else load_frames(output, clip, min(settings["sizes"])))
        signed = time.perf_counter() - start
        size = sum(file.stat().st_size for file in output.rglob("*") if file.suffix in (".zip", ".npz"))
        count = len(usable)
        rows.append((study, kind, alike, count, usable["frames"].mean(), extracted / count, signed / count,
                     size / count / 1000))
    return pd.DataFrame(rows, columns=["study", "kind", "alike", "count", "frames", "extraction", "signature",
                                       "kilobytes"])


def estimate_sets(rates: pd.DataFrame) -> pd.DataFrame:
    """What the full sets will take by each rate: set, clips, kind, hours to extract, hours to sign, gigabytes.

    Study A keeps as many frames of every clip, study B all of them: of each clip as many as `FRAMES` says. Hours are
    missing where the clips measured have smaller pictures than the set's.
    """
    rows = []
    for rate in rates.itertuples():
        longer = FRAMES["ntu"] / rate.frames if rate.study == "ntu" else 1
        for name, count in SETS[rate.study].items():
            hours = [count * seconds * longer / 3600 if rate.alike else math.nan
                     for seconds in (rate.extraction, rate.signature)]
            rows.append((name, count, rate.kind, *hours, count * rate.kilobytes * longer / 1e6))
    return pd.DataFrame(rows, columns=["set", "clips", "measured on", "extraction h", "signatures h", "frames GB"])


def print_growth(measured: pd.DataFrame) -> None:
    """The table of steps: seconds and megabytes at each size, exponents from each size to the next."""
    compared = compare_sizes(measured)
    sizes = sorted(measured["clips"].unique())
    titles = [*(f"{count:,} clips" for count in sizes), *(f"to {count:,}" for count in sizes[1:])]
    print(f"{'step':34}" + "".join(f"{title:>20}" for title in titles[:len(sizes)])
          + "".join(f"{title:>11}" for title in titles[len(sizes):]))
    for step, rows in measured.groupby("step", sort=False):
        cells = "".join(f"{row.seconds:9.2f} s{row.megabytes:6,.0f} MB" for row in rows.itertuples())
        growth = "".join(f"{row.exponent:11.2f}" if row.seconds >= SHORTEST else f"{'short':>11}"
                         for row in compared[compared["step"] == step].itertuples())
        print(f"{step:34}{cells}{growth}")


def main(sizes: Annotated[list[int] | None, typer.Option("--size", help="Numbers of clips, each at least 200.")] = None,
         clips: Annotated[Path | None, typer.Option(help="Folder of real clips: handwash/, falls/.")] = None,
         only: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Measure how time and memory grow with the number of clips; estimate what the full sets will take."""
    os.environ.setdefault(LOG_VARIABLE, os.devnull)  # no progress bars
    with tempfile.TemporaryDirectory() as folder:
        if only:
            print(json.dumps(measure_steps(only, Path(folder))))
            return
        sizes = sorted(sizes or SIZES)
        measured, handled = measure_growth(sizes)
        print_growth(measured)
        print(f"tried {sum(sizes):,}, handled {handled:,}, lost {sum(sizes) - handled:,}\n")
        rates = measure_rates(Path(folder), clips)
    print("Measured, one clip at a time; synthetic clips have no noise, real ones may take more:")
    print(rates.drop(columns="alike").round(3).to_string(index=False))
    print(f"\nEstimates from these, of one process; frames of study B are 240 pixels high, {FRAMES['ntu']} a clip:")
    print(estimate_sets(rates).round(2).to_string(index=False, na_rep="-"))
    faults = find_faults(measured)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults or handled < sum(sizes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
