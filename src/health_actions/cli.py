"""The command line: `health-actions train`, `evaluate` and `predict`, with defaults from params.yaml."""

import csv
import dataclasses
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from health_actions.analysis.recognition import Recogniser
from health_actions.analysis.studies import NotTrained, choose_folder, load_recogniser, read_params
from health_actions.data.sandbox import sample_apart
from health_actions.data.video import SUFFIXES, UnreadableVideo
from health_actions.learning.evaluation import give_interval, predict_folds
from health_actions.learning.recipe import Recipe
from health_actions.learning.training import Run, train_runs
from health_actions.paths import find_root

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Recognise hand-wash actions (study handwash) and medical actions (study ntu) in videos.")


class Study(StrEnum):
    """The two studies."""

    handwash = "handwash"
    ntu = "ntu"


class Subset(StrEnum):
    """Clips of a split that a model did not learn from."""

    validation = "validation"
    test = "test"


class Form(StrEnum):
    """How predictions are written."""

    table = "table"
    json = "json"
    csv = "csv"


def stop(message: str) -> typer.Exit:
    """Say what is wrong in one line; the exit code is 2."""
    print(f"error: {message}", file=sys.stderr)
    return typer.Exit(2)


def list_videos(paths: list[Path]) -> list[Path]:
    """The files among paths, and the videos in folders among them and below, in order.

    Raises:
        ValueError: when a path does not exist, or a folder holds no video.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise ValueError(f"no videos in {path}; known are {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"no such file or folder: {path}")
    return found


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Videos, or folders of videos.")],
    study: Annotated[Study, typer.Option(help="Which actions to look for.")] = Study.ntu,
    model: Annotated[str, typer.Option(help="An architecture or network; best: by validation.")] = "best",
    reject: Annotated[bool, typer.Option(
        help="Say 'none of these' of clips that are unlike those that the model learned from.")] = True,
    form: Annotated[Form, typer.Option("--format", help="Of what is printed.")] = Form.table,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
) -> None:
    """Which action does each clip show? Exit code 1 when a file could not be used; the others are predicted."""
    try:
        videos = list_videos(paths)
        recogniser = load_recogniser(find_root(), study.value, model, reject=reject)
        recogniser.read = sample_apart  # a file that crashes its decoder, or hangs, does not end the others
    except (ValueError, OSError) as error:
        raise stop(str(error)) from None
    rows = [predict_video(recogniser, path) for path in videos]
    write_predictions(rows, recogniser.classes, Form.json if as_json else Form.csv if as_csv else form)
    raise typer.Exit(int(any(row["error"] for row in rows)))


def predict_video(recogniser: Recogniser, path: Path) -> dict:
    """What a model says of a file: file, action, probability and probabilities, a share a class; or file and error."""
    try:
        answer = recogniser.recognise(path)
    except UnreadableVideo as error:
        return {"file": str(path), "action": None, "probability": None, "error": str(error)}
    shares = {name: round(float(share), 4)
              for name, share in zip(recogniser.classes, answer.probabilities, strict=True)}
    return {"file": str(path), "action": answer.action, "probability": max(shares.values()), "error": None,
            "probabilities": shares}


def write_predictions(rows: list[dict], classes: list[str], form: Form) -> None:
    """Print predictions as a table for people, as JSON or as CSV."""
    if form is Form.json:
        print(json.dumps(rows, indent=1))
    elif form is Form.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(["file", "action", "probability", "error", *classes])
        for row in rows:
            shares = row.get("probabilities", {})
            writer.writerow([row["file"], row["action"], row["probability"], row["error"],
                             *(shares.get(name) for name in classes)])
    else:
        width = max(len(row["file"]) for row in rows)
        for row in rows:
            said = f"error: {row['error']}" if row["error"] else f"{row['action']:<15}  {row['probability']:.3f}"
            print(f"{row['file']:<{width}}  {said}")


@app.command()
def evaluate(
    study: Annotated[Study, typer.Option(help="Whose clips, split and models.")] = Study.handwash,
    model: Annotated[str, typer.Option(help="An architecture or network; best: by validation.")] = "best",
    subset: Annotated[Subset, typer.Option(help="Which clips.")] = Subset.validation,
    checkpoint: Annotated[Path | None, typer.Option(help="A folder of folds as of train; instead of --model.")] = None,
) -> None:
    """How often is a trained model right? All its folds together, with the 95 % interval."""
    root = find_root()
    try:
        folder = checkpoint or choose_folder(root, study.value, model).parent
        splits = read_annotations(root, study.value, "splits")
        asked = splits[splits["subset"] == {"test": "testing"}.get(subset.value, subset.value)]
        table = predict_folds(folder, asked.assign(subset="testing"), frames_folder=find_frames(root, study.value))
    except (ValueError, OSError) as error:
        raise stop(str(error)) from None
    right = int((table["class"] == table["predicted"]).sum())
    low, high = give_interval(right, len(table))
    print(f"{folder}: {subset.value} clip top-1 {right / len(table):.3f} (95 % interval {low:.3f} to {high:.3f}), "
          f"{right} of {len(table)} clips")


def find_frames(root: Path, study: str) -> Path:
    """The folder of a study's frames."""
    return root / "build" / study / "frames"


