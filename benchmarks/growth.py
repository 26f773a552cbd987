"""How time and memory grow with the number of clips, and what the full data sets will take.

    python benchmarks/growth.py                      # 1,000, 10,000 and 56,880 clips (all of NTU RGB+D)
    python benchmarks/growth.py --clips my_clips     # real clips (handwash/, falls/) for the estimates

Every step that sees all clips at once runs on catalogues of growing size: one small clip, linked under NTU's names, and
simulated signatures. Seconds are those of the processor, on one thread; megabytes are the peak of the process so far.
A step that grows faster than n log n, or more than 2 GB of memory, gives exit code 1.
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

import numpy as np
import pandas as pd
import typer

from health_actions.data.annotations import audit_splits, write_annotations
from health_actions.data.clips import NTU_ACTIONS, find_clips
from health_actions.data.duplicates import drop_duplicates, find_duplicates
from health_actions.data.extraction import extract_frames
from health_actions.data.frames import name_folders, read_index
from health_actions.data.splits import NTU_PROTOCOLS, PROTOCOLS, make_splits
from health_actions.progress import LOG_VARIABLE
from synthetic_clips.encode import write_video

CLASSES = [*NTU_ACTIONS.values(), *(f"A{number:03d}" for number in range(50, 61))]
TOLERANCE, MOST = 0.3, 2048  # of an exponent of growth above that of n log n; megabytes
SHORTEST = 0.2  # seconds; steps that take less at the larger size are not judged
SETS = {"handwash": {"hand wash": 711}, "ntu": {"NTU RGB+D, 9 classes": 8_500, "NTU RGB+D, all": 56_880}}
SHAPES = {"handwash": (720, 480, 130), "ntu": (1920, 1080, 90)}  # width, height, frames of a clip of the full sets
SETTINGS = {"handwash": {"height": 240, "length": 32, "stride": 4}, "ntu": {"height": 240}}  # as published


def name_clips(count: int) -> list[str]:
    """The first of NTU's 56,880 names: 60 actions, each by 158 pairs of setup and performer, 2 takes, 3 cameras."""
    names = (f"S{1 + pair // 10:03d}C{camera:03d}P{1 + pair % 40:03d}R{take:03d}A{action:03d}_rgb"
             for action in range(1, 61) for take in (1, 2) for camera in (1, 2, 3) for pair in range(158))
    return list(itertools.islice(names, count))


