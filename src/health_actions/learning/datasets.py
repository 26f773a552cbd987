"""Clips as a model is fed with them: pixels, or the features of a frozen backbone, computed once."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import tempfile
from operator import attrgetter
from pathlib import Path

import joblib
import pandas as pd
import torch
from cachetools import LRUCache, cached
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import BatchSampler, DataLoader, Dataset

from health_actions.data.frames import decode_picture, load_frames, open_clip
from health_actions.data.transforms import CentreCrop, place_frames, place_window, spread_frames
from health_actions.learning.precision import keep_memory
from health_actions.paths import atomic_write, name_failures
from health_actions.progress import track

KEPT_BYTES = 1_000_000_000  # of a process's memory for clips; the rest is read again from disk
DECODED_BYTES = 500_000_000  # the same for decoded pictures; the rest is decoded again
CLIPS_A_JOB = 4  # go through a frozen backbone in one process before progress is told


def seed_of(*numbers: int | str) -> torch.Generator:
    """A generator of its own for each (seed, epoch, clip) and the like: a resumed run draws what a whole one would."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class FrameDataset(Dataset):
    """Windows of a clip's frames.

    Args:
        frames_folder: as written by `extract_frames`, or by `extract_archives` where `stride` is given.
        clips: one row a clip, with clip and class.
        classes: all classes in order.
        size: pixels.
        window: frames of an item.
        input_transform: see `build_input_transform`.
        draw: whatever the random windows and augmentations depend on, (seed, epoch, ...); None takes the centre window.
        augmentation, probability: see `build_augmentation` and `build_crops`; the share of clips that it is applied to,
            0-1.
        mirrored: class numbers of mirrored clips; None where the augmentation leaves the class as it is.
        stride: None for study A's frames, which are squares and sampled already. Else every `stride`-th frame of an
            archive is taken, and where no augmentation crops a clip its centre is.
        windows: how many, spread evenly over a clip, to score it as a whole; 1: one alone. Needs stride.
        change: what is done to the frames before anything else: (frames (count, 3, height, width) uint8, the clip's
            name, the frames' numbers from 0 (count,)) -> frames of the same shape; None leaves them as they are.

    An item is a clip (3, window, size, size) and its class number; of more windows (windows, 3, window, size, size).
    """

    def __init__(self, frames_folder: Path, clips: pd.DataFrame, classes: list[str], *, size: int, window: int,
                 input_transform, draw: tuple | None = None, augmentation=None, probability: float = 0.0,
                 mirrored: list[int] | None = None, stride: int | None = None, windows: int = 1, change=None):
        self.clips, self.window, self.draw = list(clips["clip"]), window, draw
        self.labels = [classes.index(name) for name in clips["class"]]
        self.input_transform, self.augmentation, self.probability = input_transform, augmentation, probability
        self.mirrored, self.stride, self.windows, self.change = mirrored, stride, windows, change
        self.fit = None if stride is None else CentreCrop(size)
        self.load = functools.partial(_load_kept, Path(frames_folder), None if stride else size)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        frames, label = self.load(self.clips[index]), self.labels[index]
        generator = None if self.draw is None else seed_of(*self.draw, index)
        numbers = self._place(len(frames), generator)
        clip = torch.from_numpy(frames[numbers.flatten().numpy()]).permute(0, 3, 1, 2)
        if self.change:
            clip = self.change(clip, self.clips[index], numbers.flatten())
        if self.probability and torch.rand((), generator=generator) < self.probability:
            clip = draw_augmentation(self.augmentation, clip, generator)
            label = self.mirrored[label] if self.mirrored else label
        elif self.fit:
            clip = self.fit(clip)
        clip = self.input_transform(clip.contiguous())  # with channels side by side it takes twice as long
        return clip.unflatten(0, numbers.shape).transpose(-4, -3), label

    def _place(self, length: int, generator: torch.Generator | None) -> torch.Tensor:
        if self.stride is None:
            return place_window(length, self.window, generator) + torch.arange(self.window)
        if self.windows > 1:
            return spread_frames(length, self.window, self.stride, self.windows)
        return place_frames(length, self.window, self.stride, "random" if generator else "centre", generator)


