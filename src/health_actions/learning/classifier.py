"""One fold's training as Lightning runs it: loss, optimizer, the best epoch by validation, going on after a stop."""

import copy
import logging
import os
import time
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn import functional

from health_actions.learning.datasets import seed_of
from health_actions.learning.distributed import get_share
from health_actions.learning.recipe import Recipe
from health_actions.paths import name_failures
from health_actions.progress import log_message

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

# Small validation sets tie often: of epochs with the same accuracy the one with the lower loss is the best.
TIE_BREAK = 1e-4


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
        self.number, self.processes = get_share()
        self.compiled = None  # the network's forward, see `fit`
        self.history: list[dict] = []
        self.best: dict = {"score": float("-inf")}
        self.strict_loading = False  # a frozen backbone is not in the checkpoints

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items of a loader -> logits (batch, classes)."""
        if self.from_features:
            return self.network.classify(items)
        return self.compiled(items) if self.compiled else self.network(items)

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
        # Processes that train together each have their own: each sees other clips.
        own = [self.number] if self.number else []
        torch.manual_seed(seed_of(self.seed, self.current_epoch, *own).initial_seed())
        self.sums = {part: [0.0, 0, 0] for part in ("training", "validation")}

    def training_step(self, batch, number):
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
        if self.processes == 1:
            self._count("training", logits, labels, loss)
            return loss
        own, whole = self._take_share(self.trainer.train_dataloader, number)
        self._count("training", logits, labels, loss, own)
        return loss * (own * self.processes / whole)  # so that the mean of all processes' gradients is the batch's

    def validation_step(self, batch, number):
        items, labels = batch
        logits = self(items).float()
        own = None if self.processes == 1 else self._take_share(self.trainer.val_dataloaders, number)[0]
        self._count("validation", logits, labels, functional.cross_entropy(logits, labels), own)

    def _take_share(self, loader, number: int) -> tuple[int, int]:
        """Of a batch: how many items are this process's, and how many there are. See `build_loader`."""
        whole = min(self.recipe.batch_size, len(loader.dataset) - number * self.recipe.batch_size)
        return len(range(self.number, whole, self.processes)), whole

    def _count(self, part: str, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor,
               own: int | None = None) -> None:
        sums, own = self.sums[part], len(labels) if own is None else own
        sums[0] += loss.item() * own
        sums[1] += int((logits.argmax(1) == labels)[:own].sum())
        sums[2] += own

    def on_validation_epoch_end(self):
        if self.processes > 1:
            sums = torch.tensor(list(self.sums.values()), dtype=torch.float64, device=self.device)
            whole = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
            self.sums = dict(zip(self.sums, whole, strict=True))
        row = {"epoch": self.current_epoch + 1}
        for part, (loss, correct, count) in self.sums.items():
            row |= {f"{part}_loss": loss / count, f"{part}_clip_top1": correct / count}
        self.history.append(row)
        score = row["validation_clip_top1"] - row["validation_loss"] * TIE_BREAK
        if score > self.best["score"]:
            self.best = {"score": score, "epoch": row["epoch"], "clip_top1": row["validation_clip_top1"],
                         "state": copy.deepcopy(self._take_state())}
        if self.number:
            return
        log_message(f"{self.title}, epoch {row['epoch']} of {self.trainer.max_epochs}: loss {row['training_loss']:.3f}, "
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
    """The last finished epoch as a checkpoint: always where that is quick, else now and then.

    80 million weights and their optimizer are a gigabyte: writing them takes a twentieth of the time at most.

    Args:
        folder: gets last.ckpt.
        weights: how many are trained.
    """

    QUICK = 0.5  # seconds
    LARGE = 20_000_000  # weights that are not written quickly

    def __init__(self, folder: Path, weights: int):
        super().__init__(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.next = time.monotonic() + (120 if weights > self.LARGE else 0)

    def on_train_epoch_end(self, trainer, module):
        started = time.monotonic()
        if trainer.strategy.broadcast(started >= self.next):  # all processes or none: they wait for each other in it
            with name_failures(Path(self.dirpath) / "last.ckpt"):
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


def fit(classifier: Classifier, *, folder: Path, epochs: int, device: str, accelerator: str, precision: str,
        is_worker: bool = False, compiled: bool = False) -> None:
    """Train to the end, from the last finished epoch in `folder` if there is one, and load the best epoch's weights.

    Processes that `health_actions.learning.distributed` started do so together, by Lightning's DDP.

    Args:
        device: "cpu" or "cuda".
        compiled: let torch.compile make the network's forward quicker; not of what follows cached features.
    """
    latest = LatestEpoch(folder, sum(weights.numel() for weights in classifier.parameters() if weights.requires_grad))
    last, where = folder / "last.ckpt", {"devices": 1}
    if classifier.processes > 1:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        where = {"strategy": "ddp", "devices": devices, "num_nodes": classifier.processes // devices}
        if device == "cuda" and not classifier.from_features:
            # Not Lightning's, which takes timm's activations away with timm's normalisations.
            classifier.network = convert_sync_batchnorm(classifier.network)
    if compiled and not classifier.from_features:
        classifier.compiled = compile_forward(classifier.network, classifier.title)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(num_workers|eval mode|not empty|LeafSpec)")
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator=accelerator, precision=precision, **where,
            callbacks=[latest, EndWithParent()] if is_worker else [latest], logger=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, deterministic="warn",
            reload_dataloaders_every_n_epochs=1, use_distributed_sampler=False, default_root_dir=folder)
        trainer.fit(classifier, ckpt_path=last if last.exists() else None, weights_only=True)
    classifier.network.cpu().load_state_dict(classifier.best["state"], strict=False)


def compile_forward(network: nn.Module, title: str):
    """The network's forward as torch.compile makes it, or as it was where that fails, which is told in a line.

    The network itself stays as it is, the names of its weights included.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a while, and few need it

    forward = torch.compile(network.forward)

    def call(items: torch.Tensor) -> torch.Tensor:
        nonlocal forward
        try:
            return forward(items)
        except TorchDynamoException as error:
            said = " ".join(str(error).partition("\n\n")[0].split())
            log_message(f"{title}: trained without torch.compile, which failed: {said}")
            forward = network.forward
            return forward(items)
    return call