def draw_video(width: int, height: int, frames: int, seed: int = 0) -> np.ndarray:
    """A soft picture that moves, without noise: uint8 (frames, height, width, 3)."""
    picture = np.kron(np.random.default_rng(seed).integers(40, 216, (9, 16, 3)),
                      np.ones((height // 9 + 1, width // 16 + 1, 1)))[:height, :width].astype(np.uint8)
    return np.stack([np.roll(picture, (2 * number, 3 * number), axis=(0, 1)) for number in range(frames)])


def draw_signatures(clips: pd.DataFrame) -> np.ndarray:
    """Simulated signatures, float32 (clips, 2048): background, something before it, noise; half of them duplicates."""
    scenes, random = pd.factorize(clips["clip"].str[:8])[0], np.random.default_rng(0)
    backgrounds, signatures = random.uniform(20, 230, (scenes.max() + 1, 1, 4, 4)), []
    for number, scene in enumerate(scenes):
        if number % 2 == 0:
            shown = np.kron(backgrounds[scene] + random.uniform(0, 40, (8, 4, 4)), np.ones((1, 4, 4)))
        signatures.append((shown + random.normal(0, 0.2, shown.shape)).astype(np.float32).ravel())
    return np.stack(signatures)


def measure_steps(count: int, folder: Path) -> dict:
    """Take `count` clips through every step, in this process and an empty folder.

    Returns steps: name -> [seconds, peak megabytes so far]; handled: number of clips that came through every step.
    """
    steps, handled = {}, []

    def measure(name: str, work, *values, **options):
        times = []
        while len(times) < 3 and sum(times) < 1:  # a step that takes long is measured once
            start = time.process_time()
            result = work(*values, **options)
            times.append(time.process_time() - start)
        steps[name] = [min(times), read_peak()]
        return result

    write_video(folder / "one" / "bow" / "one.mp4", draw_video(64, 36, 16))
    one = extract_frames(folder / "one", folder / "frames", find_clips(folder / "one", CLASSES), height=36, workers=1)
    (folder / "clips").mkdir()
    for name in name_clips(count):
        os.link(folder / "one" / "bow" / "one.mp4", folder / "clips" / f"{name}.avi")
        os.link(folder / "frames" / "bow" / "one.zip", folder / "frames" / f"{name}.zip")

    catalogue = measure("catalogue", find_clips, folder / "clips", CLASSES, "ntu")
    handled.append((catalogue["reason"] == "").sum())
    facts = {**one.loc[0, one.columns.difference(catalogue.columns)], "content": catalogue["clip"]}
    catalogue.assign(**facts).to_csv(folder / "frames" / "index.csv", index=False)
    clips = measure("index", read_index, folder / "frames")
    duplicates = measure("duplicates", find_duplicates, clips, draw_signatures(clips), tolerance=0.5)
    kept = measure("drop duplicates", drop_duplicates, clips, duplicates)
    handled.append(len(kept) + duplicates["other"].nunique())
    tables = {protocol: (clips, protocol) for protocol in [*PROTOCOLS, *NTU_PROTOCOLS]}
    tables["by_performer, all unknown"] = clips.assign(recording=clips["clip"]), "by_performer"
    for name, (table, protocol) in tables.items():
        splits = measure(f"split {name}", make_splits, table, protocol=protocol, folds=5)
        handled.append(splits.loc[splits["fold"] == 1, "clip"].nunique())
    audit = measure("audit", audit_splits, splits, duplicates, CLASSES)
    handled.append(audit[["training", "validation", "testing"]].sum(axis=1).min())
    measure("annotations", write_annotations, folder / "annotations", "ntu", splits,
            dict(zip(clips["clip"], clips["length"])), CLASSES, names=name_folders(clips))
    handled.append(len(json.loads((folder / "annotations" / "ntu_01.json").read_text())["database"]))
    load_batch(folder / "frames", clips.head(8))  # imports torch
    handled.append(measure("loader, first batch", load_batch, folder / "frames", clips))
    return {"steps": steps, "handled": int(min(handled))}


def load_batch(frames: Path, clips: pd.DataFrame) -> int:
    """Build the loader of all clips and take its first batch; returns how many clips it has."""
    from health_actions.data.transforms import build_input_transform, build_spatial  # here, since torch is large
    from health_actions.learning.datasets import ClipDataset, build_loader, derive_generator

    dataset = ClipDataset(clips, frames_folder=frames, classes=CLASSES, window=8, draw=(0, 1, 1), spatial=build_spatial(
        "corner", 32)[0], input_transform=build_input_transform([0.5] * 3, [0.25] * 3))
    loader = build_loader(dataset, batch_size=8, shuffle=derive_generator(0))
    next(iter(loader))
    return len(loader.sampler)


def read_peak() -> float:
    """Most memory that this process had so far, megabytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the memory of the process that started this one, too
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_growth(sizes: list[int]) -> tuple[pd.DataFrame, int]:
    """Each size in its own process: one row a step and size (step, clips, seconds, megabytes); clips handled in all."""
    rows, handled = [], 0
    for count in sizes:
        process = subprocess.run([sys.executable, __file__, "--only", str(count)], check=True, stdout=subprocess.PIPE,
                                 env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
        result = json.loads(process.stdout)
        rows += [(step, count, *values) for step, values in result["steps"].items()]
        handled += result["handled"]
    return pd.DataFrame(rows, columns=["step", "clips", "seconds", "megabytes"]), handled


def compare_sizes(measured: pd.DataFrame) -> pd.DataFrame:
    """One row a step and pair of neighbouring sizes: step, from, to, exponent, allowed, seconds (of `to`)."""
    before = measured.groupby("step")[["clips", "seconds"]].shift()
    growth = np.log(measured["clips"] / before["clips"])
    allowed = 1 + np.log(np.log(measured["clips"]) / np.log(before["clips"])) / growth + TOLERANCE
    exponent = np.log(measured["seconds"].clip(lower=1e-9) / before["seconds"].clip(lower=1e-9)) / growth
    return pd.DataFrame({"step": measured["step"], "from": before["clips"], "to": measured["clips"],
                         "exponent": exponent, "allowed": allowed, "seconds": measured["seconds"]}).dropna()


def find_faults(measured: pd.DataFrame) -> list[str]:
    """Steps that grow too fast and sizes that take too much memory, a line each."""
    fast = compare_sizes(measured).query("seconds >= @SHORTEST and exponent > allowed").to_dict("records")
    large = measured.query("megabytes > @MOST").drop_duplicates("clips").to_dict("records")
    return [*("{step}: from {from:,.0f} to {to:,} clips its time grows with exponent {exponent:.2f}, at most "
              "{allowed:.2f} is n log n".format(**row) for row in fast),
            *("{step}: {megabytes:,.0f} MB at {clips:,} clips, at most {0:,} MB".format(MOST, **row) for row in large)]


def estimate_sets(folder: Path, clips: Path | None) -> pd.DataFrame:
    """What the full sets take in one process, estimated from synthetic clips of their size and from real ones, if any.

    Returns set, measured on, extraction (hours; missing for the falls, smaller than NTU's clips), frames (GB).
    """
    kinds = [(study, "synthetic", folder / study) for study in SETS]
    for (study, _, source), number in itertools.product(kinds, range(3)):
        write_video(source / "bow" / f"{number}.mp4", draw_video(*SHAPES[study], number), preset="ultrafast")
    real = [("handwash", "hand wash", "handwash"), ("ntu", "falls", "falls")] if clips else []
    rows, kinds = [], [*kinds, *((study, kind, clips / name) for study, kind, name in real if (clips / name).is_dir())]
    for study, kind, source in kinds:
        found = find_clips(source, [path.name for path in source.iterdir() if path.is_dir()])
        output, start = folder / f"{study} {kind}", time.perf_counter()
        index = extract_frames(source, output, found, workers=1, **SETTINGS[study]).query("status == 'ok'")
        hours = math.nan if kind == "falls" else (time.perf_counter() - start) / 3600
        size = sum(file.stat().st_size for file in output.rglob("*.zip")) / 1e9
        longer = SHAPES["ntu"][2] / index["frames"].mean() if study == "ntu" else 1  # study A keeps 32 of any clip
        rows += [(name, kind, *(count / len(index) * longer * value for value in (hours, size)))
                 for name, count in SETS[study].items()]
    return pd.DataFrame(rows, columns=["set", "measured on", "extraction (h)", "frames (GB)"])


def main(sizes: Annotated[list[int] | None, typer.Option("--size", help="Numbers of clips, each at least 200.")] = None,
         clips: Annotated[Path | None, typer.Option(help="Folder of real clips: handwash/, falls/.")] = None,
         only: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Measure how time and memory grow with the number of clips; estimate what the full sets will take."""
    os.environ.setdefault(LOG_VARIABLE, os.devnull)  # no progress bars
    with tempfile.TemporaryDirectory() as folder:
        if only:
            print(json.dumps(measure_steps(only, Path(folder))))
            return
        sizes = sorted(sizes or [1_000, 10_000, 56_880])
        measured, handled = measure_growth(sizes)
        print(measured.pivot(index="step", columns="clips").round(2).to_string())
        print(compare_sizes(measured).query("seconds >= @SHORTEST").round(2).to_string(index=False))
        print(f"tried {sum(sizes):,}, handled {handled:,}, lost {sum(sizes) - handled:,}\n")
        print("Estimates of one process; synthetic clips have no noise, real ones may take more:")
        print(estimate_sets(Path(folder), clips).round(2).to_string(index=False, na_rep="-"))
    faults = find_faults(measured)
    print("\n".join(faults), file=sys.stderr)
    if faults or handled < sum(sizes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