class FeatureDataset(Dataset):
    """Windows of a clip's cached features; an item is (window, feature_width) float32 and its class number.

    Args:
        features: as of `cache_features`.
        rows: of each item, its clip's place in the cache.
        labels: of each item, its class number.
        window, draw, mirrored: as of `FrameDataset`.
        probability: share of items that are one of the augmented copies, drawn anew each epoch; 0-1.
    """

    def __init__(self, features: torch.Tensor, rows: list[int], labels: list[int], *, window: int,
                 draw: tuple | None = None, probability: float = 0.0, mirrored: list[int] | None = None):
        self.features, self.rows, self.labels = features, rows, labels
        self.window, self.draw, self.probability, self.mirrored = window, draw, probability, mirrored

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        copies, _, length, _ = self.features.shape
        generator = None if self.draw is None else seed_of(*self.draw, index)
        start, copy, label = place_window(length, self.window, generator), 0, self.labels[index]
        if self.probability and torch.rand((), generator=generator) < self.probability:
            copy = int(torch.randint(1, copies, (), generator=generator))
            label = self.mirrored[label] if self.mirrored else label
        return self.features[copy, self.rows[index], start:start + self.window].float(), label


def draw_augmentation(augmentation: nn.Module, clip: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply a torchvision transform with the randomness of one generator (it knows only the global one itself)."""
    state = torch.get_rng_state()
    try:
        # As torch.manual_seed, which takes longer than some augmentations, since it looks for GPUs.
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return augmentation(clip)
    finally:
        torch.set_rng_state(state)


def take_clips(splits: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """Every clip of a split once, with what its frames depend on: clip, class, content, length, stride."""
    return splits.drop_duplicates("clip")[["clip", "class"]].merge(
        index[["clip", "content", "length", "stride"]], on="clip")


def cache_features(model: nn.Module, frames_folder: Path, clips: pd.DataFrame, cache: Path, *, size: int,
                   input_transform, precision: str, key: str, augmentation=None, copies: int = 0, seed: int = 0,
                   device: str = "cpu") -> Path:
    """Features of every sampled frame of every clip, computed by a frozen backbone once and kept in a file.

    Args:
        model: has `encode`, and `features`, the backbone.
        clips: as of `take_clips`.
        cache: folder; the file's name is a hash of the backbone's weights, the clips, this package and all settings.
        key: what else the features depend on, such as the model's name and options.
        precision: "bf16-mixed" computes in bfloat16, anything else in float32.
        augmentation: applied in `copies` further copies of each clip.

    Returns:
        The file; see `load_features`.
    """
    backbone = hashlib.sha256()
    for tensor in model.features.state_dict().values():
        backbone.update(tensor.cpu().numpy().tobytes())
    drawn = str((str(augmentation), copies, seed)) if copies else ""
    file = Path(cache) / "features-{}.safetensors".format(hash_text(
        hash_code(), key, str(size), precision, str(input_transform), drawn,
        backbone.hexdigest(), clips[["clip", "content", "length", "stride"]].to_csv(index=False)))
    if _is_whole(file):
        return file
    plain = None
    if copies:  # the clips as they are serve every augmentation
        plain = load_features(cache_features(
            model, frames_folder, clips, cache, size=size, input_transform=input_transform, precision=precision,
            key=key, device=device))[0]
    rows = [range(start, min(start + CLIPS_A_JOB, len(clips))) for start in range(0, len(clips), CLIPS_A_JOB)]
    processes = 1 if device != "cpu" else max(1, min(joblib.effective_n_jobs(-1), len(rows)))
    result = None
    # One thread a process: two that share each convolution stall whenever another program takes one of the cores.
    with tempfile.TemporaryDirectory() as folder, joblib.parallel_config("loky", inner_max_num_threads=1):
        stored = Path(folder) / "model"
        with name_failures(stored):
            joblib.dump(model, stored)
        encoded = joblib.Parallel(processes, return_as="generator")(joblib.delayed(_encode)(
            str(stored), frames_folder, clips["clip"].iloc[part], part, size=size, input_transform=input_transform,
            precision=precision, augmentation=augmentation, copies=copies, seed=seed, device=device) for part in rows)
        with contextlib.closing(encoded):
            title = f"batches of {CLIPS_A_JOB} clips through the frozen backbone"
            for part, features in zip(rows, track(encoded, total=len(rows), title=title), strict=True):
                if result is None:
                    result = torch.empty(1 + copies, len(clips), *features.shape[2:], dtype=torch.float16)
                result[1 if copies else 0:, part.start:part.stop] = torch.from_numpy(features)
    if plain is not None:
        result[0] = plain
    with atomic_write(file) as temporary:
        save_file({"features": result}, temporary)
    return file


def _encode(stored: str, frames_folder: Path, clips, rows, *, size: int, input_transform, precision: str, augmentation,
            copies: int, seed: int, device: str):
    """Features of some clips, without or with augmentation: float16 (versions, clips, length, feature_width)."""
    keep_memory()
    if device == "cpu":
        torch.set_num_threads(1)
    encoder = _load_encoder(stored, precision, device)
    versions = []
    with torch.inference_mode():
        for number in range(1, 1 + copies) if copies else [0]:
            encoded = []
            for row, clip in zip(rows, clips, strict=True):
                frames = torch.from_numpy(load_frames(frames_folder, clip, size)).permute(0, 3, 1, 2)
                changed = draw_augmentation(augmentation, frames, seed_of(seed, number, row)) if number else frames
                clip_features = encoder.encode(input_transform(changed).transpose(0, 1)[None].to(device))
                encoded.append(clip_features[0].half().cpu())
            versions.append(torch.stack(encoded))
    return torch.stack(versions).numpy()


@functools.lru_cache(maxsize=1)
def _load_encoder(stored: str, precision: str, device: str) -> nn.Module:
    encoder = joblib.load(stored).to(device).eval()
    fold_normalisation(encoder.features)
    if precision == "bf16-mixed":
        # Not autocast: with the weights in bfloat16 once and for all, frames go through 1.7 times as fast.
        encoder.features.to(torch.bfloat16).register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
    return encoder


def fold_normalisation(network: nn.Module) -> None:
    """Take batch normalisations into the convolutions before them, in place; for evaluation, where it saves a third.

    A convolution and its normalisation have to follow each other among their parent's children, as they do in all
    backbones here; an activation that is a part of the normalisation stays.
    """
    for child in network.children():
        fold_normalisation(child)
    for (first, convolution), (second, normalisation) in itertools.pairwise(list(network.named_children())):
        if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(convolution, normalisation)
            setattr(network, first, fused.to(memory_format=torch.channels_last))
            setattr(network, second, getattr(normalisation, "act", nn.Identity()))


def load_features(file: Path) -> torch.Tensor:
    """The features in a file of `cache_features`: float16 (1 + copies, clips, length, feature_width)."""
    return load_file(file)["features"]


def hash_text(*texts: str) -> str:
    """20 hexadecimal digits that stand for some texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:20]


