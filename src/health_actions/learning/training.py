"""Training: a plain torch loop; Lightning Fabric brings devices, precision and several processes.

`train_epoch` and `evaluate_epoch` are the loop, `train_fold` makes one model, `train_runs` many side by side. What is
random derives from (seed, fold, epoch, clip), so an interrupted training resumes to the same result. Several GPUs share
each batch where `devices` is above 1, or by torchrun (on each of several machines with --nnodes 2 and the like):
    torchrun --nproc-per-node 4 -m health_actions train --cuda --study ntu --arch resnet50 --save-dir mine
"""

import copy
import functools
import io
import json
import logging
import math
import os
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import joblib
import pandas as pd
import torch
from filelock import FileLock
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from timm.layers import convert_sync_batchnorm
from torch import multiprocessing, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR
from torch.utils.data import DataLoader, Subset
from torchmetrics import MeanMetric

from health_actions.data.frames import read_settings
from health_actions.learning import features
from health_actions.learning.datasets import build_datasets, build_loader, derive_generator, take_clips
from health_actions.learning.precision import choose_precision, prepare_training
from health_actions.learning.recipe import Recipe, describe_model
from health_actions.learning.scores import predict_clips
from health_actions.models.network3d import Network3d
from health_actions.models.structure import count_operations
from health_actions.models.three_stream import fuse_streams
from health_actions.models.weights import save_model
from health_actions.paths import at_root, atomic_write, write_text
from health_actions.progress import log_message

for package in ("lightning.fabric", "lightning.pytorch"):
    logging.getLogger(package).setLevel(logging.WARNING)
TIE_BREAK = 1e-4  # small validation sets tie often: of epochs with the same accuracy that with the lower loss is best


