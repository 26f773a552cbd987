"""The command line: `health-actions train`, `evaluate`, `predict`. The commands import torch: --help is quick.

Options may be written as in study A's own commands, --num_frames for --num-frames.
"""

import csv
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from health_actions.paths import find_root, list_files

Study = Annotated[Literal["handwash", "ntu"] | None, typer.Option(
    help="handwash: hand-wash actions; ntu: medical actions. Of a checkpoint, it is known.")]
Model = Annotated[str | None, typer.Option(
    "--model", "--arch",
    help="An architecture or network; landmarks; best: the network for pictures that is best by validation.")]
Checkpoint = Annotated[Path | None, typer.Option(
    help="A model in place of the project's: a model folder, a folder of folds as of train, or a published .pt or .pth "
         "file.")]
Cuda = Annotated[bool, typer.Option("--cuda", help="Use a GPU, where there is one.")]

app = typer.Typer(context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
                  add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Recognise hand-wash actions (study handwash) and medical actions (study ntu) in videos.")


@app.command()
def predict(
    paths: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of videos.")] = None,
    study: Study = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    video_path: Annotated[list[Path] | None, typer.Option(help="The same as PATHS.")] = None,
    cuda: Cuda = False,
    reject: Annotated[bool, typer.Option(help="Answer 'none of these' for clips unlike the training clips.")] = True,
    timeline: Annotated[bool, typer.Option("--timeline", help="When each action is seen.")] = False,
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Of the output.")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
) -> None:
    """Print the action of each video; of one above 30 seconds, the action of most of its time.

    Without --model and --checkpoint the landmark stream answers. Exit code 1 when a file could not be used; the others
    are predicted.
    """
    from joblib import Parallel, delayed

    from health_actions.analysis.studies import load_recogniser
    from health_actions.analysis.timeline import answer_video
    from health_actions.progress import track

    try:
        videos = list_videos([*(paths or []), *(video_path or [])])
        recogniser = load_recogniser(find_root(), study, model, checkpoint=checkpoint, reject=reject,
                                     device=choose_device(cuda))
    except (ValueError, OSError) as error:
        raise stop(error) from None
    work = Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        delayed(answer_video)(recogniser, path, timeline) for path in videos)
    rows = list(track(work, total=len(videos), title="videos"))
    print_predictions(rows, recogniser.classes, "json" if as_json else "csv" if as_csv else form, timeline)
    raise typer.Exit(int(any(row["error"] for row in rows)))


def list_videos(paths: list[Path]) -> list[Path]:
    """The files among paths, and the videos in and below folders among them. Raises ValueError where there are none.

    Of folders, hidden files are passed over; a line on stderr says how many other files are no videos.
    """
    from health_actions.data.video import SUFFIXES

    found, skipped = [], []
    if not paths:
        raise ValueError("no video named: give paths of videos, or of folders of videos")
    for path in paths:
        if not path.exists():
            raise ValueError(f"no such file or folder: {path}")
        if path.is_dir():
            files = {target: file for file, target in list_files(path)}.values()  # each once, wherever links lead
            inside = [file for file in files if file.suffix.lower() in SUFFIXES or file.is_dir()]
            skipped += [file.suffix or "none" for file in files
                        if file.suffix.lower() not in SUFFIXES and not file.is_dir()]
        else:
            inside = [path]
        if not inside:
            raise ValueError(f"no videos in {path}: expected files with the endings {', '.join(SUFFIXES)}")
        found += inside
    if skipped:
        print(f"skipped: {len(skipped)} files that are not videos by their endings ({', '.join(sorted(set(skipped)))})",
              file=sys.stderr)
    return found


def print_predictions(rows: list[dict], classes: list[str], form: str, timeline: bool = False) -> None:
    """Print rows of `answer_video` as a "table" for people, as "json" or as "csv"; with `timeline` a row an event."""
    sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    if form == "json":
        print(json.dumps(rows, indent=1))
        return
    if timeline:
        rows = [{**row, **event} for row in rows
                for event in row["events"] or [{"action": row["action"] and "no action", "probability": None}]]
    columns = ["file", *(["start", "end"] if timeline else []), "action", "probability", "error"]
    if form == "csv":
        columns += [] if timeline else classes
        writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **row["probabilities"]} for row in rows)
        return
    width = max(len(row["file"]) for row in rows)
    for row in rows:
        when = f"{row['start']:7.1f} -{row['end']:7.1f} s  " if "start" in row else ""
        sure = "" if row["probability"] is None else f"{row['probability']:.3f}"
        answer = f"error: {row['error']}" if row["error"] else f"{when}{row['action']:<15}  {sure}".rstrip()
        print(f"{row['file']:<{width}}  {answer}")