@functools.cache
def hash_code() -> str:
    """A hash of this package's source, so that nothing made by other code is taken up again."""
    folder = Path(__file__).parents[1]
    files = sorted(path for path in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def build_loader(dataset: Dataset, *, batch_size: int, shuffle: torch.Generator | None = None, workers: int = 0,
                 device: str = "cpu", share: tuple[int, int] = (0, 1)) -> DataLoader:
    """A loader in the given order, or in one drawn from a generator: the same however often the loader is begun.

    With `share`, (number, processes), the loader of one of several processes: of each batch every `processes`-th item
    from the `number`-th on. All take as many steps: where a last batch has none for a process, its first one stands in.
    """
    order = None if shuffle is None else torch.randperm(len(dataset), generator=shuffle).tolist()
    common = {"generator": shuffle, "num_workers": workers, "pin_memory": device != "cpu"}
    number, processes = share
    if processes == 1:
        return DataLoader(dataset, batch_size=batch_size, sampler=order, **common)
    batches = BatchSampler(order or range(len(dataset)), batch_size, drop_last=False)
    return DataLoader(dataset, batch_sampler=[batch[number::processes] or batch[:1] for batch in batches], **common)


def choose_workers(device: str) -> int:
    """Processes that decode and augment clips while a GPU computes; none on a CPU, where they would only share it."""
    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 0 if device == "cpu" else max(1, min(8, joblib.cpu_count() // on_machine))


def _is_whole(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as tensors:
            return "features" in tensors.keys()
    except (OSError, SafetensorError):
        return False


def _load_kept(folder: Path, size: int | None, clip: str):
    file = folder / f"{clip}{'.npz' if size else '.zip'}"
    return _load(folder, size, clip, file.stat().st_mtime_ns if file.exists() else 0)


@cached(LRUCache(KEPT_BYTES, attrgetter("nbytes")))
def _load(folder: Path, size: int | None, clip: str, written: int):  # written: frames extracted anew are read anew
    return load_frames(folder, clip, size) if size else open_clip(folder, clip, decode_kept)


decode_kept = cached(LRUCache(DECODED_BYTES, attrgetter("nbytes")))(decode_picture)
