"""Training with Lightning: each fold its best epoch by validation, folds side by side, gone on with where it was."""

import copy
import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import joblib
import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional

from health_actions.datasets import (
    FeatureDataset,
    FrameDataset,
    build_loader,
    cache_features,
    hash_code,
    hash_text,
    load_features,
    seed_of,
    take_clips,
)
from health_actions.evaluation import predict_clips
from health_actions.models import build_model
from health_actions.models.folder import save_model
from health_actions.paths import at_root, replacing
from health_actions.precision import choose_precision
from health_actions.progress import tell
from health_actions.transforms import (
    NORMALISATION,
    build_augmentation,
    build_crops,
    build_input_transform,
    mirror_class,
)

# Small validation sets tie often: of epochs with the same accuracy the one with the lower loss is the best.
TIE_BREAK = 1e-4
CHOICES = {"colour": ("rgb", "bgr"), "test_window": ("centre", "random"), "choose_on": ("validation", "testing"),
           "optimizer": ("adam", "adamw", "sgd"), "schedule": ("exponential", "steps", "one_cycle")}

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on besides its clips.

    Args:
        architecture: name for `build_model`.
        size: height and width of the frames, pixels; one of those that were extracted.
        window: consecutive sampled frames that the model sees, or every `stride`-th frame of a clip.
        epochs, batch_size, learning_rate, weight_decay: of the optimizer.
        betas: of Adam.
        gamma: factor of the learning rate after each epoch, or at each of `milestones`.
        weights: to start from: None for random ones, "imagenet" of a backbone, or the path from the project's root of
            a model's folder or of a released checkpoint.
        options: further arguments of `build_model`.
        augmentation: of training clips, see `build_augmentation`.
        augmentation_probability: share of training clips that are changed, 0-1.
        augmented_copies: how many changed versions of a clip a frozen backbone sees; an epoch draws one of them.
        seed: of everything random; None draws a new one at each run, as the paper's code did.
        precision: see `choose_precision`; or as Lightning takes it ("32-true", "bf16-mixed").
        colour: order of the channels, "rgb", or "bgr" as in the paper's code.
        normalise: bring frames to the mean and deviation that ImageNet weights expect; False as in the paper's code.
        test_window: "centre", or "random" at validation and test, too, as in the paper's code.
        window_seed: of these random windows.
        choose_on: clips that choose the epoch: "validation", or "testing", which are then no test any more.
        stride: None for study A's frames; else see `FrameDataset`: training clips are then cropped as in study B, too.
        flip, middle_square: of these crops, see `build_crops`.
        optimizer: "adam", "adamw" or "sgd".
        momentum, dampening: of "sgd".
        schedule: of the learning rate: "exponential" (every epoch), "steps" (after the epochs in `milestones`), or
            "one_cycle": up from a 25th in the first 3 tenths of all steps, then down to nothing (Smith, 2018).
        milestones: see `schedule`.
        label_smoothing: share of the target that all classes get alike, 0-1.
        mean, std: per channel, of frames in 0-1, where `weights` want other ones than the architecture's.

    Raises:
        ValueError: for a choice that does not exist.
    """

    architecture: str
    size: int
    window: int
    epochs: int
    batch_size: int
    learning_rate: float
    betas: list[float]
    weight_decay: float
    gamma: float
    weights: str | None = None
    options: dict = field(default_factory=dict)
    augmentation: str = "none"
    augmentation_probability: float = 0.5
    augmented_copies: int = 2
    seed: int | None = 0
    precision: str = "auto"
    colour: str = "rgb"
    normalise: bool = True
    test_window: str = "centre"
    window_seed: int = 0
    choose_on: str = "validation"
    stride: int | None = None
    flip: float = 0.5
    middle_square: bool = False
    optimizer: str = "adam"
    momentum: float = 0.9
    dampening: float = 0.0
    schedule: str = "exponential"
    milestones: list[int] = field(default_factory=list)
    label_smoothing: float = 0.0
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, found {getattr(self, name)!r}")
        if not 0 <= self.augmentation_probability <= 1:
            raise ValueError(f"augmentation_probability must lie in 0-1, found {self.augmentation_probability}")
        if self.augmented_copies < 1:
            raise ValueError(f"augmented_copies must be at least 1, found {self.augmented_copies}")
        if self.architecture == "three_stream" and not self.normalise:
            raise ValueError("three_stream normalises its streams itself: normalise must be true")
        build_augmentation(self.augmentation)

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of frames in 0-1."""
        unchanged = [0.0] * 3, [1.0] * 3
        if self.mean is not None:
            return self.mean, self.std or unchanged[1]
        return NORMALISATION.get(self.architecture, unchanged) if self.normalise else unchanged


