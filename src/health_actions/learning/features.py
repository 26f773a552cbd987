"""Features of frozen backbones: computed once for all folds, epochs and recipes that share them, and kept in files."""

import contextlib
import functools
import hashlib
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from health_actions.data.frames import read_settings
from health_actions.learning.datasets import FRAMES, build_datasets
from health_actions.learning.precision import prepare_training
from health_actions.learning.recipe import Recipe, describe_architecture
from health_actions.models import build_model
from health_actions.models.speedups import speed_up
from health_actions.paths import atomic_write
from health_actions.progress import track

CLIPS_A_JOB = 4  # clips that go through a backbone in one process before the progress bar moves


def hash_text(*texts: str) -> str:
    """20 hexadecimal digits that stand for some texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:20]


def hash_files(path: Path) -> str:
    """20 hexadecimal digits that stand for a file, or for the names and contents of a folder's files."""
    files = [file for file in sorted(Path(path).rglob("*")) or [Path(path)] if file.is_file() and file.suffix != ".pyc"]
    return hash_text(*(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files))


@functools.cache
def hash_code() -> str:
    """A hash of the code that results depend on, so that nothing is restored that other code made."""
    return hash_text(*(hash_files(Path(__file__).parents[1] / package) for package in ("data", "models", "learning")))


def build_network(recipe: Recipe, classes: list[str], device: str = "cpu") -> nn.Module:
    """The recipe's network with the first weights of its seed, sped up on a CPU."""
    torch.manual_seed(recipe.seed)
    network = build_model(**describe_architecture(recipe, classes))
    return speed_up(network) if device == "cpu" else network


def prepare_features(recipe: Recipe, clips: pd.DataFrame, classes: list[str], frames_folder: Path, cache: Path,
                     device: str = "cpu", network: nn.Module | None = None) -> Path | None:
    """The file with a frozen backbone's features of every frame of every clip, computed if it is missing.

    The recipe's seed and precision are resolved; "bf16-mixed" computes in bfloat16, anything else in float32. Clips (of
    `take_clips`) are looped to the length of the longest. A file's name is a hash of weights, clips, code and settings.
    """
    network = network or build_network(recipe, classes, device)
    if not getattr(network, "frozen", False) or recipe.crop != "squash":
        return None  # features would not be the same in every epoch
    copies = {"none": 0, "mirror": 1}.get(recipe.augmentation, recipe.augmented_copies)  # all mirrored ones are equal
    settings = [recipe.architecture, recipe.options, recipe.size, recipe.precision, recipe.normalisation, recipe.colour,
                read_settings(frames_folder), copies and [recipe.augmentation, copies, recipe.seed]]
    weights = b"".join(value.cpu().numpy().tobytes() for value in network.features.state_dict().values())
    name = hash_text(hash_code(), json.dumps(settings), hashlib.sha256(weights).hexdigest(),
                     clips[["clip", "content", "length", "stride"]].to_csv(index=False))
    file = Path(cache) / f"features-{name}.safetensors"
    with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt") as tensors:
        if "features" in tensors.keys():  # else it is damaged
            return file
    whole = replace(recipe, window=int(clips["length"].max()), stride=1, augmentation_probability=1.0)
    parts = [clips[start:start + CLIPS_A_JOB] for start in range(0, len(clips), CLIPS_A_JOB)]
    processes = 1 if device != "cpu" else max(1, min(joblib.effective_n_jobs(-1), len(parts)))
    # One thread a process: two that share each convolution stall whenever another program takes one of the cores.
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        encoded = joblib.Parallel(processes, return_as="generator")(
            joblib.delayed(_encode)(json.dumps([asdict(whole), classes]), part, frames_folder, copies, device)
            for part in parts)
        title = f"batches of {CLIPS_A_JOB} clips through the frozen backbone"
        features = torch.from_numpy(np.concatenate(list(track(encoded, total=len(parts), title=title)), axis=1))
    if copies:  # the clips as they are serve every augmentation
        others = clips, classes, frames_folder, cache, device, network
        features = torch.cat([load_features(prepare_features(replace(recipe, augmentation="none"), *others)), features])
    with atomic_write(file) as temporary:
        save_file({"features": features}, temporary)
    return file


def load_features(file: Path) -> torch.Tensor:
    """The features in a file of `prepare_features`: float16 (1 + augmented copies, clips, length, feature_width)."""
    return load_file(file)["features"]


def _encode(settings: str, clips: pd.DataFrame, frames_folder: Path, copies: int, device: str) -> np.ndarray:
    (recipe, classes, network), versions = _load_encoder(settings, device), []
    dataset, _ = build_datasets(recipe, clips.assign(subset="training"), classes, frames_folder)
    for number in range(1, 1 + copies) if copies else [0]:
        dataset.draw = (recipe.seed, number, int(clips.index[0])) if copies else None
        with torch.inference_mode():
            encoded = [network.encode(items[None].to(device))[0].half().cpu() for items, _ in dataset]
        versions.append(torch.stack(encoded))
    FRAMES.clear()  # they are not needed again
    return torch.stack(versions).numpy()  # float16 (versions, clips, length, feature_width)


@functools.lru_cache(maxsize=1)
def _load_encoder(settings: str, device: str) -> tuple[Recipe, list[str], nn.Module]:
    prepare_training()
    settings, classes = json.loads(settings)
    recipe = Recipe(**settings)
    network = build_network(recipe, classes, device).to(device).eval()
    fuse_normalisation(network.features)
    if recipe.precision == "bf16-mixed":
        # Not autocast: with the weights in bfloat16 once and for all, frames go through 1.7 times as fast.
        network.features.to(torch.bfloat16).register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
    return recipe, classes, network


def fuse_normalisation(network: nn.Module) -> None:
    """Fuse batch normalisations with the convolutions right before them, in place; in evaluation it saves a third."""
    for parent in list(network.modules()):
        for (first, convolution), (second, normalisation) in itertools.pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(convolution, normalisation)
                setattr(parent, first, fused.to(memory_format=torch.channels_last))
                setattr(parent, second, getattr(normalisation, "act", nn.Identity()))  # timm's have an activation
