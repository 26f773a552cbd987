"""How fast study B's work is and how much memory it takes, beside the plain way of `benchmarks.plain`, in one run.

`python -m benchmarks.bench` from the project's root; build/benchmarks/bench.csv gets the table. Each side of a row has
a process of its own, and both take turns, so that other work on the machine affects both; the first turn is a warm-up,
the median of the others counts.
"""

import itertools
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import av
import joblib
import numpy as np
import pandas as pd
import psutil
import torch
import typer

from benchmarks import plain, sides
from benchmarks.sides import PARTS, Setting
from health_actions.data.extraction import extract_frames
from health_actions.data.video import SUFFIXES
from health_actions.learning.recipe import Recipe
from health_actions.paths import at_root, atomic_write, read_yaml
from health_actions.progress import LOG_VARIABLE, log_message

NETWORKS = ["c3d", "resnet18", "resnet50", "resnet101", "resnext101", "mobilenetv2", "shufflenetv2", "squeezenet"]
TRANSFORMING = "transforms alone"  # of loading
# Least ratios: extraction, of decoding alone; the others, times as fast as the plain way.
GOALS = {"extraction": 0.8, "loading": 5.0, "training step": 3.5, "one network": 2.0}
NO_SLOWER = 1.0
LARGE = (1920, 1080)  # pixels of NTU RGB+D's own clips
LARGE_FRAMES, LARGE_CLIPS = 30, 4


@dataclass(frozen=True)
class Comparison:
    """Ways to do the same. Each is prepared once, and then takes its turns."""

    what: str  # name of the row
    unit: str  # "frames/s" or "clips/s" (more is better), or "ms per clip"
    sides: dict[str, Callable[[], sides.Turn]]  # "plain", "ours", what else ours is compared with -> prepares turns
    targets: dict[str, float]  # side -> least ratio of its time to ours
    turns: int  # of each side that count


def choose_videos(folder: Path, count: int, output: Path) -> None:
    """Link `count` of the videos in a folder, spread evenly over their names, to another.

    Raises:
        FileNotFoundError: when there is none.
    """
    folder = Path(folder).resolve()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"no videos in {folder}: name a folder that has some (--folder), or run make clips")
    for number in np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int):
        link = output / found[number].relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(found[number])


def enlarge_videos(paths: list[Path], output: Path, size: tuple[int, int] = LARGE) -> None:
    """Write the first frames of videos as large ones with a camera's noise, coded as NTU's are (MPEG-4)."""
    output.mkdir()
    noise = np.random.default_rng(0).normal(0, 4, (size[1], size[0], 1)).astype(np.int16)
    for path in paths:
        with av.open(str(path)) as video, av.open(str(output / f"{path.stem}.avi"), "w") as large:
            stream = large.add_stream("mpeg4", rate=30, bit_rate=10_000_000)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for number, frame in enumerate(itertools.islice(video.decode(video=0), LARGE_FRAMES)):
                pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1]) + np.roll(noise, 7 * number, 0)
                pixels = np.clip(pixels, 0, 255).astype(np.uint8)
                large.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            large.mux(stream.encode())


def list_comparisons(setting: Setting, large: Setting, steps: int, networks: list[str]) -> list[Comparison]:
    """All that can be measured."""
    found = []
    for where, chosen in (("", setting), (f", {LARGE[0]} x {LARGE[1]} pixels", large)):
        parts = {f"{part} alone": partial(sides.decode, chosen, part) for part in PARTS}
        ways = {"plain": partial(sides.extract_plainly, chosen), "ours": partial(sides.extract_ours, chosen), **parts}
        found.append(Comparison(f"extraction{where}", "frames/s", ways, {
            "plain": NO_SLOWER, "decoding alone": GOALS["extraction"]}, steps))

    def add(what: str, unit: str, plainly, ours, *names: str, target: float = NO_SLOWER, **more) -> None:
        ways = {"plain": partial(plainly, setting, *names), "ours": partial(ours, setting, *names), **more}
        found.append(Comparison(", ".join([what, *names]), unit, ways, {"plain": target}, steps))

    add("loading of training clips, first epochs", "clips/s", sides.load_plainly, partial(sides.load_ours, first=True))
    add("loading of training clips, later epochs", "clips/s", sides.load_plainly, partial(sides.load_ours, first=False),
        target=GOALS["loading"], **{TRANSFORMING: partial(sides.transform_clips, setting)})
    for name in networks:
        add("training step", "ms per clip", sides.train_plainly, sides.train_ours, name, target=GOALS["one network"])
    for name in networks:
        add("inference", "ms per clip", sides.predict_plainly, sides.predict_ours, name)
    add("epoch with validation", "clips/s", sides.run_epoch_plainly, sides.run_epoch_ours,
        "resnet18" if "resnet18" in networks else networks[0])
    return found


