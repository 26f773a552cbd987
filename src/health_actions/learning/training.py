"""Training with Lightning: each fold its best epoch by validation, folds side by side, gone on with where it was."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import secrets
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import filelock
import joblib
import pandas as pd
import torch
from torch import nn

from health_actions.data.transforms import (
    build_augmentation,
    build_crops,
    build_input_transform,
    mirror_class,
)
from health_actions.learning.datasets import (
    FeatureDataset,
    FrameDataset,
    build_loader,
    cache_features,
    choose_workers,
    hash_code,
    hash_text,
    load_features,
    seed_of,
    take_clips,
)
from health_actions.learning.distributed import get_share, run_together, wait_for_all
from health_actions.learning.evaluation import predict_clips
from health_actions.learning.precision import choose_precision, prepare_training
from health_actions.learning.recipe import Recipe, describe_architecture, hash_weights
from health_actions.models import build_model
from health_actions.models.folder import save_model
from health_actions.paths import atomic_write, write_text


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
               classes: list[str], accelerator: str = "auto", devices: int = 1, num_nodes: int = 1,
               compile: bool | str = False, processes: int = -1) -> dict[str, Result]:
    """Train recipes, every fold of every one a job of its own, as many at a time as there are cores.

    Where the backbone is frozen, its features are computed once for all folds and all recipes that share them, and only
    the rest is trained. Checkpoints and finished folds of an interrupted call lie in `resume_folder` under a hash of
    everything that the result depends on.

    Args:
        runs: name -> what to train.
        index: one row a clip, with its content hash, length and stride.
        frames_folder: as written by `extract_frames`.
        classes: all classes in order.
        accelerator: as Lightning takes it ("auto", "cpu", "gpu").
        devices, num_nodes: GPUs, or processes on a CPU, that share each batch, on each of so many machines; above 1 see
            `health_actions.learning.distributed`, and results differ in the last digits.
        compile: let torch.compile make networks quicker: True, False, or "auto", on a GPU alone.
        processes: folds trained at a time on a CPU; -1: one for each core. On a GPU, and where several processes share
            a fold, they go one after the other.

    Raises:
        ChildProcessError: one of several processes failed; says what went wrong there.
        ValueError: for a choice that does not exist.
    """
    if compile not in (True, False, "auto"):
        raise ValueError(f"compile must be true, false or auto, found {compile!r}")
    device = "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    where = {"frames_folder": Path(frames_folder), "classes": list(classes), "device": device,
             "accelerator": accelerator, "compiled": compile is True or compile == "auto" and device == "cuda"}
    jobs, resumed, results = [], {}, {}
    for name, run in runs.items():
        seed = secrets.randbits(31) if run.recipe.seed is None else run.recipe.seed
        torch.manual_seed(seed)  # frozen random weights: the same as those of the folds
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
        finished = read_finished(resume, run)
        if finished is not None:
            results[name] = finished
            continue
        resumed[name] = resume
        features = prepare_features(recipe, clips, classes, frames_folder, resume_folder, device, network)
        for fold, part in run.splits.groupby("fold"):
            jobs.append({"name": name, "recipe": recipe, "part": part, "fold": int(fold), "clips": clips,
                         "features": features, "data": data.hexdigest(), "tested": run.tested,
                         "folder": resume / f"fold_{fold}", "output": run.output and Path(run.output) / f"fold_{fold}",
                         "title": f"{name}, fold {fold} of {run.splits['fold'].max()}"})
    jobs.sort(key=lambda job: -job["recipe"].epochs)  # most epochs first: no core waits for a long one at the end
    together = devices * num_nodes > 1 or get_share()[1] > 1
    processes = 1 if device == "cuda" or together else max(1, min(joblib.effective_n_jobs(processes), len(jobs)))
    threads = max(1, joblib.cpu_count() // processes) if processes > 1 else None
    calls = [joblib.delayed(train_fold)(**job, **where, threads=threads) for job in jobs]
    with joblib.parallel_config("loky", inner_max_num_threads=threads) if processes > 1 else warnings.catch_warnings():
        done = run_together(calls, devices, num_nodes) if together and calls else joblib.Parallel(processes)(calls)
    for name, resume in resumed.items():
        own = [result for job, result in zip(jobs, done, strict=True) if job["name"] == name]
        history, chosen, predictions = (pd.concat(tables, ignore_index=True) if tables[0] is not None else None
                                        for tables in zip(*own, strict=True))
        results[name] = Result(history.round(6), chosen, predictions)
        shutil.rmtree(resume, ignore_errors=True)
        if runs[name].output:
            with atomic_write(Path(runs[name].output) / "history.csv") as temporary:
                results[name].history.to_csv(temporary, index=False)
            if not runs[name].tested:
                record = {"chosen": chosen.to_dict("list"), "models": hash_models(runs[name].output)}
                write_text(resume / "finished.json", json.dumps(record))
    return {name: results[name] for name in runs}


def read_finished(resume: Path, run: Run) -> Result | None:
    """The result of an earlier run of the same recipe, clips and code whose models still stand in its output."""
    record = resume / "finished.json"
    if run.output is None or run.tested or not record.is_file():
        return None
    record = json.loads(record.read_text(encoding="utf-8"))
    if record["models"] != hash_models(run.output):
        return None
    return Result(pd.read_csv(Path(run.output) / "history.csv"), pd.DataFrame(record["chosen"]), None)


def hash_models(output: Path) -> str:
    """A hash of a run's models and learning curves; what others put beside them is none of it."""
    files = sorted(path for path in [*Path(output).glob("fold_*/*"), Path(output) / "history.csv"] if path.is_file())
    return hash_text(*(f"{file.relative_to(output)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files))


def train_fold(name: str, recipe: Recipe, part: pd.DataFrame, *, fold: int, clips: pd.DataFrame, features: Path | None,
               data: str, tested: bool, folder: Path, output: Path | None, title: str, frames_folder: Path,
               classes: list[str], device: str, accelerator: str, compiled: bool, threads: int | None):
    """Train one fold of a recipe; returns its rows of `Result`. See `train_runs`.

    Where several processes train it together, the first one alone locks, tests and writes.
    """
    import lightning  # takes a second, which those who only start or look up a training are spared

    from health_actions.learning.classifier import Classifier, fit

    share = get_share()
    is_first = share[0] == 0
    if threads:
        torch.set_num_threads(threads)
    prepare_training()
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    # Held by this process alone and freed when it ends, however it ends.
    with filelock.FileLock(folder / "lock") if is_first else contextlib.nullcontext():
        wait_for_all()
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

        make_loader = functools.partial(build_loader, batch_size=recipe.batch_size, device=device, share=share,
                                        workers=choose_workers(device) if kept is None else 0)

        def make_training_loader(epoch: int):
            augmented = 0.0 if augmentation is None else probability
            return make_loader(make_dataset(subsets["training"], (recipe.seed, fold, epoch), augmented),
                               shuffle=seed_of(recipe.seed, fold, epoch))

        def make_choosing_loader(epoch: int):
            drawn = (recipe.window_seed, fold, epoch, "choosing") if recipe.test_window == "random" else None
            return make_loader(make_dataset(choosing, drawn))

        classifier = Classifier(
            network, recipe, from_features=kept is not None, title=title, make_training_loader=make_training_loader,
            make_choosing_loader=make_choosing_loader, seed=seed_of(recipe.seed, fold).initial_seed())
        fit(classifier, folder=folder, epochs=recipe.epochs, device=device, accelerator=accelerator,
            is_worker=bool(threads), compiled=compiled,
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
                                    rows=rows) if tested and is_first else None
        if output and is_first:
            save_model(output, network, card)
    history.insert(0, "fold", fold)
    chosen = pd.DataFrame([{"fold": fold, "epoch": best["epoch"], "clip_top1": best["clip_top1"],
                            "clips": len(choosing), "seconds": time.monotonic() - started}])
    return history, chosen, predictions


def prepare_features(recipe: Recipe, clips: pd.DataFrame, classes: list[str], frames_folder: Path, cache: Path,
                     device: str = "cpu", network: nn.Module | None = None) -> Path | None:
    """Where the recipe's backbone is frozen, the file of the clips' features, made if it is not there; else None.

    `network` saves building the recipe's once more; its first weights are those of the recipe's seed.
    """
    if network is None:
        torch.manual_seed(recipe.seed)
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


