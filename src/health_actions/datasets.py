"""Clips as a model is fed with them: pixels, or the features of a frozen backbone, computed once."""

import functools
import hashlib
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

from health_actions.frames import load_frames
from health_actions.paths import replacing
from health_actions.progress import track
from health_actions.transforms import place_window

KEPT_BYTES = 1_000_000_000  # of decoded frames in memory; the rest is read again from disk


def seed_of(*numbers: int) -> torch.Generator:
    """A generator of its own for each (seed, epoch, clip), so that a resumed run draws what an unbroken one would."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class FrameDataset(Dataset):
    """Windows of a clip's frames.

    Args:
        frames_folder: as written by `extract_frames`.
        clips: one row a clip, with clip and class.
        classes: all classes in order.
        size: pixels.
        window: frames of an item.
        input_transform: see `build_input_transform`.
        augmentation: see `build_augmentation`; None for validation and test.
        draw: (seed, epoch) of the random windows and augmentations; None takes the centre window.

    An item is a clip (3, window, size, size) and its class number.
    """

    def __init__(self, frames_folder: Path, clips: pd.DataFrame, classes: list[str], *, size: int, window: int,
                 input_transform, augmentation=None, draw: tuple[int, int] | None = None):
        self.clips, self.window, self.draw = list(clips["clip"]), window, draw
        self.labels = [classes.index(name) for name in clips["class"]]
        self.input_transform, self.augmentation = input_transform, augmentation
        self.load = functools.partial(_load_kept, Path(frames_folder), size)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        frames = torch.from_numpy(self.load(self.clips[index]))
        generator = None if self.draw is None else seed_of(*self.draw, index)
        start = place_window(len(frames), self.window, generator)
        clip = frames[start:start + self.window].permute(0, 3, 1, 2)
        if self.augmentation is not None and generator is not None:
            clip = draw_augmentation(self.augmentation, clip, generator)
        return self.input_transform(clip).transpose(0, 1), self.labels[index]


class FeatureDataset(Dataset):
    """Windows of a clip's cached features; an item is (window, feature_width) float32 and its class number.

    With more than one copy in the cache, a training item is the untouched copy with 1 - `probability` and any of the
    augmented copies else, drawn anew each epoch.
    """

    def __init__(self, features: torch.Tensor, rows: list[int], labels: list[int], *, window: int,
                 probability: float = 0.0, draw: tuple[int, int] | None = None):
        self.features, self.rows, self.labels = features, rows, labels
        self.window, self.probability, self.draw = window, probability, draw

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        copies, _, length, _ = self.features.shape
        generator = None if self.draw is None else seed_of(*self.draw, index)
        start, copy = place_window(length, self.window, generator), 0
        if generator is not None and copies > 1 and torch.rand((), generator=generator) < self.probability:
            copy = int(torch.randint(1, copies, (), generator=generator))
        return self.features[copy, self.rows[index], start:start + self.window].float(), self.labels[index]


def draw_augmentation(augmentation: nn.Module, clip: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply a torchvision transform with the randomness of one generator (it knows only the global one itself)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return augmentation(clip)


def cache_features(model: nn.Module, frames_folder: Path, clips: pd.DataFrame, cache: Path, *, size: int,
                   input_transform, augmentation=None, copies: int = 0, seed: int = 0, key: str = "",
                   device: str = "cpu") -> torch.Tensor:
    """Features of every sampled frame of every clip, computed by a frozen backbone once and kept in `cache`.

    Args:
        model: has `encode` and `features`.
        clips: one row a clip, with clip and content.
        cache: folder; the file's name is a hash of the backbone's weights, the clips and all settings.
        augmentation: applied (with certainty) in `copies` further copies of each clip.
        key: whatever else the features depend on, such as the version of the code.

    Returns:
        float16 (1 + copies, clips, length, feature_width).
    """
    hashed = hashlib.sha256(repr((key, size, str(input_transform), str(augmentation), copies, seed)).encode())
    for tensor in model.features.state_dict().values():
        hashed.update(tensor.cpu().numpy().tobytes())
    for row in clips[["clip", "content", "length", "stride"]].itertuples(index=False):
        hashed.update(f"{tuple(row)}\n".encode())
    file = Path(cache) / f"features-{hashed.hexdigest()[:20]}.safetensors"
    if not _is_whole(file):
        was_training, model = model.training, model.to(device).eval()
        result = None
        with torch.inference_mode():
            seen = track(clips["clip"], total=len(clips), title="clips through the frozen backbone")
            for row, clip in enumerate(seen):
                frames = torch.from_numpy(load_frames(frames_folder, clip, size)).permute(0, 3, 1, 2)
                for copy in range(1 + copies):
                    changed = draw_augmentation(augmentation, frames, seed_of(seed, copy, row)) if copy else frames
                    images = input_transform(changed).transpose(0, 1)[None].to(device)
                    encoded = model.encode(images)[0].half().cpu()
                    if result is None:
                        result = torch.empty(1 + copies, len(clips), *encoded.shape, dtype=torch.float16)
                    result[copy, row] = encoded
        model.train(was_training)
        with replacing(file) as temporary:
            save_file({"features": result}, temporary)
    return load_file(file)["features"]


def build_loader(dataset: Dataset, *, batch_size: int, shuffle: torch.Generator | None = None, workers: int = 0,
                 device: str = "cpu") -> DataLoader:
    """A loader in the given order, or in one drawn from a generator: the same however often the loader is begun."""
    order = None if shuffle is None else torch.randperm(len(dataset), generator=shuffle).tolist()
    return DataLoader(dataset, batch_size=batch_size, sampler=order, generator=shuffle,
                      num_workers=workers, pin_memory=device != "cpu")


def _is_whole(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as tensors:
            return "features" in tensors.keys()
    except (OSError, ValueError, Exception):  # safetensors raises its own error for a damaged file
        return False


def _load_kept(folder: Path, size: int, clip: str):
    return _keeper(size)(folder, clip, size, (folder / f"{clip}.npz").stat().st_mtime_ns)


@functools.cache
def _keeper(size: int):
    @functools.lru_cache(maxsize=max(1, KEPT_BYTES // (32 * size * size * 3)))
    def load(folder: Path, clip: str, size: int, written: int):  # written: frames extracted anew are read anew
        return load_frames(folder, clip, size)
    return load