class MemoryWatch(threading.Thread):
    """Follows the memory of this process and of those that it starts; `peak` is the most they had together, MB."""

    peak = 0.0

    def run(self) -> None:
        """Look every 20 ms until the process ends."""
        own = psutil.Process()
        while True:
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
            self.peak = max(self.peak, total / 2**20)
            time.sleep(0.02)


def work(connection: Connection, prepare: Callable[[], sides.Turn]) -> None:
    """In a process: a turn for each True that arrives; sends seconds and count, and at False the peak memory in MB."""
    os.environ[LOG_VARIABLE] = os.devnull
    take_turn, watch = prepare(), MemoryWatch(daemon=True)
    watch.start()
    while connection.recv():
        started = time.perf_counter()
        count = take_turn()
        connection.send((time.perf_counter() - started, count))
    connection.send(watch.peak)


def compare(comparison: Comparison) -> dict[str, tuple[float, float]]:
    """Let the sides of a comparison take turns.

    Returns:
        side -> median seconds of a frame or clip, and peak MB.

    Raises:
        RuntimeError: when a side ends early, or not all did the same number of frames or clips.
    """
    context, processes = multiprocessing.get_context("spawn"), {}
    taken, counts, peaks = {side: [] for side in comparison.sides}, {}, {}
    for side, prepare in comparison.sides.items():
        connection, other = context.Pipe()
        process = context.Process(target=work, args=(other, prepare))
        process.start()
        other.close()
        processes[side] = process, connection
    try:
        for _ in range(1 + comparison.turns):
            for side, (_, connection) in processes.items():
                connection.send(True)
                seconds, counts[side] = connection.recv()
                taken[side].append(seconds / counts[side])
        for side, (process, connection) in processes.items():
            connection.send(False)
            peaks[side] = connection.recv()
            process.join(60)
    except (EOFError, OSError):
        raise RuntimeError(f"{comparison.what}: {side} ended early; its error stands above") from None
    finally:
        for process, connection in processes.values():
            process.kill()
            process.join()
            connection.close()
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"{comparison.what}: the sides did not do the same number of frames or clips: {counts}")
    return {side: (statistics.median(taken[side][1:]), peaks[side]) for side in taken}


def tabulate(measured: list[tuple[Comparison, dict]]) -> pd.DataFrame:
    """What was measured, and what follows from it.

    Returns:
        what, unit, plain (or what the row's name says ours is against), ours, ratio (how many times as fast, or as
        small, ours is), target (least ratio) and met.
    """
    rows, peaks = [], []
    for comparison, results in measured:
        ours, our_peak = results["ours"]
        show = (lambda seconds: 1000 * seconds) if comparison.unit == "ms per clip" else (lambda seconds: 1 / seconds)
        for side, (seconds, peak) in results.items():
            name = comparison.what if side == "plain" else f"{comparison.what}, against {side}"
            if side != "ours":
                rows.append((name, comparison.unit, show(seconds), show(ours), seconds / ours,
                             comparison.targets.get(side)))
            if side == "plain":
                peaks.append((f"peak memory, {name}", "MB", peak, our_peak, peak / our_peak, None))
    for kind, target in (("training step", GOALS["training step"]), ("inference", None)):
        ratios = [ratio for what, _, _, _, ratio, _ in rows if what.startswith(kind)]
        if len(ratios) > 1:
            rows.append((f"{kind}, geometric mean of {len(ratios)}", "", None, None,
                         statistics.geometric_mean(ratios), target))
    table = pd.DataFrame(rows + peaks, columns=["what", "unit", "plain", "ours", "ratio", "target"]).astype(
        dict.fromkeys(["plain", "ours", "target"], float))
    met = np.where(table["ratio"].round(2) >= table["target"], "yes", "no")
    return table.assign(met=np.where(table["target"].isna(), "", met))


