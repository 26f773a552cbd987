"""The two sides of each row of `benchmarks.bench`: study B's work in the plain way and in the project's.

A function prepares the work of one side and returns a turn of it.
"""

import copy
import io
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import av
import joblib
import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from PIL import Image
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from benchmarks import plain
from health_actions.data.clips import NTU_ACTIONS, find_clips
from health_actions.data.extraction import extract_frames
from health_actions.data.transforms import build_input_transform, build_spatial
from health_actions.data.video import SUFFIXES, stream_frames
from health_actions.learning.datasets import CLIPS, FRAMES, build_datasets, build_loader, derive_generator
from health_actions.learning.features import build_network
from health_actions.learning.precision import autocast, choose_precision, prepare_training
from health_actions.learning.recipe import Recipe, describe_architecture
from health_actions.learning.training import (
    build_optimizer,
    build_schedule,
    evaluate_epoch,
    save_checkpoint,
    start_fabric,
    train_epoch,
)
from health_actions.models import build_model

PARTS = ["decoding", "decoding and conversion", "decoding, conversion and JPEG"]  # of an extraction
WIDTH = 427  # of a picture of 240 pixels' height, as most clips are
EPOCHS_BEFORE = 6  # have seen nearly all pictures
EPOCHS_A_TURN = 5  # of loading: one alone is over before the processor's caches hold what it works on
Turn = Callable[[], int]  # does the work once; returns how many frames or clips that was


@dataclass(frozen=True)
class Setting:
    """What is measured: clips, and the protocol of study B."""

    videos: Path  # folder of the clips
    work: Path  # folder that everything is written to
    recipe: Recipe  # as of the published profile; each row has its own architecture
    height: int = 240  # of the extracted pictures, see `extract_frames`
    quality: int = 90

    @cached_property
    def catalogue(self) -> pd.DataFrame:
        """The clips as `find_clips` lists them; those whose names give no action have the class of their folder."""
        folders = sorted(path.name for path in self.videos.iterdir() if path.is_dir())
        return find_clips(self.videos, [*NTU_ACTIONS.values(), *folders], "ntu")

    @property
    def classes(self) -> list[str]:
        """The classes of the clips, in order."""
        return sorted(set(self.catalogue["class"]))

    @property
    def paths(self) -> list[Path]:
        """The clips' files."""
        return sorted(path for path in self.videos.rglob("*") if path.suffix.lower() in SUFFIXES)

    @property
    def splits(self) -> pd.DataFrame:
        """The clips, two thirds of them to train on and one third to validate."""
        last = np.arange(len(self.catalogue)) % 3 == 2
        return self.catalogue.assign(subset=np.where(last, "validation", "training"))


def extract_plainly(setting: Setting) -> Turn:
    """Every frame as a picture, the plain way."""
    outputs = number_folders(setting, "plain_extraction")
    return lambda: plain.extract(setting.paths, next(outputs), height=setting.height, quality=setting.quality)


def extract_ours(setting: Setting) -> Turn:
    """Every frame as a picture in its clip's archive, with all cores."""
    outputs = number_folders(setting, "extraction")
    return lambda: int(extract_frames(setting.videos, next(outputs), setting.catalogue, height=setting.height,
                                      quality=setting.quality)["length"].sum())


def decode(setting: Setting, part: str) -> Turn:
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
    for frame in stream_frames(path, height=height):
        count += 1
        if part == PARTS[2]:
            Image.fromarray(frame).save(io.BytesIO(), "JPEG", quality=quality)
    return count


def build_plain_loader(setting: Setting, clips: pd.DataFrame, *, training: bool) -> DataLoader:
    """Batches of clips from folders of pictures."""
    recipe, (mean, std) = setting.recipe, setting.recipe.normalisation
    folders = [setting.work / "folders" / Path(path).stem for path in clips["path"]]
    dataset = plain.ClipFolders(folders, [setting.classes.index(label) for label in clips["class"]], size=recipe.size,
                                window=recipe.window, stride=recipe.stride, mean=mean, std=std, training=training)
    return DataLoader(dataset, recipe.batch_size, shuffle=training)


def build_our_loaders(setting: Setting, splits: pd.DataFrame, epoch: int) -> tuple[DataLoader, DataLoader]:
    """Batches of training and of validation clips from archives, as `train_fold` makes them."""
    recipe = setting.recipe
    training, choosing = build_datasets(recipe, splits, setting.classes, setting.work / "archives")
    training.draw = (recipe.seed, 1, epoch)
    return (build_loader(training, batch_size=recipe.batch_size, shuffle=derive_generator(recipe.seed, 1, epoch)),
            build_loader(choosing, batch_size=recipe.batch_size))


def load_plainly(setting: Setting) -> Turn:
    """Training clips with their transforms, the plain way."""
    random.seed(0)
    loader = build_plain_loader(setting, setting.catalogue, training=True)
    return lambda: sum(len(clips) for _ in range(EPOCHS_A_TURN) for clips, _ in loader)


def load_ours(setting: Setting, *, first: bool) -> Turn:
    """Training clips with their transforms, ours; always new epochs, first ones or those after many."""
    prepare_training()
    splits, epochs = setting.catalogue.assign(subset="training"), itertools.count()

    def load() -> int:
        if first:
            CLIPS.clear()
            FRAMES.clear()
        return sum(len(items) for items, _ in build_our_loaders(setting, splits, next(epochs))[0])

    for _ in range(0 if first else EPOCHS_BEFORE):
        load()
    return lambda: sum(load() for _ in range(EPOCHS_A_TURN))


