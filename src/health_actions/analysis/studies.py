"""The models of both studies in `build/`: which one is the best, where it is, and how to load it for videos."""

import json
import os
from pathlib import Path

from health_actions.analysis.checkpoints import ASK, adopt_weights, choose_fold, open_checkpoint
from health_actions.analysis.recognition import LandmarkRecogniser, Recogniser
from health_actions.analysis.rejection import MahalanobisDetector
from health_actions.data.sandbox import sample_in_sandbox
from health_actions.params import read_params

DETECTOR = "detector.safetensors"
LANDMARKS = "landmarks"  # the folder of the landmark stream among the models of a study


class NotTrained(FileNotFoundError):
    """A model is missing; the message names the command that makes it."""


def find_best(build: Path) -> str:
    """The best model by validation, as the evaluation in `build` (`build/<study>`) noted it: "squeezenet/pretrained".

    Raises:
        NotTrained: before the evaluation. ValueError: when its best.json is damaged.
    """
    file = Path(build) / "evaluation" / "best.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["model"])
    except FileNotFoundError:
        raise NotTrained(f"no trained and evaluated models: there is no {file}; run make repro first") from None
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} names no model ({error}): delete it and run make repro") from None


def choose_model_folder(root: Path, study: str | None, model: str = "best") -> Path:
    """The folder of a model of a study, "handwash" or "ntu": of its folds the one with the best validation.

    `model` is "best", an architecture of study A, or a network or network/start of study B.

    Raises:
        NotTrained: when there is no such model; lists those that exist. ValueError: when its files are damaged, or
            nobody said which study.
    """
    if study is None:
        raise ValueError(f"which study? {ASK}, or a model by --checkpoint")
    models = Path(root) / "build" / study / "models"
    name = find_best(models.parent) if model == "best" else model
    known = sorted({card.parents[1].relative_to(models).as_posix() for card in models.rglob("fold_*/card.json")})
    found = [each for title in (name, f"cnn_lstm_{name}") for each in known  # "pretrained" before "scratch"
             if each == title or each.startswith(f"{title}/")]
    if not found:
        raise NotTrained(f"no model {name!r} of study {study}; there are: {', '.join(known) or 'none'}. make repro "
                         "trains them")
    return choose_fold(models / found[0])


def load_recogniser(root: Path, study: str | None, model: str | None = None, *, checkpoint: Path | None = None,
                    reject: bool = True, unseen: bool = False, device: str = "cpu") -> Recogniser | LandmarkRecogniser:
    """The model of `choose_model_folder`, ready for videos that nobody has checked: it decodes them in the sandbox.

    Without a name it is the landmark stream; with a checkpoint, the model of `open_checkpoint`. With `reject` it says
    "none of these" to clips of unknown actions, where stage `reject` fitted a detector (of the best model alone). A
    landmark stream without a checkpoint is the one that learned from all clips; with `unseen` one that never saw the
    study's test clips.
    """
    if checkpoint:
        folder, card, study = open_checkpoint(root, checkpoint, model, study)
        folder, name = adopt_weights(root, folder, card) if folder.is_file() else folder, card["architecture"]["name"]
    else:
        folder = choose_model_folder(root, study, model or LANDMARKS)
        name = folder.parent.name
    build = Path(root).resolve() / "build" / study
    if name == LANDMARKS:
        options = {}
        if study == "ntu":
            settings = read_params(Path(root))["ntu"]
            options = {"alerts": settings["actions"]["alerts"],
                       "certainty": settings["landmark_fusion"]["certainty"]}
        whole = folder.with_name("all")
        exact = unseen or checkpoint or not whole.is_dir()
        return LandmarkRecogniser(folder if exact else whole, read=sample_in_sandbox, **options)
    file = build / "reject" / os.path.relpath(folder.resolve(), build / "models") / DETECTOR
    detector = MahalanobisDetector.load(file) if reject and file.is_file() else None
    return Recogniser(folder, detector=detector, read=sample_in_sandbox, device=device)