@app.command()
def evaluate(
    study: Study = None,
    model: Model = None,
    subset: Annotated[Literal["validation", "test"], typer.Option("--subset", "--dataset", help="Which clips.")] = (
        "validation"),
    checkpoint: Checkpoint = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips at a time.")] = None,
    cuda: Cuda = False,
) -> None:
    """Print the accuracy of a trained model, all its folds together, with the 95 % interval.

    Without --model and --checkpoint it is the best one. A single model is tested on the clips of its own fold, one of a
    file on those of the first fold.
    """
    from health_actions.analysis.checkpoints import adopt_weights, open_checkpoint
    from health_actions.analysis.studies import choose_model_folder
    from health_actions.learning.scores import bootstrap_interval, predict_clips, predict_folds
    from health_actions.models.weights import load_model

    try:
        root, device = find_root(), choose_device(cuda)
        if checkpoint is None:
            folder = choose_model_folder(root, study, model or "best").parent
        else:
            path, card, study = open_checkpoint(root, checkpoint, model, study)
            folder = adopt_weights(root, path, card) if path.is_file() else checkpoint
        splits = read_annotations(root, study, "splits")
        chosen = splits[splits["subset"] == {"test": "testing"}.get(subset, subset)].assign(subset="testing")
        options = {"frames_folder": root / "build" / study / "frames", "batch": batch}
        if (folder / "card.json").is_file():
            fold = card["training"].get("fold")
            chosen = chosen[chosen["fold"] == fold]
            if chosen.empty:
                raise ValueError(f"{checkpoint} is of fold {fold}, of which there are no {subset} clips")
            table = predict_clips(*load_model(folder, device), chosen, **options)
        else:
            table = predict_folds(folder, chosen, device=device, **options)
    except (ValueError, OSError) as error:
        raise stop(error) from None
    right = table["class"] == table["predicted"]
    low, high = bootstrap_interval(right, table["recording"])
    print(f"{checkpoint or folder}: {subset} clip top-1 {right.mean():.3f} (95 % interval over "
          f"{table['recording'].nunique()} performers {low:.3f} to {high:.3f}), {right.sum()} of {len(table)} clips")


