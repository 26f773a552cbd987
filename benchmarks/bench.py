"""How fast study B's work is and how much memory it takes, beside the plain way of `benchmarks.plain`, in one run.

`python -m benchmarks.bench` from the project's root; build/benchmarks/bench.csv gets the table. Each side of a row has
a process of its own, and both take turns, so that whatever else the machine does meets both; the first turn is a
warm-up, the median of the others counts.
"""

import io
import itertools
import os
import pickle
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

import av
import joblib
import numpy as np
import pandas as pd
import torch
import typer
import yaml
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks import plain
from health_actions.data.clips import NTU_ACTIONS, find_clips
from health_actions.data.extraction import extract_archives
from health_actions.data.transforms import build_input_transform, build_spatial
from health_actions.data.video import SUFFIXES, stream_frames
from health_actions.learning.classifier import Classifier, fit
from health_actions.learning.datasets import FrameDataset, build_loader, decode_kept, seed_of
from health_actions.learning.precision import autocast, choose_precision, keep_memory, prepare_training
from health_actions.learning.recipe import Recipe
from health_actions.models import build_model
from health_actions.paths import at_root, atomic_write, find_root
from health_actions.progress import LOG_VARIABLE, log_message

NETWORKS = ["c3d", "resnet18", "resnet50", "resnet101", "resnext101", "mobilenetv2", "shufflenetv2", "squeezenet"]
CLASSES = 9
PARTS = ["decoding", "decoding and conversion", "decoding, conversion and JPEG"]  # of an extraction
TRANSFORMING = "transforms alone"  # of loading
GOALS = {"extraction": 0.8, "loading": 5.0, "training": 3.0}  # of decoding alone; times the plain way
NO_SLOWER = 1.0
LARGE = (1920, 1080)  # pixels of NTU RGB+D's own clips
LARGE_FRAMES, LARGE_CLIPS = 30, 4
WIDTH = 427  # of a picture of 240 pixels' height, as most clips are
EPOCHS_BEFORE = 6  # have seen nearly all pictures
EPOCHS_A_TURN = 5  # of loading: one alone is over before the processor's caches hold what it works on


@dataclass(frozen=True)
class Setting:
    """What is measured: clips, and the protocol of study B.

    Args:
        videos: folder of the clips.
        work: folder that everything is written to.
        values: of `Recipe`, as of the published profile.
        height, quality: of the extracted pictures, see `extract_archives`.
    """

    videos: Path
    work: Path
    values: dict
    height: int = 240
    quality: int = 90

    @cached_property
    def catalogue(self) -> pd.DataFrame:
        """The clips as `find_clips` lists them; those whose names tell no action are of their folder's."""
        return find_clips(self.videos, self.classes, "ntu")

    @property
    def classes(self) -> list[str]:
        """NTU's, and the names of folders."""
        return [*NTU_ACTIONS.values(), *sorted(path.name for path in self.videos.iterdir() if path.is_dir())]

    @property
    def paths(self) -> list[Path]:
        """The clips' files."""
        return sorted(path for path in self.videos.rglob("*") if path.suffix.lower() in SUFFIXES)

    def recipe(self, name: str) -> Recipe:
        """The recipe of a network."""
        return Recipe(architecture=name, **self.values)


@dataclass(frozen=True)
class Comparison:
    """Ways to do the same. Each is prepared once, and then done again and again.

    Args:
        what: name of the row.
        unit: "frames/s" or "clips/s" (more is better), or "ms per clip".
        sides: "plain", "ours" and what else ours is compared with -> gives what is done in a turn, a function that
            returns how many frames or clips it did.
        targets: side -> least ratio of its time to ours.
        turns: of each side that count.
    """

    what: str
    unit: str
    sides: dict[str, partial]
    targets: dict[str, float]
    turns: int


def extract_plainly(setting: Setting):
    """Every frame as a picture, the plain way."""
    outputs = _number_folders(setting, "plain_extraction")
    return lambda: plain.extract(setting.paths, next(outputs), height=setting.height, quality=setting.quality)


def extract_ours(setting: Setting):
    """Every frame as a picture in its clip's archive, with all cores."""
    outputs = _number_folders(setting, "extraction")
    return lambda: int(extract_archives(setting.videos, next(outputs), setting.classes, height=setting.height,
                                        quality=setting.quality)["length"].sum())