def transform_clips(setting: Setting) -> Turn:
    """The part of loading that our loader cannot save: stacking decoded frames, torchvision's transforms, batches."""
    prepare_training()
    recipe, clips = setting.recipe, EPOCHS_A_TURN * len(setting.catalogue)
    pictures = np.random.default_rng(0).integers(256, size=(recipe.window, setting.height, WIDTH, 3), dtype=np.uint8)
    frames = list(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    crop = build_spatial(recipe.crop, recipe.size, flip=recipe.flip, middle_square=recipe.middle_square)[0]
    normalise = build_input_transform(*recipe.normalisation, recipe.colour)

    def transform_all() -> int:
        for start in range(0, clips, recipe.batch_size):
            torch.stack([normalise(crop(torch.stack(frames)).contiguous()).transpose(0, 1)
                         for _ in range(min(recipe.batch_size, clips - start))])
        return clips

    return transform_all


def make_batch(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Random clips and labels of one step."""
    recipe, generator = setting.recipe, torch.Generator().manual_seed(0)
    clips = torch.randn(recipe.batch_size, 3, recipe.window, recipe.size, recipe.size, generator=generator)
    return clips, torch.randint(len(setting.classes), (len(clips),), generator=generator)


def make_plain_network(setting: Setting, name: str) -> torch.nn.Module:
    """A network as `build_network` makes ours, with the same first weights, without `speed_up`."""
    torch.manual_seed(setting.recipe.seed)
    return build_model(**describe_architecture(replace(setting.recipe, architecture=name), setting.classes))


def start_plainly(setting: Setting, name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A network and its optimizer, the plain way."""
    network, recipe = make_plain_network(setting, name), setting.recipe
    return network, plain.build_plain_optimizer(network, learning_rate=recipe.learning_rate, momentum=recipe.momentum,
                                                weight_decay=recipe.weight_decay)


def start_ours(setting: Setting, name: str
               ) -> tuple[Fabric, torch.nn.Module, torch.optim.Optimizer, LRScheduler, Recipe]:
    """Fabric, a network, its optimizer and schedule, and their recipe, as `train_fold` makes them."""
    prepare_training()
    recipe = replace(setting.recipe, architecture=name)
    network = build_network(recipe, setting.classes)
    fabric = start_fabric(precision=choose_precision(recipe.precision, "cpu", network))
    model, optimizer = fabric.setup(network, build_optimizer(network, recipe))
    return fabric, model, optimizer, build_schedule(optimizer, recipe, 1_000_000), recipe


def train_plainly(setting: Setting, name: str) -> Turn:
    """A training step, the plain way."""
    (network, optimizer), batch = start_plainly(setting, name), make_batch(setting)
    return lambda: len(batch[0]) * len(list(plain.train(network, optimizer, [batch])))


def train_ours(setting: Setting, name: str) -> Turn:
    """A training step, ours: `train_epoch` on a single batch."""
    (fabric, *trained, recipe), batch = start_ours(setting, name), make_batch(setting)
    return lambda: len(train_epoch(fabric, trained[0], [batch], *trained[1:], recipe, name)) and len(batch[0])


def predict_plainly(setting: Setting, name: str) -> Turn:
    """A batch's logits, the plain way."""
    network, batch = make_plain_network(setting, name), make_batch(setting)
    return lambda: len(plain.predict(network, [batch]))


def predict_ours(setting: Setting, name: str) -> Turn:
    """A batch's logits, as `predict_clips` computes them."""
    network, (clips, _) = start_ours(setting, name)[1].module.eval(), make_batch(setting)
    precision = choose_precision(setting.recipe.precision, "cpu", network)

    def predict() -> int:
        with torch.inference_mode(), autocast(precision):
            return len(network(clips).double())

    return predict


def run_epoch_plainly(setting: Setting, name: str) -> Turn:
    """One epoch from pictures to validation, the plain way."""
    (network, optimizer), splits = start_plainly(setting, name), setting.splits
    training, validation = (splits[splits["subset"] == subset] for subset in ("training", "validation"))

    def run_epoch() -> int:
        list(plain.train(network, optimizer, build_plain_loader(setting, training, training=True)))
        plain.predict(network, build_plain_loader(setting, validation, training=False))
        return len(splits)

    return run_epoch


def run_epoch_ours(setting: Setting, name: str) -> Turn:
    """One epoch from archives to validation, its checkpoint included, as `train_fold` runs it."""
    fabric, model, optimizer, schedule, recipe = start_ours(setting, name)
    splits, folders, epochs = setting.splits, number_folders(setting, "checkpoints"), itertools.count()

    def run_epoch() -> int:
        training, validation = build_our_loaders(setting, splits, next(epochs))
        train_epoch(fabric, model, fabric.setup_dataloaders(training), optimizer, schedule, recipe, name)
        evaluate_epoch(fabric, model.module, fabric.setup_dataloaders(validation))
        save_checkpoint(next(folders) / "last.ckpt", {
            "network": model, "optimizer": optimizer, "schedule": schedule,
            "best": {"weights": copy.deepcopy(model.module.state_dict())}})
        return len(splits)

    return run_epoch


def number_folders(setting: Setting, name: str) -> Iterator[Path]:
    """A new folder for each turn: nothing that is there already saves work."""
    return (setting.work / name / f"{os.getpid()}_{number}" for number in itertools.count())