@app.command()
def train(
    arch: Annotated[str | None, typer.Option(
        help="Architecture or network: see the models of the study in params.yaml.", show_default="custom")] = None,
    save_dir: Annotated[Path | None, typer.Option(
        help="Gets a folder for each fold.", show_default="save_weights/<architecture>")] = None,
    study: Study = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips in a step.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames in the model's window.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Pixels.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    beta1: Annotated[float | None, typer.Option(min=0, max=1, help="Of Adam.")] = None,
    beta2: Annotated[float | None, typer.Option(min=0, max=1, help="Of Adam.")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    gamma: Annotated[float | None, typer.Option(help="Factor of the learning rate at each step.")] = None,
    step_size: Annotated[int | None, typer.Option(min=1, help="Epochs between two such steps.")] = None,
    cuda: Cuda = False,
    checkpoint: Annotated[str | None, typer.Option(
        help="Initial weights: imagenet; or a model folder, a folder of folds or a published .pt or .pth file, whose "
             "architecture, frame size and window are then taken.")] = None,
    data_aug: Annotated[str | None, typer.Option(help="none, translation (or translate), contrast or mirror.")] = None,
    aug_prob: Annotated[float | None, typer.Option(min=0, max=1, help="Share of clips that are augmented.")] = None,
    folds: Annotated[int, typer.Option(
        min=1, help="Train the first so many folds; from a fold of a model of these classes, that one alone.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
) -> None:
    """Train one architecture; other values are as in params.yaml. After an interruption, the same command resumes."""
    from health_actions.analysis.checkpoints import open_checkpoint
    from health_actions.learning.recipe import make_recipe
    from health_actions.learning.training import Run, train_runs
    from health_actions.params import read_params

    try:
        root, device, start, own_fold = find_root(), choose_device(cuda), {"weights": checkpoint}, None
        if checkpoint and (checkpoint not in ("imagenet", "kinetics400")):
            path, card, study = open_checkpoint(root, checkpoint, arch, study)
            kept = dict(card["architecture"])
            arch = kept.pop("name")
            options = {name: kept[name] for name in kept if name not in ("num_classes", "frames", "size", "pretrained")}
            start = {"weights": os.path.relpath(path, root), "size": kept["size"], "window": kept["frames"],
                     "options": options}
            own_fold = card["training"].get("fold") if path.is_dir() else None
        study, arch = study or "handwash", arch or "custom"
        settings = read_params(root)[study]
        aug = data_aug and {"translate": "translation"}.get(data_aug.lower(), data_aug.lower())
        given = {"epochs": epochs, "batch_size": batch, "window": num_frames, "size": size, "learning_rate": lr,
                 "weight_decay": weight_decay, "gamma": gamma, "augmentation": aug,
                 "augmentation_probability": aug_prob, "seed": seed}
        recipe = make_recipe(settings, study, arch,
                             start | {name: value for name, value in given.items() if value is not None})
        arch = recipe.architecture
        save_dir = save_dir or Path("save_weights") / arch
        betas = [new if new is not None else old for new, old in zip((beta1, beta2), recipe.betas, strict=True)]
        recipe = dataclasses.replace(recipe, betas=betas)
        if step_size:
            milestones = list(range(step_size, recipe.epochs, step_size))
            recipe = dataclasses.replace(recipe, schedule="steps", milestones=milestones)
        splits = read_annotations(root, study, "splits")
        is_own = own_fold is not None and card["classes"] == settings["classes"]  # other folds' tests trained it
        chosen = splits[splits["fold"] == own_fold if is_own else splits["fold"] <= folds]
        if chosen.empty:
            raise ValueError(f"{checkpoint} is of fold {own_fold}, which the split in use does not have")
        result = train_runs({arch: Run(recipe, chosen, save_dir)},
                            read_annotations(root, study, "clips"), frames_folder=root / "build" / study / "frames",
                            resume_folder=root / ".resume" / study, classes=settings["classes"],
                            accelerator="gpu" if device == "cuda" else "cpu")[arch]
    except (ValueError, OSError, FloatingPointError) as error:
        raise stop(error) from None
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, one speaks for all
        print(result.chosen.drop(columns="seconds").round(3).to_string(index=False))
        print(f"Models: {save_dir}. Their accuracy: health-actions evaluate --study {study} --checkpoint {save_dir}")


def choose_device(cuda: bool) -> str:
    """"cuda" where it is asked for and there, else "cpu"; a line on stderr says where it is not there."""
    import torch

    if cuda and not torch.cuda.is_available():
        print("--cuda: this machine has no GPU that torch can use; the processor does it", file=sys.stderr)
    return "cuda" if cuda and torch.cuda.is_available() else "cpu"


def read_annotations(root: Path, study: str, name: str):
    """The table of a study's `splits` or `clips`. Raises FileNotFoundError when the annotations were not made."""
    import pandas as pd

    file = root / "build" / study / "annotations" / f"{name}.csv"
    if not file.is_file():
        raise FileNotFoundError(f"no {file.relative_to(root)}: run dvc repro {study}_annotations first")
    return pd.read_csv(file, dtype={"recording": str})


def stop(error: Exception) -> typer.Exit:
    """Print an error in one line; the exit code is 2."""
    print(f"error: {error}", file=sys.stderr)
    return typer.Exit(2)


@app.command()
def check(
    study: Annotated[Literal["handwash", "ntu"] | None, typer.Option(help="Look at the clips of one study.")] = None,
) -> None:
    """Check params.yaml and the clips in data/, without decoding. Exit code 1 when a run would stop or lack a class."""
    from health_actions.params import inspect_params, inspect_stages

    try:
        root = find_root()
        params, faults = inspect_params(root)
        faults = faults or inspect_stages(root)
    except (ValueError, OSError) as error:
        raise stop(error) from None
    print(f"params.yaml, profile {params['profile']}: {f'{len(faults)} wrong' if faults else 'every value is allowed'}",
          *faults, sep="\n  ")
    right = not faults
    for name in [study] if study else ["handwash", "ntu"]:
        try:
            right &= check_clips(root / "data" / name, params[name])
        except (LookupError, TypeError, AttributeError):
            if not faults:
                raise
            print(f"data/{name}: not looked at, correct params.yaml first")
    raise typer.Exit(int(not right))


def check_clips(folder: Path, settings: dict) -> bool:
    """Print which clips of a study's data folder would be used; whether each class has some and they can be split."""
    from health_actions.data.clips import find_clips
    from health_actions.data.splits import SUBSETS, make_splits

    place, classes = f"data/{folder.name}", settings["classes"]
    print(f"{place}: expected {place}/<class>/<clip>.mp4 or {place}/<train, val or test>/<class>/<clip>.mp4"
          + (f" or {place}/S001C001P001R001A043_rgb.avi" if folder.name == "ntu" else ""))
    others = [*settings.get("source_classes", []), *settings.get("everyday_classes", [])]
    values = {name: settings["annotations"][name] for name in ("protocol", "folds", "test_on", "seed", "shares")}
    values["lists"] = folder.parents[1] / settings["annotations"]["lists"]
    try:
        found = find_clips(folder, classes + others, naming=folder.name)
        for title, column in (("left out", "reason"), ("used", "note")):
            for why, paths in found[found[column] != ""].groupby(column)["path"]:
                print(f"  {title}, {why}: {', '.join(paths[:3])}" + f" and {len(paths) - 3} more" * (len(paths) > 3))
        counts = found.loc[found["reason"] == "", "class"].value_counts().to_dict()
        for title, known in (("classes", classes), ("other classes", others)):
            print(f"  clips of {title}: {', '.join(f'{name} {counts.get(name, 0)}' for name in known) or 'none'}")
        own = found[(found["reason"] == "") & found["class"].isin(classes)]
        print(f"  {own['recording'].nunique()} performers or recordings, {own['scene'].nunique()} scenes or cameras")
        subsets = make_splits(own, **values).query("fold == 1")["subset"].value_counts()
        print(f"  first fold: {', '.join(f'{subsets.get(name, 0)} {name}' for name in SUBSETS)} clips")
    except (ValueError, FileNotFoundError) as error:  # no clips (NoClips), or none that can be split
        print(f"  {error}")
        return False
    return {*classes} <= {*counts}