class Classifier(lightning.LightningModule):
    """One fold's training: cross-entropy, the recipe's optimizer and its schedule of learning rates.

    Args:
        network: the model; only what requires gradients is trained. One with several streams has each learn on its own.
        recipe: see `Recipe`.
        from_features: items are features, not clips.
        make_training_loader, make_choosing_loader: epoch -> the loader of the clips that train or choose the epoch.
        seed: of the dropout.
        title: of the progress lines.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, *, from_features: bool, make_training_loader,
                 make_choosing_loader, seed: int, title: str):
        super().__init__()
        self.network, self.recipe, self.from_features = network, recipe, from_features
        self.make_training_loader, self.make_choosing_loader = make_training_loader, make_choosing_loader
        self.seed, self.title = seed, title
        self.history: list[dict] = []
        self.best: dict = {"score": float("-inf")}
        self.strict_loading = False  # a frozen backbone is not in the checkpoints

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items of a loader -> logits (batch, classes)."""
        return self.network.classify(items) if self.from_features else self.network(items)

    def configure_optimizers(self):
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        recipe, common = self.recipe, {"lr": self.recipe.learning_rate, "weight_decay": self.recipe.weight_decay,
                                       "fused": True}
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(trained, momentum=recipe.momentum, dampening=recipe.dampening, **common)
        else:
            kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
            optimizer = kind(trained, betas=recipe.betas, **common)
        if recipe.schedule == "one_cycle":
            steps = recipe.epochs * len(self.make_training_loader(0))
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        if recipe.schedule == "steps":
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe.milestones, recipe.gamma)]
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.gamma)]

    def train_dataloader(self):
        return self.make_training_loader(self.current_epoch)

    def val_dataloader(self):
        return self.make_choosing_loader(self.current_epoch)

    def on_train_epoch_start(self):
        # Dropout of an epoch depends on the epoch alone, so that a resumed run goes on as an unbroken one.
        torch.manual_seed(seed_of(self.seed, self.current_epoch).initial_seed())
        self.sums = {part: [0.0, 0, 0] for part in ("training", "validation")}

    def training_step(self, batch, _):
        items, labels = batch
        if hasattr(self.network, "classify_streams"):
            streams = self.network.classify_streams(items).float()
            loss = functional.cross_entropy(streams.flatten(0, 1), labels.repeat_interleave(streams.shape[1]))
            logits = self.network.fuse(streams)
        else:
            logits = self(items).float()
            loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{self.title}: the loss is {loss.item()} in epoch {self.current_epoch + 1}; "
                                     f"lower learning_rate (now {self.recipe.learning_rate}) in params.yaml")
        self._count("training", logits, labels, loss)
        return loss

    def validation_step(self, batch, _):
        items, labels = batch
        logits = self(items).float()
        self._count("validation", logits, labels, functional.cross_entropy(logits, labels))

    def _count(self, part: str, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        sums = self.sums[part]
        sums[0] += loss.item() * len(labels)
        sums[1] += int((logits.argmax(1) == labels).sum())
        sums[2] += len(labels)

    def on_validation_epoch_end(self):
        row = {"epoch": self.current_epoch + 1}
        for part, (loss, correct, count) in self.sums.items():
            row |= {f"{part}_loss": loss / count, f"{part}_clip_top1": correct / count}
        self.history.append(row)
        score = row["validation_clip_top1"] - row["validation_loss"] * TIE_BREAK
        if score > self.best["score"]:
            self.best = {"score": score, "epoch": row["epoch"], "clip_top1": row["validation_clip_top1"],
                         "state": copy.deepcopy(self._take_state())}
        tell(f"{self.title}, epoch {row['epoch']} of {self.trainer.max_epochs}: loss {row['training_loss']:.3f}, "
             f"clip top-1 {row['training_clip_top1']:.3f} in training, {row['validation_clip_top1']:.3f} in validation")

    def _take_state(self) -> dict[str, torch.Tensor]:
        """The weights that training changes; the rest of a frozen network is known, batch statistics included."""
        state = self.network.state_dict()
        trained = {name for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in state.items() if not self.from_features or name in trained}

    def on_save_checkpoint(self, checkpoint):
        checkpoint |= {"history": self.history, "best": self.best}
        checkpoint["state_dict"] = {f"network.{name}": value for name, value in self._take_state().items()}

    def on_load_checkpoint(self, checkpoint):
        self.history, self.best = checkpoint["history"], checkpoint["best"]


class LatestEpoch(ModelCheckpoint):
    """The last finished epoch as a checkpoint: always where that is quick, and at the end; else now and then.

    80 million weights and their optimizer are a gigabyte: writing them takes a twentieth of the time at most.
    """

    QUICK = 0.5  # seconds

    def __init__(self, folder: Path):
        super().__init__(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.next = 0.0

    def on_train_epoch_end(self, trainer, module):
        started = time.monotonic()
        if started >= self.next or trainer.current_epoch + 1 == trainer.max_epochs:
            super().on_train_epoch_end(trainer, module)
            taken = time.monotonic() - started
            self.next = time.monotonic() + (20 * taken if taken > self.QUICK else 0)


class EndWithParent(lightning.Callback):
    """A fold's process whose run was killed ends as well, so that it does not write beside the next run."""

    def __init__(self):
        self.parent = os.getppid()

    def on_train_epoch_start(self, trainer, module):
        if os.getppid() != self.parent:
            os._exit(1)


@dataclass(frozen=True)
class Run:
    """One recipe on one split, as `train_runs` takes it.

    Args:
        recipe: see `Recipe`.
        splits: one row a clip and fold: clip, class, fold, subset.
        output: gets `fold_<k>/` (weights.safetensors and card.json) and history.csv; None keeps no weights.
        tested: predict each fold's test clips right after its training.
    """

    recipe: Recipe
    splits: pd.DataFrame
    output: Path | None = None
    tested: bool = False


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Args:
        history: learning curves: fold, epoch, loss and clip_top1 of training and validation.
        chosen: a row a fold: fold, epoch and clip_top1 of the epoch that was chosen, validation clips, seconds.
        predictions: as of `predict_clips`, all folds; None when the run was not tested.
    """

    history: pd.DataFrame
    chosen: pd.DataFrame
    predictions: pd.DataFrame | None


def train_runs(runs: dict[str, Run], index: pd.DataFrame, *, frames_folder: Path, resume_folder: Path,
               classes: list[str], accelerator: str = "auto", devices: int = 1, processes: int = -1
               ) -> dict[str, Result]:
    """Train recipes, every fold of every one a job of its own, as many at a time as there are cores.

    Where the backbone is frozen, its features are computed once for all folds and all recipes that share them, and only
    the rest is trained. Checkpoints and finished folds of an interrupted call lie in `resume_folder` under a hash of
    everything that the result depends on.

    Args:
        runs: name -> what to train.
        index: one row a clip, with its content hash, length and stride.
        frames_folder: as written by `extract_frames`.
        classes: all classes in order.
        accelerator, devices: as Lightning takes them ("auto", "cpu", "gpu").
        processes: folds trained at a time on a CPU; -1: one for each core. On a GPU they go one after the other.
    """
    device = "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    where = {"frames_folder": Path(frames_folder), "classes": list(classes), "device": device,
             "accelerator": accelerator, "devices": devices}
    jobs, resumed = [], set()
    for name, run in runs.items():
        seed = secrets.randbits(31) if run.recipe.seed is None else run.recipe.seed
        network = build_model(**describe_architecture(run.recipe, classes))
        if run.recipe.augmentation == "mirror":
            [mirror_class(label, classes) for label in classes]  # missing classes are told before anything is computed
        recipe = dataclasses.replace(
            run.recipe, seed=seed, precision=choose_precision(run.recipe.precision, device, network))
        clips = take_clips(run.splits, index)
        data = hashlib.sha256(pd.util.hash_pandas_object(clips.merge(run.splits), index=False).values.tobytes())
        fingerprint = hash_text(json.dumps(dataclasses.asdict(recipe)), str(classes), data.hexdigest(), hash_code(),
                                hash_weights(recipe))
        resume = Path(resume_folder) / f"{recipe.architecture}-{fingerprint}"
        resumed.add(resume)
        features = prepare_features(recipe, clips, classes, frames_folder, resume_folder, device)
        for fold, part in run.splits.groupby("fold"):
            jobs.append({"name": name, "recipe": recipe, "part": part, "fold": int(fold), "clips": clips,
                         "features": features, "data": data.hexdigest(), "tested": run.tested,
                         "folder": resume / f"fold_{fold}", "output": run.output and Path(run.output) / f"fold_{fold}",
                         "title": f"{name}, fold {fold} of {run.splits['fold'].max()}"})
    processes = 1 if device == "cuda" else max(1, min(joblib.effective_n_jobs(processes), len(jobs)))
    threads = max(1, joblib.cpu_count() // processes) if processes > 1 else None
    with joblib.parallel_config("loky", inner_max_num_threads=threads) if processes > 1 else warnings.catch_warnings():
        done = joblib.Parallel(processes)(joblib.delayed(train_fold)(**job, **where, threads=threads) for job in jobs)
    results = {}
    for name, run in runs.items():
        own = [result for job, result in zip(jobs, done, strict=True) if job["name"] == name]
        history, chosen, predictions = (pd.concat(tables, ignore_index=True) if tables[0] is not None else None
                                        for tables in zip(*own, strict=True))
        results[name] = Result(history, chosen, predictions)
        if run.output:
            with replacing(Path(run.output) / "history.csv") as temporary:
                history.round(6).to_csv(temporary, index=False)
    for resume in resumed:
        shutil.rmtree(resume, ignore_errors=True)
    return results


def train_fold(name: str, recipe: Recipe, part: pd.DataFrame, *, fold: int, clips: pd.DataFrame, features: Path | None,
               data: str, tested: bool, folder: Path, output: Path | None, title: str, frames_folder: Path,
               classes: list[str], device: str, accelerator: str, devices: int, threads: int | None):
    """Train one fold of a recipe; returns its rows of `Result`. See `train_runs`."""
    if threads:
        torch.set_num_threads(threads)
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    # Held by this process alone and freed when it ends, however it ends.
    with filelock.FileLock(folder / "lock"):
        lightning.seed_everything(recipe.seed, verbose=False)  # every fold starts from the same weights
        network = build_model(**describe_architecture(recipe, classes))
        subsets = {subset: chosen for subset, chosen in part.groupby("subset")}
        choosing = subsets[recipe.choose_on]
        kept = None if features is None else load_features(features)
        rows = {clip: row for row, clip in enumerate(clips["clip"])}
        labels = {clip: classes.index(label) for clip, label in zip(clips["clip"], clips["class"], strict=True)}
        mirrored = [classes.index(mirror_class(label, classes)) for label in classes] \
            if recipe.augmentation == "mirror" else None
        augmentation, probability = build_augmentation(recipe.augmentation), recipe.augmentation_probability
        if recipe.stride:
            crops = build_crops(recipe.size, flip=recipe.flip, middle_square=recipe.middle_square)
            augmentation, probability = crops[0], 1.0
        mean, std = recipe.normalisation

        def make_dataset(chosen: pd.DataFrame, draw: tuple[int, ...] | None, probability: float = 0.0):
            names = list(chosen["clip"])
            if kept is not None:
                return FeatureDataset(kept, [rows[clip] for clip in names], [labels[clip] for clip in names],
                                      window=recipe.window, probability=probability, draw=draw, mirrored=mirrored)
            return FrameDataset(frames_folder, chosen, classes, size=recipe.size, window=recipe.window,
                                input_transform=build_input_transform(mean, std, recipe.colour), draw=draw,
                                augmentation=augmentation, probability=probability, mirrored=mirrored,
                                stride=recipe.stride)

        def make_training_loader(epoch: int):
            share = 0.0 if augmentation is None else probability
            return build_loader(make_dataset(subsets["training"], (recipe.seed, fold, epoch), share),
                                batch_size=recipe.batch_size, shuffle=seed_of(recipe.seed, fold, epoch), device=device)

        def make_choosing_loader(epoch: int):
            drawn = (recipe.window_seed, fold, epoch, "choosing") if recipe.test_window == "random" else None
            return build_loader(make_dataset(choosing, drawn), batch_size=recipe.batch_size, device=device)

        classifier = Classifier(
            network, recipe, from_features=kept is not None, title=title, make_training_loader=make_training_loader,
            make_choosing_loader=make_choosing_loader, seed=seed_of(recipe.seed, fold).initial_seed())
        fit(classifier, folder=folder, epochs=recipe.epochs, accelerator=accelerator, devices=devices,
            is_worker=bool(threads),
            # The recurrent part behind cached features is small, and faster as it is.
            precision="32-true" if kept is not None else recipe.precision)
        history, best = pd.DataFrame(classifier.history), classifier.best
        card = {
            "architecture": {**describe_architecture(recipe, classes), "pretrained": None,
                             **({"freeze": network.frozen} if hasattr(network, "frozen") else {})},
            "classes": classes,
            "preprocessing": {"mean": mean, "std": std, "range": "0-1 before mean and std", "colour": recipe.colour},
            "clip": {"size": recipe.size, "window": recipe.window, "test_window": recipe.test_window,
                     "stride": recipe.stride},
            "training": {**dataclasses.asdict(recipe), "frozen_backbone": kept is not None, "fold": fold},
            "data": {"sha256": data, "clips": {subset: len(chosen) for subset, chosen in subsets.items()}},
            "scores": {"best_epoch": best["epoch"], "chosen_on": recipe.choose_on,
                       "validation_clip_top1": round(best["clip_top1"], 4)},
        }
        predictions = predict_clips(network, card, subsets["testing"], frames_folder=frames_folder, features=kept,
                                    rows=rows) if tested else None
        if output:
            save_model(output, network, card)
    history.insert(0, "fold", fold)
    chosen = pd.DataFrame([{"fold": fold, "epoch": best["epoch"], "clip_top1": best["clip_top1"],
                            "clips": len(choosing), "seconds": time.monotonic() - started}])
    return history, chosen, predictions


def fit(classifier: Classifier, *, folder: Path, epochs: int, accelerator: str, devices: int, precision: str,
        is_worker: bool = False) -> None:
    """Train to the end, from the last finished epoch in `folder` if there is one, and load the best epoch's weights."""
    latest = LatestEpoch(folder)
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(num_workers|eval mode|not empty|LeafSpec)")
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator=accelerator, devices=devices, precision=precision,
            callbacks=[latest, EndWithParent()] if is_worker else [latest], logger=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, deterministic="warn",
            reload_dataloaders_every_n_epochs=1, default_root_dir=folder)
        trainer.fit(classifier, ckpt_path=last if last.exists() else None, weights_only=True)
    classifier.network.cpu().load_state_dict(classifier.best["state"], strict=False)


def describe_architecture(recipe: Recipe, classes: list[str]) -> dict:
    """The arguments of `build_model` for a recipe."""
    weights = str(at_root(recipe.weights)) if "/" in (recipe.weights or "") else recipe.weights
    return {"name": recipe.architecture, "num_classes": len(classes), "frames": recipe.window, "size": recipe.size,
            "pretrained": weights, **recipe.options}


def hash_weights(recipe: Recipe) -> str:
    """A hash of the files that a training starts from; empty where it starts from none."""
    if "/" not in (recipe.weights or ""):
        return ""
    path = at_root(recipe.weights)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def prepare_features(recipe: Recipe, clips: pd.DataFrame, classes: list[str], frames_folder: Path, cache: Path,
                     device: str = "cpu") -> Path | None:
    """Where the recipe's backbone is frozen, the file of the clips' features, made if it is not there; else None."""
    lightning.seed_everything(recipe.seed, verbose=False)
    network = build_model(**describe_architecture(recipe, classes))
    if not getattr(network, "frozen", False):
        return None
    mean, std = recipe.normalisation
    augmentation = build_augmentation(recipe.augmentation)
    copies = {"none": 0, "mirror": 1}.get(recipe.augmentation, recipe.augmented_copies)  # all mirrored copies are equal
    return cache_features(network, frames_folder, clips, cache, size=recipe.size, precision=recipe.precision,
                          key=json.dumps(describe_architecture(recipe, classes)),
                          input_transform=build_input_transform(mean, std, recipe.colour), augmentation=augmentation,
                          copies=copies, seed=recipe.seed if copies else 0, device=device)


def read_recipe(card: dict) -> Recipe:
    """The recipe by which a model was trained, from its card, to vary it."""
    names = {entry.name for entry in dataclasses.fields(Recipe)}
    return Recipe(**{name: value for name, value in card["training"].items() if name in names})