def read_annotations(root: Path, study: str, name: str) -> pd.DataFrame:
    """`splits` or `clips` of a study.

    Raises:
        NotTrained: when the annotations were not made.
    """
    file = root / "build" / study / "annotations" / f"{name}.csv"
    if not file.is_file():
        raise NotTrained(f"no {file.relative_to(root)}: run dvc repro {study}_annotations first")
    return pd.read_csv(file, dtype={"recording": str})


@app.command()
def train(
    arch: Annotated[str, typer.Option(help="Architecture or network: see the models of the study in params.yaml.")],
    save_dir: Annotated[Path, typer.Option(help="Gets a folder for each fold.")],
    study: Annotated[Study, typer.Option(help="Whose clips and split.")] = Study.handwash,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips of a step.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames that the model sees.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Pixels; one of those that were extracted.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    beta1: Annotated[float | None, typer.Option(min=0, max=1, help="Of Adam.")] = None,
    beta2: Annotated[float | None, typer.Option(min=0, max=1, help="Of Adam.")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    gamma: Annotated[float | None, typer.Option(help="Factor of the learning rate at each step.")] = None,
    step_size: Annotated[int | None, typer.Option(min=1, help="Epochs between two such steps.")] = None,
    cuda: Annotated[bool, typer.Option(help="Train on a GPU.")] = False,
    checkpoint: Annotated[str | None, typer.Option(help="Weights to start from: imagenet, or a model folder.")] = None,
    data_aug: Annotated[str | None, typer.Option(help="none, translation, contrast or mirror.")] = None,
    aug_prob: Annotated[float | None, typer.Option(min=0, max=1, help="Share of clips that are augmented.")] = None,
    folds: Annotated[int, typer.Option(min=1, help="How many folds of the split.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
) -> None:
    """Train one architecture; what is not given is as in params.yaml. Interrupted, the same command goes on."""
    root = find_root()
    try:
        recipe = make_recipe(root, study.value, arch, {
            "epochs": epochs, "batch_size": batch, "window": num_frames, "size": size, "learning_rate": lr,
            "weight_decay": weight_decay, "gamma": gamma, "weights": checkpoint, "augmentation": data_aug,
            "augmentation_probability": aug_prob, "seed": seed})
        betas = [new if new is not None else old for new, old in zip((beta1, beta2), recipe.betas, strict=True)]
        recipe = dataclasses.replace(recipe, betas=betas)
        if step_size:
            milestones = list(range(step_size, recipe.epochs, step_size))
            recipe = dataclasses.replace(recipe, schedule="steps", milestones=milestones)
        splits = read_annotations(root, study.value, "splits")
        result = train_runs({arch: Run(recipe, splits[splits["fold"] <= folds], save_dir)},
                            read_annotations(root, study.value, "clips"), frames_folder=find_frames(root, study.value),
                            resume_folder=root / ".resume" / study.value,
                            classes=read_params(root)[study.value]["classes"],
                            accelerator="gpu" if cuda else "cpu")[arch]
    except (ValueError, OSError, FloatingPointError) as error:
        raise stop(str(error)) from None
    print(result.chosen.drop(columns="seconds").round(3).to_string(index=False))
    print(f"Models: {save_dir}. Their accuracy: health-actions evaluate --study {study.value} --checkpoint {save_dir}")


def make_recipe(root: Path, study: str, arch: str, given: dict) -> Recipe:
    """A recipe of params.yaml with some of its values replaced.

    Args:
        given: values of `Recipe`; None leaves that of params.yaml.

    Raises:
        ValueError: for an architecture that params.yaml does not have; lists those it has.
    """
    params = read_params(root)
    settings = params[params["profile"]][study]
    if arch not in settings["architectures"]:
        raise ValueError(f"params.yaml has no architecture {arch!r} of study {study}; it has "
                         f"{', '.join(settings['architectures'])}")
    values = settings["train"] | settings["architectures"][arch]
    values |= {"epochs": settings["training"][arch]["epochs"]} if study == "ntu" else {}
    values |= {name: value for name, value in given.items() if value is not None}
    known = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(architecture=arch, **{name: value for name, value in values.items() if name in known})