def decode(setting: Setting, part: str):
    """A part of the extraction alone, in as many processes as there are cores; see `decode_video`."""
    jobs = [joblib.delayed(decode_video)(path, part, setting.height, setting.quality) for path in setting.paths]
    return lambda: sum(joblib.Parallel(-1)(jobs))


def decode_video(path: Path, part: str, height: int, quality: int) -> int:
    """Go through all frames of a video; returns how many there are.

    `part` is one of `PARTS`. Decoding: packets are read and decoded, on one thread, since each core has a process, and
    what comes out is dropped. Conversion: frames are also scaled and converted to RGB; then to JPEG, in memory.
    """
    if part == PARTS[0]:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            return sum(1 for _ in container.decode(video=0))
    count = 0
    for frame in stream_frames(path, height):
        count += 1
        if part == PARTS[2]:
            Image.fromarray(frame).save(io.BytesIO(), "JPEG", quality=quality)
    return count


def build_plain_loader(setting: Setting, clips: pd.DataFrame, *, training: bool) -> DataLoader:
    """Batches of clips from folders of pictures."""
    values, classes = setting.values, sorted(set(setting.catalogue["class"]))
    folders = [setting.work / "folders" / Path(path).stem for path in clips["path"]]
    dataset = plain.ClipFolders(folders, [classes.index(label) for label in clips["class"]], training=training,
                                **{name: values[name] for name in ("size", "window", "stride", "mean", "std")})
    return DataLoader(dataset, values["batch_size"], shuffle=training)


def build_our_loader(setting: Setting, clips: pd.DataFrame, epoch: int, *, training: bool) -> DataLoader:
    """Batches of clips from archives, as `health_actions.learning.training` makes them."""
    values, classes = setting.values, sorted(set(setting.catalogue["class"]))
    crops = build_spatial("corner", values["size"], flip=values["flip"], middle_square=values["middle_square"])
    dataset = FrameDataset(
        setting.work / "archives", clips, classes, size=values["size"], window=values["window"],
        stride=values["stride"], input_transform=build_input_transform(values["mean"], values["std"]),
        augmentation=crops[0], probability=float(training), draw=(0, 0, epoch) if training else None)
    return build_loader(dataset, batch_size=values["batch_size"], shuffle=seed_of(0, 0, epoch) if training else None)


def load_plainly(setting: Setting):
    """Training clips with their transforms, the plain way."""
    random.seed(0)
    loader = build_plain_loader(setting, setting.catalogue, training=True)
    return lambda: sum(len(clips) for _ in range(EPOCHS_A_TURN) for clips, _ in loader)


def load_ours(setting: Setting, *, first: bool):
    """Training clips with their transforms, ours; always new epochs, first ones or those after many."""
    prepare_training()
    clips, epochs = setting.catalogue, itertools.count()

    def load() -> int:
        if first:
            decode_kept.cache_clear()
        return sum(len(items) for items, _ in build_our_loader(setting, clips, next(epochs), training=True))

    for _ in range(0 if first else EPOCHS_BEFORE):
        load()
    return lambda: sum(load() for _ in range(EPOCHS_A_TURN))


def transform_clips(setting: Setting):
    """Of loading, what no loader of ours can save: decoded frames put together, torchvision's transforms, batches."""
    prepare_training()
    values, clips = setting.values, EPOCHS_A_TURN * len(setting.catalogue)
    pictures = list(np.random.default_rng(0).integers(256, size=(values["window"], setting.height, WIDTH, 3),
                                                      dtype=np.uint8))
    crop = build_spatial("corner", values["size"], flip=values["flip"], middle_square=values["middle_square"])[0]
    normalise = build_input_transform(values["mean"], values["std"])

    def transform() -> torch.Tensor:
        clip = normalise(crop(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)).contiguous())
        return clip.transpose(0, 1)

    def transform_all() -> int:
        for start in range(0, clips, values["batch_size"]):
            torch.stack([transform() for _ in range(min(values["batch_size"], clips - start))])
        return clips

    return transform_all