def train_epoch(fabric: Fabric, network: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer,
                schedule: LRScheduler, recipe: Recipe, title: str) -> dict[str, float]:
    """One pass over the training clips; returns training_loss and training_clip_top1."""
    network.train()
    mean_loss, top1 = MeanMetric("disable").to(fabric.device), MeanMetric("disable").to(fabric.device)
    for clips, labels in loader:
        logits = network(clips).float()
        loss = compute_loss(logits, labels, recipe.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{title}: the loss is {loss.item()}; lower learning_rate (now "
                                     f"{recipe.learning_rate}) in params.yaml")
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        schedule.step()
        mean_loss.update(loss.detach().expand(len(labels)))
        top1.update((fuse_streams(logits).argmax(1) == labels).float())
    return {"training_loss": mean_loss.compute().item(), "training_clip_top1": top1.compute().item()}


@torch.no_grad()
def evaluate_epoch(fabric: Fabric, network: nn.Module, loader: DataLoader) -> dict[str, float]:
    """One pass over the clips that choose the epoch; returns validation_loss and validation_clip_top1."""
    network.eval()
    mean_loss, top1 = MeanMetric("disable").to(fabric.device), MeanMetric("disable").to(fabric.device)
    for clips, labels in loader:
        with fabric.autocast():
            logits = fuse_streams(network(clips).float())
        mean_loss.update(nn.functional.cross_entropy(logits, labels).expand(len(labels)))
        top1.update((logits.argmax(1) == labels).float())
    return {"validation_loss": mean_loss.compute().item(), "validation_clip_top1": top1.compute().item()}


def compute_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0,
                 weights: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of logits (batch, classes); of several streams (batch, streams, classes) each learns on its own.

    `weights` (classes,): how much a clip of each class counts.
    """
    if logits.ndim == 3:
        logits, labels = logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1])
    return nn.functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer of everything in the network that is not frozen; the head may have a rate of its own."""
    head = {*network.get_submodule(network.head).parameters()} if isinstance(network, Network3d) else set()
    trained = [{"params": [each for each in network.parameters() if each.requires_grad and (each in head) == is_head],
                "lr": recipe.learning_rate * rate} for is_head, rate in ((False, 1.0), (True, recipe.head_rate))]
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(trained, momentum=recipe.momentum, dampening=recipe.dampening, **common)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(trained, betas=recipe.betas, **common)


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The learning rate at each step, `steps` an epoch; gamma multiplies it at milestones or after every epoch."""
    # Smith, 2018: rises from a 25th in the first 3 tenths, then falls to 0; beta1 or momentum: 0.95 to 0.85 and back.
    if recipe.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps=recipe.epochs * steps)
    if recipe.schedule == "steps":
        return MultiStepLR(optimizer, [epoch * steps for epoch in recipe.milestones], recipe.gamma)
    return LambdaLR(optimizer, lambda step: recipe.gamma ** (step // steps))


@dataclass(frozen=True)
class Run:
    """One recipe on one split, as `train_runs` takes it."""

    recipe: Recipe
    splits: pd.DataFrame  # one row a clip and fold: clip, class, fold, subset
    output: Path | None = None  # gets fold_<k>/ (weights.safetensors, card.json) and history.csv; None keeps no weights
    tested: bool = False  # predict each fold's test clips right after its training


@dataclass(frozen=True)
class Result:
    """Results of a run."""

    history: pd.DataFrame  # learning curves: fold, epoch, loss and clip_top1 of training and validation
    # A row a fold: fold, kept epoch and its clip_top1, training (top-1 on the training clips, in evaluation mode),
    # clips that chose it, seconds.
    chosen: pd.DataFrame
    predictions: pd.DataFrame | None  # as of `predict_clips`, all folds; None when the run was not tested


def train_fold(fabric: Fabric, fold: SimpleNamespace) -> None:
    """Train one fold, from its last checkpoint if there is one; the first of several processes keeps the result."""
    started, first, device, recipe = time.monotonic(), fabric.is_global_zero, fabric.device.type, fold.recipe
    fold.folder.mkdir(parents=True, exist_ok=True)
    prepare_training()
    torch.use_deterministic_algorithms(device == "cuda", warn_only=True)
    # One training at a time in a folder; a lock ends with its process, however that ends.
    with FileLock(fold.folder / "lock") if first else nullcontext():
        if fabric.broadcast(first and read_finished(fold) is not None):
            return
        kept = features.load_features(fold.features) if fold.features else None
        training, choosing = build_datasets(recipe, fold.splits, fold.classes, fold.frames_folder, kept, fold.rows)
        network = features.build_network(recipe, fold.classes, device)
        if fold.features:  # the backbone has done its part: only what follows it is trained, and saved in checkpoints
            backbone, network.features = network.features, nn.Identity()
            network.forward = getattr(network, "classify_streams", network.classify)
        elif fold.compiled:
            torch._dynamo.config.suppress_errors = True  # where it fails torch warns, and computes without it
            network.compile()
        if fabric.world_size > 1 and device == "cuda":
            network = convert_sync_batchnorm(network)  # timm's; Lightning's loses the activations of timm's layers
        model, optimizer = fabric.setup(network, build_optimizer(network, recipe))
        schedule = build_schedule(optimizer, recipe, math.ceil(len(training) / recipe.batch_size))
        state = {"network": model, "optimizer": optimizer, "schedule": schedule, "precision": fabric.strategy.precision,
                 "history": [], "best": {"score": -math.inf}}
        checkpoint, loading = fold.folder / "last.ckpt", "cpu" if fold.features else device
        if checkpoint.exists():
            fabric.load(checkpoint, state, weights_only=True)
        due = time.monotonic() + (120 if sum(map(torch.numel, network.parameters())) > 20_000_000 else 0)
        for epoch in range(len(state["history"]), recipe.epochs):
            training.draw = (recipe.seed, fold.number, epoch)
            choosing.draw = (recipe.window_seed, fold.number, epoch) if recipe.test_window == "random" else None
            torch.manual_seed(derive_generator(*training.draw, fabric.global_rank).initial_seed())  # dropout
            batches = build_loader(training, batch_size=recipe.batch_size // fabric.world_size, device=loading,
                                   shuffle=derive_generator(*training.draw))
            # Fabric gives each process its share of a batch and fills up the last one; so validation is shared here.
            share = Subset(choosing, range(fabric.global_rank, len(choosing), fabric.world_size))
            unseen = fabric.setup_dataloaders(build_loader(share, batch_size=recipe.batch_size, device=loading),
                                              use_distributed_sampler=False)
            now = f"{fold.title}, epoch {epoch + 1} of {recipe.epochs}"
            row = {"epoch": epoch + 1, **train_epoch(fabric, model, fabric.setup_dataloaders(batches), optimizer,
                                                    schedule, recipe, now),
                   **evaluate_epoch(fabric, network, unseen)}
            if not math.isfinite(row["validation_loss"]):
                raise FloatingPointError(f"{now}: the validation loss is {row['validation_loss']}; lower learning_rate "
                                         f"(now {recipe.learning_rate}) in params.yaml")
            state["history"].append(row)
            score = row["validation_clip_top1"] - TIE_BREAK * row["validation_loss"]
            if recipe.keep == "last" or score > state["best"]["score"]:
                state["best"] = {"score": score, **row, "weights": copy.deepcopy(network.state_dict())}
            if first:
                due = save_checkpoint(checkpoint, state) if time.monotonic() >= due else due
                log_message(f"{now}: loss {row['training_loss']:.3f}, clip top-1 {row['training_clip_top1']:.3f} in "
                            f"training, {row['validation_clip_top1']:.3f} in validation")
        if first:
            network.cpu().load_state_dict(state["best"]["weights"])
            if fold.features:
                network.features = backbone.cpu()
            finish_fold(fold, network, kept, state["history"], state["best"], time.monotonic() - started)
            checkpoint.unlink(missing_ok=True)


def save_checkpoint(file: Path, state: dict) -> float:
    """Save the state after an epoch; returns when to save again, so that slow saving takes 5 % of the time at most."""
    started, buffer = time.monotonic(), io.BytesIO()
    torch.save({name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in state.items()},
               buffer)  # not to the file: torch hides what a full disk says
    with atomic_write(file) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    taken = time.monotonic() - started
    return started + (21 * taken if taken > 0.5 else 0)


def finish_fold(fold: SimpleNamespace, network: nn.Module, kept: torch.Tensor | None, history: list[dict], best: dict,
                seconds: float) -> None:
    """Test and save a network with the weights of its kept epoch; finished.json then says that the fold is done."""
    recipe, subsets = fold.recipe, dict(list(fold.splits.groupby("subset")))
    card = {
        **describe_model(recipe, fold.classes, read_settings(fold.frames_folder)),
        "training": {**asdict(recipe), "frozen_backbone": bool(fold.features), "fold": fold.number},
        "data": {"sha256": fold.data, "clips": {name: len(part) for name, part in subsets.items()}},
        "scores": {"best_epoch": best["epoch"], "chosen_on": recipe.choose_on if recipe.keep == "best" else "none",
                   "validation_clip_top1": round(best["validation_clip_top1"], 4)}}
    card["architecture"] |= {"freeze": network.frozen} if hasattr(network, "frozen") else {}
    known = predict_clips(network, card, subsets["training"], frames_folder=fold.frames_folder, features=kept,
                          rows=fold.rows)
    card["scores"]["training_clip_top1"] = round(float((known["predicted"] == known["class"]).mean()), 4)
    record = {"history": [{"fold": fold.number, **row} for row in history],
              "chosen": [{"fold": fold.number, "epoch": best["epoch"], "clip_top1": best["validation_clip_top1"],
                          "training": card["scores"]["training_clip_top1"],
                          "clips": len(subsets[recipe.choose_on]), "seconds": seconds}]}
    if fold.tested:
        record["predictions"] = predict_clips(network, card, subsets["testing"], frames_folder=fold.frames_folder,
                                              features=kept, rows=fold.rows).to_dict("records")
    if fold.output:
        save_model(fold.output, network, card)
        record["model"] = features.hash_files(fold.output)
    write_text(fold.folder / "finished.json", json.dumps(record))


def read_finished(fold: SimpleNamespace) -> dict | None:
    """finished.json of a fold: rows of history, chosen, predictions; None where it is missing or its model changed."""
    file = fold.folder / "finished.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return None if record and fold.output and record.get("model") != features.hash_files(fold.output) else record


def train_runs(runs: dict[str, Run], index: pd.DataFrame, *, frames_folder: Path, resume_folder: Path,
               classes: list[str], accelerator: str = "auto", devices: int = 1, compile: bool | str = False,
               processes: int = -1) -> dict[str, Result]:
    """Train recipes, as many folds at a time as the CPU has cores, those that take longest first.

    Checkpoints, finished folds and the features of frozen backbones, which folds and recipes share, lie in
    `resume_folder` under a hash of everything they depend on: the same call resumes, or restores what is finished.

    Args:
        index: one row a clip, with its content hash, length and stride.
        accelerator: "auto", "cpu" or "gpu", else a ValueError.
        devices: GPUs, or processes on a CPU, that share each batch; under torchrun its number of processes counts.
        compile: speed networks up by torch.compile: True, False, or "auto", on a GPU alone.
        processes: folds at a time on a CPU; -1: one for each core. With a GPU or several devices it is one.
    """
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    for name, value, known in (("compile", compile, (True, False, "auto")),
                               ("accelerator", accelerator, ("auto", "cpu", "gpu")[:2 + (device == "cuda")])):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))} on this machine, found {value!r}")
    launched = torch.distributed.is_torchelastic_launched()
    local, world = (int(os.environ[f"{prefix}WORLD_SIZE"]) if launched else devices for prefix in ("LOCAL_", ""))
    hardware = {"accelerator": device, "devices": local, "num_nodes": world // local}
    fabric = start_fabric(**hardware) if launched else start_fabric()
    fabric.launch()
    shared = {"frames_folder": Path(frames_folder), "classes": list(classes),
              "compiled": compile is True or compile == "auto" and device == "cuda"}
    plans = fabric.broadcast({name: plan_run(name, run, index, Path(resume_folder), device, world, shared)
                              for name, run in runs.items()} if fabric.is_global_zero else None)
    waiting = [fold for plan in plans.values() for fold in plan if read_finished(fold) is None]
    calls = [joblib.delayed(launch_fold)(hardware, fold) for fold in sorted(waiting, key=lambda fold: -fold.cost)]
    processes = 1 if device == "cuda" or world > 1 else max(1, min(joblib.effective_n_jobs(processes), len(calls)))
    together = world > 1 and not launched  # Fabric starts processes from a worker: it cannot from a notebook's kernel
    with joblib.parallel_config("loky", initializer=start_worker, initargs=(os.getpid(),),
                                inner_max_num_threads=max(1, joblib.cpu_count() // max(processes, local))):
        joblib.Parallel(2 if together else processes, pre_dispatch=1 if together else "2 * n_jobs")(calls)
    fabric.barrier()
    results = {}
    for name, plan in plans.items():
        records = [read_finished(fold) for fold in plan]
        tables = {key: pd.DataFrame([row for record in records for row in record[key]])
                  for key in records[0] if key != "model"}
        results[name] = Result(tables["history"].round(6), tables["chosen"], tables.get("predictions"))
        if runs[name].output and fabric.is_global_zero:
            write_text(Path(runs[name].output) / "history.csv", results[name].history.to_csv(index=False))
    return results


def plan_run(name: str, run: Run, index: pd.DataFrame, resume_folder: Path, device: str, world: int, shared: dict
             ) -> list[SimpleNamespace]:
    """The folds of a run, each with all that `train_fold` needs; features of a frozen backbone are computed here."""
    recipe, frames_folder, classes = run.recipe, shared["frames_folder"], shared["classes"]
    if recipe.batch_size % world:
        raise ValueError(f"batch_size must be a multiple of the {world} devices, found {recipe.batch_size}")
    recipe = replace(recipe, seed=torch.seed() % 2**31 if recipe.seed is None else recipe.seed)
    network = features.build_network(recipe, classes, device)
    recipe = replace(recipe, precision=choose_precision(recipe.precision, device, network))
    clips = take_clips(run.splits, index)
    kept = features.prepare_features(recipe, clips, classes, frames_folder, resume_folder, device, network)
    data = features.hash_text(clips.merge(run.splits, on="clip").to_csv(index=False),
                              json.dumps(read_settings(frames_folder)))
    from_file = recipe.weights not in (None, "imagenet", "kinetics400")
    weights = features.hash_files(at_root(recipe.weights)) if from_file else ""
    key = features.hash_text(json.dumps(asdict(recipe)), str(classes), data, features.hash_code(), str(run.tested),
                             weights)
    trained = sum(weights.numel() for weights in network.parameters() if weights.requires_grad)
    cost = recipe.epochs * (recipe.window * trained if kept else
                            count_operations(network, frames=recipe.window, size=recipe.size))
    rows = {clip: row for row, clip in enumerate(clips["clip"])}  # of the features
    return [SimpleNamespace(
        **shared, recipe=recipe, splits=splits, number=int(number), tested=run.tested, features=kept, rows=rows,
        data=data, cost=cost * len(splits), title=f"{name}, fold {number} of {run.splits['fold'].max()}",
        folder=resume_folder / f"{recipe.architecture}-{key}" / f"fold_{number}",  # of checkpoint and finished.json
        output=run.output and Path(run.output) / f"fold_{number}") for number, splits in run.splits.groupby("fold")]


def start_fabric(accelerator: str = "cpu", devices: int = 1, num_nodes: int = 1, precision: str = "32-true") -> Fabric:
    """Fabric on so many devices: processes of torchrun, or processes that its `launch` starts."""
    method = "popen" if torch.distributed.is_torchelastic_launched() else "spawn"
    patience = timedelta(days=1)  # so long they wait for the one that computes features or tests a model
    strategy = DDPStrategy(start_method=method, timeout=patience) if devices * num_nodes > 1 else "auto"
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy, precision=precision)


def launch_fold(hardware: dict, fold: SimpleNamespace) -> None:
    """`train_fold` on all devices together. What follows cached features is small, and fastest in float32."""
    fabric = start_fabric(**hardware, precision="32-true" if fold.features else fold.recipe.precision)
    try:
        fabric.launch(functools.partial(train_fold, fold=fold))  # a recipe as an argument of its own is refused
    except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException) as error:
        raise ChildProcessError(f"{fold.title}: {str(error).strip().splitlines()[-1]}") from None


def start_worker(parent: int) -> None:
    """Prepare a process of joblib: it ends when its parent has ended, so that it never writes beside the next run."""
    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
    multiprocessing.set_start_method("spawn", force=True)  # of Fabric's processes, which do not know joblib's method