def explain(table: pd.DataFrame) -> list[str]:
    """For each target that is missed, a sentence: what the limit is, as measured in the same run."""
    rows, said = table.set_index("what"), []
    for what, row in rows[rows["met"] == "no"].iterrows():
        whole, _, against = what.partition(", against ")
        limit = {"extraction": f"{whole}, against {PARTS[2]} alone", "loading of": f"{whole}, against {TRANSFORMING}"}
        name = next((name for start, name in limit.items() if what.startswith(start) and name in rows.index), None)
        if name is None:
            why = "no part of it was measured alone"
        else:
            best = row["ratio"] / rows.loc[name, "ratio"]
            why = f"{name.partition(', against ')[2]} reaches {best:.2f}, ours {rows.loc[name, 'ratio']:.2f} of that"
        said.append(f"missed: {what}: {row['ratio']:.2f} instead of {row['target']:g}; {why}")
    return said


def describe_machine() -> str:
    """Processor, cores, versions, and whether it computes in bfloat16, in a line."""
    able = torch.cpu.get_capabilities()
    bfloat16 = [name for name in ("avx512_bf16", "amx_bf16") if able.get(name)]
    return (f"{able.get('cpu_name', 'processor unknown')}, {joblib.cpu_count()} cores, torch {torch.__version__} on "
            f"{torch.get_num_threads()} threads, bfloat16: {' and '.join(bfloat16) or 'none'}, "
            f"load before the run {os.getloadavg()[0]:.1f}")


def read_published() -> Recipe:
    """The published profile's recipe of study B, in batches of 8 and with the channels in the plain way's order."""
    values = read_yaml(at_root("params.yaml"))["published"]["ntu"]["training"]
    known = {entry.name for entry in fields(Recipe)}
    return Recipe(**{name: value for name, value in values.items() if name in known} | {
        "architecture": "resnet18", "batch_size": 8, "colour": "rgb"})


def run(folder: Path, work_folder: Path, *, clips: int, steps: int, only: list[str], recipe: Recipe,
        networks: list[str] = NETWORKS, height: int = 240) -> pd.DataFrame:
    """Measure all rows, or those whose name contains one of `only`; see `tabulate`.

    Raises:
        ValueError: when no row is called so.
        FileNotFoundError: when there are no videos.
    """
    setting = Setting(work_folder / "videos", work_folder, recipe, height)
    large = replace(setting, videos=work_folder / "large")
    chosen = [comparison for comparison in list_comparisons(setting, large, steps, networks)
              if not only or any(part in comparison.what for part in only)]
    if not chosen:
        raise ValueError(f"no row is called {' or '.join(only)}; there are extraction, loading, training step, "
                         f"inference and epoch, the last three with {', '.join(networks)}")
    choose_videos(folder, clips, setting.videos)
    if any(f"{LARGE[0]} x" in comparison.what for comparison in chosen):
        enlarge_videos(setting.paths[:LARGE_CLIPS], large.videos)
    if any(comparison.what.startswith(("loading", "epoch")) for comparison in chosen):
        plain.extract(setting.paths, work_folder / "folders", height=height)
        extract_frames(setting.videos, work_folder / "archives", setting.catalogue, height=height)
    measured = []
    for number, comparison in enumerate(chosen, start=1):
        measured.append((comparison, compare(comparison)))
        for row in tabulate(measured[-1:]).itertuples():
            log_message(f"{number} of {len(chosen)}: {row.what}: {row.plain:.4g} | {row.ours:.4g} {row.unit}, "
                        f"ratio {row.ratio:.2f}")
    return tabulate(measured)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    clips: Annotated[int, typer.Option(min=3, help="videos")] = 24,
    steps: Annotated[int, typer.Option(min=1, help="turns of each network that count")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="rows whose name contains this; can be repeated")] = None,
    folder: Annotated[Path, typer.Option(help="of the videos")] = Path("data/ntu"),
) -> None:
    """Measure study B's work beside the plain way, and write build/benchmarks/bench.csv."""
    output = at_root("build/benchmarks")
    output.mkdir(parents=True, exist_ok=True)
    machine, started = describe_machine(), time.monotonic()
    log_message(machine)
    work_folder = Path(tempfile.mkdtemp(dir=output))
    try:
        table = run(at_root(folder), work_folder, clips=clips, steps=steps, only=only or [], recipe=read_published())
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    finally:
        shutil.rmtree(work_folder, ignore_errors=True)
    with atomic_write(output / "bench.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g")
    print(f"{machine}\n{table.to_string(index=False, na_rep='', float_format='{:.4g}'.format)}",
          *explain(table), sep="\n")
    print(f"ratio: plain time / our time, or memory; {time.monotonic() - started:.0f} seconds in all")


if __name__ == "__main__":
    from benchmarks.bench import app  # processes find what they are sent by the module's own name

    app()