def make_batch(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Random clips and labels of one step."""
    size, generator = setting.values["size"], torch.Generator().manual_seed(0)
    clips = torch.randn(setting.values["batch_size"], 3, setting.values["window"], size, size, generator=generator)
    return clips, torch.randint(CLASSES, (len(clips),), generator=generator)


def make_network(setting: Setting, name: str, build=build_model, classes: int = CLASSES) -> torch.nn.Module:
    """A network with the same first weights at each call."""
    torch.manual_seed(0)
    return build(name, num_classes=classes, frames=setting.values["window"], size=setting.values["size"])


def train_plainly(setting: Setting, name: str):
    """A training step, the plain way."""
    network, batch = make_network(setting, name, build_model), make_batch(setting)
    optimizer = _build_plain_optimizer(setting, network)
    return lambda: len(batch[0]) * len(list(plain.train(network, optimizer, [batch])))


def train_ours(setting: Setting, name: str):
    """A training step, ours: what Lightning does of it."""
    prepare_training()  # as train_fold does
    network, batch = make_network(setting, name).train(), make_batch(setting)
    classifier = _build_classifier(setting, network, name)
    precision = choose_precision("auto", "cpu", network)
    [optimizer], _ = classifier.configure_optimizers()
    classifier.on_train_epoch_start()

    def step() -> int:
        optimizer.zero_grad()
        with autocast(precision):
            loss = classifier.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        return len(batch[0])

    return step


def predict_plainly(setting: Setting, name: str):
    """A batch's logits, the plain way."""
    network, batch = make_network(setting, name, build_model), make_batch(setting)
    return lambda: len(plain.predict(network, [batch]))


def predict_ours(setting: Setting, name: str):
    """A batch's logits, as `predict_clips` computes them."""
    keep_memory()
    network, (clips, _) = make_network(setting, name).eval(), make_batch(setting)
    precision = choose_precision("auto", "cpu", network)

    def predict() -> int:
        with torch.inference_mode(), autocast(precision):
            return len(network(clips).double())

    return predict


def run_epoch_plainly(setting: Setting, name: str):
    """One epoch from pictures to validation, the plain way."""
    training, validation = split_clips(setting)
    network = make_network(setting, name, build_model, setting.catalogue["class"].nunique())
    optimizer = _build_plain_optimizer(setting, network)

    def run() -> int:
        list(plain.train(network, optimizer, build_plain_loader(setting, training, training=True)))
        plain.predict(network, build_plain_loader(setting, validation, training=False))
        return len(training) + len(validation)

    return run


def run_epoch_ours(setting: Setting, name: str):
    """One epoch from archives to validation with Lightning, its checkpoint included."""
    prepare_training()
    (training, validation), folders = split_clips(setting), _number_folders(setting, "checkpoints")
    network = make_network(setting, name, classes=setting.catalogue["class"].nunique())
    precision = choose_precision("auto", "cpu", network)

    def run() -> int:
        classifier = _build_classifier(
            setting, network, name,
            make_training_loader=lambda epoch: build_our_loader(setting, training, epoch, training=True),
            make_choosing_loader=lambda epoch: build_our_loader(setting, validation, epoch, training=False))
        fit(classifier, folder=next(folders), epochs=1, device="cpu", accelerator="cpu",
            precision=precision)
        return len(training) + len(validation)

    return run


def split_clips(setting: Setting) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two thirds of the clips to train on, one third to validate."""
    clips = setting.catalogue
    last = np.arange(len(clips)) % 3 == 2
    return clips[~last], clips[last]


def _build_classifier(setting: Setting, network: torch.nn.Module, name: str, make_training_loader=None,
                      make_choosing_loader=None) -> Classifier:
    return Classifier(network, setting.recipe(name), from_features=False, make_training_loader=make_training_loader,
                      make_choosing_loader=make_choosing_loader, seed=0, title=name)


def _build_plain_optimizer(setting: Setting, network: torch.nn.Module) -> torch.optim.Optimizer:
    return plain.build_plain_optimizer(network, **{name: setting.values[name] for name in (
        "learning_rate", "momentum", "weight_decay")})


def _number_folders(setting: Setting, name: str):
    """A new folder for each turn: nothing that is there already saves work."""
    return (setting.work / name / f"{os.getpid()}_{number}" for number in itertools.count())


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
        parts = {f"{part} alone": partial(decode, chosen, part) for part in PARTS}
        sides = {"plain": partial(extract_plainly, chosen), "ours": partial(extract_ours, chosen), **parts}
        found.append(Comparison(f"extraction{where}", "frames/s", sides, {
            "plain": NO_SLOWER, "decoding alone": GOALS["extraction"]}, steps))

    def add(what: str, unit: str, plainly, ours, *names: str, target: float = NO_SLOWER) -> None:
        sides = {"plain": partial(plainly, setting, *names), "ours": partial(ours, setting, *names)}
        found.append(Comparison(", ".join([what, *names]), unit, sides, {"plain": target}, steps))

    for epoch, first, target in (("first", True, NO_SLOWER), ("later", False, GOALS["loading"])):
        add(f"loading of training clips, {epoch} epochs", "clips/s", load_plainly, partial(load_ours, first=first),
            target=target)
    found[-1].sides[TRANSFORMING] = partial(transform_clips, setting)
    for name in networks:
        add("training step", "ms per clip", train_plainly, train_ours, name)
    for name in networks:
        add("inference", "ms per clip", predict_plainly, predict_ours, name)
    add("epoch with validation", "clips/s", run_epoch_plainly, run_epoch_ours,
        "resnet18" if "resnet18" in networks else networks[0])
    return found


def read_peak(process: int | str = "self") -> float:
    """The most memory that a process had so far, MB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def work() -> None:
    """In a process: do what arrives, then a turn for each True; answers seconds and count, and in the end peak MB.

    The peak is the process's and that of processes it has started, together.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed is no answer
    os.environ[LOG_VARIABLE] = os.devnull
    do = pickle.load(sys.stdin.buffer)()
    while pickle.load(sys.stdin.buffer):
        started = time.perf_counter()
        count = do()
        _send(answers, (time.perf_counter() - started, count))
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    _send(answers, sum(map(read_peak, ["self", *(children.read_text().split() if children.exists() else [])])))


def _send(pipe, item) -> None:
    pickle.dump(item, pipe)
    pipe.flush()


def compare(comparison: Comparison) -> dict[str, tuple[float, float]]:
    """Let the sides of a comparison take turns.

    Returns:
        side -> median seconds of a frame or clip, and peak MB.

    Raises:
        RuntimeError: when a side ends early, or not all did the same number of frames or clips.
    """
    taken, counts, peaks, processes = {side: [] for side in comparison.sides}, {}, {}, {}
    for side, prepare in comparison.sides.items():
        processes[side] = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.bench import work; work()"], cwd=find_root(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        _send(processes[side].stdin, prepare)
    try:
        for _ in range(1 + comparison.turns):
            for side, process in processes.items():
                _send(process.stdin, True)
                seconds, counts[side] = pickle.load(process.stdout)
                taken[side].append(seconds / counts[side])
        for side, process in processes.items():
            _send(process.stdin, False)
            peaks[side] = pickle.load(process.stdout)
            process.wait(60)
    except (EOFError, BrokenPipeError):
        raise RuntimeError(f"{comparison.what}: {side} ended early; its error stands above") from None
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
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
    for kind, target in (("training step", GOALS["training"]), ("inference", None)):
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


def read_values() -> dict:
    """The published profile's values of `Recipe` for study B, in batches of 8."""
    values = dict(yaml.safe_load(at_root("params.yaml").read_text(encoding="utf-8"))["published"]["ntu"]["train"])
    for name in ("accelerator", "devices", "num_nodes", "compile"):
        values.pop(name)
    return {**values, "epochs": 1, "batch_size": 8, "colour": "rgb"}


def run(folder: Path, work_folder: Path, *, clips: int, steps: int, only: list[str], values: dict,
        networks: list[str] = NETWORKS, height: int = 240) -> pd.DataFrame:
    """Measure all rows, or those whose name contains one of `only`; see `tabulate`.

    Raises:
        ValueError: when no row is called so.
        FileNotFoundError: when there are no videos.
    """
    setting = Setting(work_folder / "videos", work_folder, values, height)
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
        extract_archives(setting.videos, work_folder / "archives", setting.classes, height=height)
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
        table = run(at_root(folder), work_folder, clips=clips, steps=steps, only=only or [], values=read_values())
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
