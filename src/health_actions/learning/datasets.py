"""Datasets: windows of a clip's frames as pixels, or of the features that a frozen backbone computed once."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import joblib
import pandas as pd
import torch
from cachetools import LRUCache, cached
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from health_actions.data import transforms
from health_actions.data.frames import open_clip
from health_actions.learning.recipe import Recipe

# Memory that a process keeps, bytes: compressed pictures of clips; (file, when written, transform, number) -> frame.
CLIPS, FRAMES = (LRUCache(size, lambda kept: kept.nbytes) for size in (500_000_000, 1_000_000_000))
_open_kept = cached(CLIPS)(lambda folder, name, written: open_clip(folder, name))


def derive_generator(*numbers: int | str) -> torch.Generator:
    """A generator for each (seed, fold, epoch, clip): a resumed run draws the same numbers as an uninterrupted one."""
    return torch.Generator().manual_seed(int(hashlib.sha256(repr(numbers).encode()).hexdigest()[:14], 16))


class FeatureDataset(Dataset):
    """Windows of clips' cached features: (window, feature_width) float32 and a class number.

    Args:
        window, stride: frames of an item, and from one to the next.
        features, rows: as of `load_features`, and clip -> row there. An augmented item is one of the copies.
        draw: what random windows and augmentations derive from, (seed, fold, epoch); None takes the centre window.
        place: of the window where `draw` is given, "random" or "centre".
        probability, mirrored: share of items that are augmented, 0-1; class numbers of these where they change.
    """

    def __init__(self, clips: pd.DataFrame, *, classes: list[str], window: int, stride: int = 1,
                 features: torch.Tensor | None = None, rows: dict[str, int] | None = None, probability: float = 0.0,
                 draw: tuple[int | str, ...] | None = None, mirrored: list[int] | None = None, place: str = "random"):
        self.clips, self.labels = list(clips["clip"]), [classes.index(name) for name in clips["class"]]
        self.window, self.stride, self.features, self.rows = window, stride, features, rows
        self.draw, self.probability, self.mirrored, self.place = draw, probability, mirrored, place

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        numbers, augmented, label, generator = self.draw_item(index, self.features.shape[2])
        copy = int(torch.randint(1, len(self.features), (), generator=generator)) if augmented else 0
        return self.features[copy, self.rows[self.clips[index]]][numbers].float(), label

    def draw_item(self, index: int, length: int) -> tuple[torch.Tensor, bool, int, torch.Generator | None]:
        """Frame numbers (window,), whether the item is augmented, its class number, and what draws the rest."""
        generator = None if self.draw is None else derive_generator(*self.draw, index)
        place = self.place if generator else "centre"
        numbers = transforms.place_frames(length, self.window, self.stride, place, generator)
        augmented = self.probability > 0 and bool(torch.rand((), generator=generator) < self.probability)
        label = self.labels[index]
        return numbers, augmented, self.mirrored[label] if augmented and self.mirrored else label, generator


class ClipDataset(FeatureDataset):
    """Windows of clips as pixels: (3, window, size, size) float32 and a class number; (1 + windows, 3, ...) of several.

    Args:
        spatial, input_transform, augmentation: see `build_spatial`, `build_input_transform`, `build_augmentation`.
        windows: further ones, spread evenly over the clip, to score it as a whole.
        change: applied before anything else: (frames uint8 (count, 3, height, width), clip, frame numbers (count,)) ->
            frames of the same shape.
    """

    def __init__(self, clips: pd.DataFrame, *, frames_folder: Path, spatial: v2.Transform,
                 input_transform: v2.Transform, augmentation: nn.Module | None = None, windows: int = 0,
                 change: Callable | None = None, **common):
        super().__init__(clips, **common)
        self.frames_folder, self.spatial, self.input_transform = Path(frames_folder), spatial, input_transform
        self.augmentation, self.windows, self.change = augmentation, windows, change
        # A fixed transform is computed once for all epochs; a random one, or one of changed frames, for each item.
        drawn = any(isinstance(part, transforms.MultiScaleCrop) for part in getattr(spatial, "transforms", []))
        self.fixed = "" if drawn or change else str(spatial)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file = self.frames_folder / f"{self.clips[index]}.zip"
        written = file.stat().st_mtime_ns if file.is_file() else 0  # frames that were extracted anew are read anew
        clip = _open_kept(self.frames_folder, self.clips[index], written)
        numbers, augmented, label, generator = self.draw_item(index, len(clip))
        if self.windows:
            spread = transforms.spread_frames(len(clip), self.window, self.stride, self.windows)
            numbers = torch.cat([numbers[None], spread])
        keys = [(file, written, self.fixed, number) for number in numbers.flatten().tolist()]
        found = {key: FRAMES[key] for key in keys if key in FRAMES}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            decoded = torch.from_numpy(clip[[number for *_, number in missing]]).permute(0, 3, 1, 2)
            for key, frame in zip(missing, self.spatial(decoded) if self.fixed else decoded, strict=True):
                found[key] = FRAMES[key] = frame.clone()
        frames = torch.stack([found[key] for key in keys])
        if self.change:
            frames = self.change(frames, self.clips[index], numbers.flatten())
        if not self.fixed:
            frames = draw_augmentation(self.spatial, frames, generator) if generator else self.spatial(frames)
        if augmented:
            frames = draw_augmentation(self.augmentation, frames, generator)
        items = self.input_transform(frames.contiguous())  # with a pixel's colours side by side it takes twice as long
        return items.unflatten(0, numbers.shape).transpose(-4, -3), label


def build_datasets(recipe: Recipe, splits: pd.DataFrame, classes: list[str], frames_folder: Path,
                   features: torch.Tensor | None = None, rows: dict[str, int] | None = None
                   ) -> tuple[FeatureDataset, FeatureDataset]:
    """The clips that train a fold and those that choose its epoch, as pixels or as features of a frozen backbone."""
    training, choosing = (splits[splits["subset"] == subset] for subset in ("training", recipe.choose_on))
    augmentation = transforms.build_augmentation(recipe.augmentation)
    common = {"classes": classes, "window": recipe.window, "stride": recipe.stride}
    changes = {"probability": recipe.augmentation_probability if augmentation else 0.0,
               "place": recipe.training_window}
    if recipe.augmentation == "mirror":
        changes["mirrored"] = [classes.index(transforms.mirror_class(label, classes)) for label in classes]
    if features is not None:
        common |= {"features": features, "rows": rows}
        return FeatureDataset(training, **common, **changes), FeatureDataset(choosing, **common)
    crops = transforms.build_spatial(recipe.crop, recipe.size, flip=recipe.flip, middle_square=recipe.middle_square,
                                     scales=recipe.scales)
    common |= {"frames_folder": frames_folder,
               "input_transform": transforms.build_input_transform(*recipe.normalisation, recipe.colour)}
    return (ClipDataset(training, spatial=crops[0], augmentation=augmentation, **common, **changes),
            ClipDataset(choosing, spatial=crops[1], **common))


def draw_augmentation(augmentation: nn.Module, frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply a torchvision transform with the randomness of a generator (by itself it knows the global one alone)."""
    with torch.random.fork_rng(devices=[]):
        # As torch.manual_seed, which takes longer than some augmentations, since it looks for GPUs.
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return augmentation(frames)


def take_clips(splits: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """Every clip of a split once, with what its frames depend on: clip, class, content, length, stride."""
    return splits.drop_duplicates("clip")[["clip", "class"]].merge(index[["clip", "content", "length", "stride"]])


def build_loader(dataset: Dataset, *, batch_size: int, shuffle: torch.Generator | None = None, device: str = "cpu"
                 ) -> DataLoader:
    """A loader in the given order, or in one drawn from a generator: the same however often the loader is begun."""
    order = None if shuffle is None else torch.randperm(len(dataset), generator=shuffle).tolist()
    # While a GPU computes, processes decode and augment clips; on a CPU they would only share it.
    cores = joblib.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return DataLoader(dataset, batch_size=batch_size, sampler=order, generator=shuffle, pin_memory=device != "cpu",
                      num_workers=0 if device == "cpu" else max(1, min(8, cores)))
