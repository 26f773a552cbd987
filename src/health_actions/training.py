"""Training with Lightning: each fold its best epoch by validation, resumed after a kill where it was."""

import copy
import functools
import hashlib
import json
import logging
import shutil
import warnings
from pathlib import Path

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional

from health_actions.datasets import FeatureDataset, FrameDataset, build_loader, cache_features, seed_of
from health_actions.models import build_model
from health_actions.models.folder import save_model
from health_actions.paths import replacing
from health_actions.precision import autocast, choose_precision
from health_actions.progress import tell
from health_actions.transforms import NORMALISATION, build_augmentation, build_input_transform

# Small validation sets tie often: of epochs with the same accuracy the one with the lower loss is the best.
TIE_BREAK = 1e-4

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Classifier(lightning.LightningModule):
    """One fold's training: cross-entropy, Adam, the learning rate lowered by a factor after each epoch (study A).

    Args:
        network: the model; only what requires gradients is trained and kept in checkpoints.
        from_features: items are features, not clips.
        make_loader: epoch -> the loader of its training items.
        title: of the progress lines.
    """

    def __init__(self, network: nn.Module, *, from_features: bool, make_loader, learning_rate: float,
                 betas: list[float], weight_decay: float, gamma: float, seed: int, title: str):
        super().__init__()
        self.network, self.from_features, self.make_loader = network, from_features, make_loader
        self.learning_rate, self.betas, self.weight_decay, self.gamma = learning_rate, betas, weight_decay, gamma
        self.seed, self.title = seed, title
        self.history: list[dict] = []
        self.strict_loading = False  # a frozen backbone is not in the checkpoints

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items of a loader -> logits (batch, classes)."""
        return self.network.classify(items) if self.from_features else self.network(items)

    def configure_optimizers(self):
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
        return [adam], [torch.optim.lr_scheduler.ExponentialLR(adam, self.gamma)]

    def train_dataloader(self):
        return self.make_loader(self.current_epoch)

    def on_train_epoch_start(self):
        # Dropout of an epoch depends on the epoch alone, so that a resumed run goes on as an unbroken one.
        torch.manual_seed(seed_of(self.seed, self.current_epoch).initial_seed())
        self.sums = {part: [0.0, 0, 0] for part in ("training", "validation")}

    def training_step(self, batch, _):
        loss = self._score("training", batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{self.title}: the loss is {loss.item()} in epoch {self.current_epoch + 1}; "
                                     f"lower learning_rate (now {self.learning_rate}) in params.yaml")
        return loss

    def validation_step(self, batch, _):
        self._score("validation", batch)

    def _score(self, part: str, batch) -> torch.Tensor:
        items, labels = batch
        logits = self(items).float()
        loss = functional.cross_entropy(logits, labels)
        sums = self.sums[part]
        sums[0] += loss.item() * len(labels)
        sums[1] += int((logits.argmax(1) == labels).sum())
        sums[2] += len(labels)
        return loss

    def on_validation_epoch_end(self):
        row = {"epoch": self.current_epoch + 1}
        for part, (loss, correct, count) in self.sums.items():
            row |= {f"{part}_loss": loss / count, f"{part}_clip_top1": correct / count}
        self.history.append(row)
        score = row["validation_clip_top1"] - row["validation_loss"] * TIE_BREAK
        # In float32, losses that differ by less than some 1e-3 would tie, and the card would name another epoch.
        self.log("validation_score", torch.tensor(score, dtype=torch.float64))
        tell(f"{self.title}, epoch {row['epoch']} of {self.trainer.max_epochs}: loss {row['training_loss']:.3f}, "
             f"clip top-1 {row['training_clip_top1']:.3f} in training, {row['validation_clip_top1']:.3f} in validation")

    def on_save_checkpoint(self, checkpoint):
        checkpoint["history"] = self.history
        trained = {f"network.{name}" for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        if self.from_features:  # with it go the batch statistics of a backbone that stays in evaluation mode
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: value for name, value in state.items() if name in trained}

    def on_load_checkpoint(self, checkpoint):
        self.history = checkpoint["history"]


def train_folds(name: str, splits: pd.DataFrame, index: pd.DataFrame, *, frames_folder: Path, output: Path,
                resume_folder: Path, classes: list[str], size: int, window: int, epochs: int, batch_size: int,
                learning_rate: float, betas: list[float], weight_decay: float, gamma: float, augmentation: str = "none",
                augmentation_probability: float = 0.5, augmented_copies: int = 4, weights: str | None = None,
                options: dict | None = None, seed: int = 0, accelerator: str = "auto", devices: int = 1,
                precision: str = "auto") -> pd.DataFrame:
    """Train one architecture on every fold and leave a model folder for each.

    Where the backbone is frozen, its features are computed once for all folds and only the rest is trained. Checkpoints
    of an interrupted run lie in `resume_folder` under a hash of everything that the result depends on.

    Args:
        name: as of `build_model`.
        splits: one row a clip and fold: clip, class, fold, subset.
        index: one row a clip, with its content hash.
        frames_folder: as written by `extract_frames`.
        output: gets `fold_<k>/` (weights.safetensors and card.json) and history.csv.
        size: pixels; one of those that were extracted.
        window: frames of the model's input.
        epochs, batch_size, learning_rate, betas, weight_decay, gamma: Adam and the factor a epoch.
        augmentation, augmentation_probability: see `build_augmentation`; training clips only.
        augmented_copies: how many augmented versions of a clip a frozen backbone sees; an epoch draws one of them.
        weights: of the backbone: None or "imagenet".
        options: further arguments of `build_model`.
        accelerator, devices: as Lightning takes them ("auto", "cpu", "gpu").
        precision: see `choose_precision`; or as Lightning takes it ("32-true", "bf16-mixed").

    Returns:
        The learning curves: fold, epoch, loss and clip_top1 of training and validation.
    """
    output, options = Path(output), dict(options or {})
    mean, std = NORMALISATION.get(name, ([0.0] * 3, [1.0] * 3))
    input_transform = build_input_transform(mean, std)
    augment = None if augmentation == "none" else build_augmentation(augmentation, augmentation_probability)
    architecture = {"name": name, "num_classes": len(classes), "frames": window, "size": size, "pretrained": weights,
                    **options}
    device = "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    precision = choose_precision(precision, device)
    settings = {key: value for key, value in locals().items() if key in (
        "architecture", "classes", "epochs", "batch_size", "learning_rate", "betas", "weight_decay", "gamma",
        "augmentation", "augmentation_probability", "augmented_copies", "seed", "window", "size", "precision")}
    clips = splits.drop_duplicates("clip")[["clip", "class"]].merge(
        index[["clip", "content", "length", "stride"]], on="clip")
    data = hashlib.sha256(pd.util.hash_pandas_object(clips.merge(splits), index=False).values.tobytes()).hexdigest()
    fingerprint = hashlib.sha256((json.dumps(settings) + data + hash_code()).encode()).hexdigest()[:20]
    resume = Path(resume_folder) / f"{name}-{fingerprint}"
    rows = {clip: row for row, clip in enumerate(clips["clip"])}

    # Every fold starts from these weights; a frozen backbone is the same for all of them.
    lightning.seed_everything(seed, verbose=False)
    network = build_model(**architecture)
    from_features = getattr(network, "frozen", False)
    if from_features:
        certain = None if augment is None else build_augmentation(augmentation, 1.0)
        with autocast(precision, device):
            features = cache_features(
                network, frames_folder, clips, Path(resume_folder), size=size, input_transform=input_transform,
                augmentation=certain, copies=0 if augment is None else augmented_copies, seed=seed,
                key=hash_code() + precision, device=device)

    def make_dataset(chosen: pd.DataFrame, draw: tuple[int, ...] | None):
        if from_features:
            labels = [classes.index(label) for label in chosen["class"]]
            return FeatureDataset(features, [rows[clip] for clip in chosen["clip"]], labels, window=window,
                                  probability=augmentation_probability, draw=draw)
        return FrameDataset(frames_folder, chosen, classes, size=size, window=window, input_transform=input_transform,
                            augmentation=augment, draw=draw)

    def make_loader(chosen: pd.DataFrame, fold: int, epoch: int):
        return build_loader(make_dataset(chosen, (seed, fold, epoch)), batch_size=batch_size,
                            shuffle=seed_of(seed, fold, epoch), device=device)

    histories = []
    for fold, part in splits.groupby("fold"):
        subsets = {subset: chosen for subset, chosen in part.groupby("subset")}
        classifier = Classifier(
            copy.deepcopy(network), from_features=from_features, learning_rate=learning_rate, betas=betas,
            weight_decay=weight_decay, gamma=gamma, seed=seed_of(seed, int(fold)).initial_seed(),
            make_loader=functools.partial(make_loader, subsets["training"], int(fold)),
            title=f"{name}, fold {fold} of {splits['fold'].max()}")
        fit(classifier, build_loader(make_dataset(subsets["validation"], None), batch_size=batch_size, device=device),
            folder=resume / f"fold_{fold}", epochs=epochs, accelerator=accelerator, devices=devices,
            # The recurrent part behind cached features is small, and faster as it is.
            precision="32-true" if from_features else precision)
        history = pd.DataFrame(classifier.history).assign(fold=fold)
        best = history.loc[(history["validation_clip_top1"] - history["validation_loss"] * TIE_BREAK).idxmax()]
        frozen = {"freeze": from_features} if hasattr(network, "frozen") else {}
        card = {
            "architecture": {**architecture, "pretrained": None, **frozen},
            "classes": classes,
            "preprocessing": {"mean": mean, "std": std, "range": "0-1 before mean and std", "colour": "RGB"},
            "clip": {"size": size, "window": window},
            "training": {**settings, "weights": weights, "frozen_backbone": from_features, "fold": int(fold)},
            "data": {"sha256": data, "clips": {subset: len(chosen) for subset, chosen in subsets.items()}},
            "scores": {"best_epoch": int(best["epoch"]),
                       "validation_clip_top1": round(float(best["validation_clip_top1"]), 4)},
        }
        save_model(output / f"fold_{fold}", classifier.network, card)
        histories.append(history)
    history = pd.concat(histories, ignore_index=True)[["fold", *[c for c in histories[0] if c != "fold"]]]
    with replacing(output / "history.csv") as temporary:
        history.round(6).to_csv(temporary, index=False)
    shutil.rmtree(resume, ignore_errors=True)
    return history


def fit(classifier: Classifier, validation, *, folder: Path, epochs: int, accelerator: str, devices: int,
        precision: str) -> None:
    """Train to the end, from the last finished epoch in `folder` if there is one, and load the best epoch's weights."""
    keeper = ModelCheckpoint(folder, filename="best", monitor="validation_score", mode="max",
                             save_on_train_epoch_end=True, enable_version_counter=False)
    # Not `save_last` of the other: that is written only when an epoch was better than all before it.
    latest = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(num_workers|eval mode|not empty|LeafSpec)")
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator=accelerator, devices=devices, precision=precision,
            callbacks=[keeper, latest], logger=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, deterministic="warn", reload_dataloaders_every_n_epochs=1, default_root_dir=folder)
        trainer.fit(classifier, val_dataloaders=validation, ckpt_path=last if last.exists() else None,
                    weights_only=True)
    best = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    classifier.load_state_dict(best, strict=False)
    classifier.network.cpu()


def hash_code() -> str:
    """A hash of this package's source, so that nothing made by other code is taken up again."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*.py") if "synthetic" not in path.parts)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
