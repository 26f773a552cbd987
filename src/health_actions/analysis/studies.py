"""The models that `make repro` leaves in `build/`, found and made ready for whoever brings videos."""

from pathlib import Path

from health_actions.analysis.recognition import Familiarity, Recogniser, find_model
from health_actions.learning import comparison
from health_actions.paths import place_inside, read_yaml

STUDIES = ("handwash", "ntu")
FAMILIARITY = "familiarity.safetensors"


class NotTrained(FileNotFoundError):
    """There is no model to use; the message names the command that makes one."""


def read_params(root: Path) -> dict:
    """params.yaml, as a whole."""
    return read_yaml(root / "params.yaml")


def choose_folder(root: Path, study: str, model: str = "best") -> Path:
    """The folder of a study's model: the best by validation of its evaluation, or the one named.

    Args:
        root: of the project.
        study: "handwash" or "ntu".
        model: "best", or a name: of study A an architecture, of study B a network, or network/start.

    Raises:
        NotTrained: when the study was not run, or has no such model; lists those it has.
        ValueError: when its tables name a folder outside of its models.
    """
    folder = root / "build" / study / "models"
    if model != "best":
        known = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("fold_*")
                       if (path / "card.json").is_file())
        found = [name for name in dict.fromkeys(known) if name == model or name.startswith(f"{model}/")]
        if not found:
            names = ", ".join(dict.fromkeys(known)) or "none"
            raise NotTrained(f"no model {model!r} of study {study}; there are: {names}. make repro trains them")
        return find_model(folder / found[0])  # "pretrained" comes before "scratch"
    try:
        return find_model(place_inside(folder, comparison.choose_folder(root / "build" / study / "evaluation")))
    except FileNotFoundError as error:
        raise NotTrained(str(error)) from None


def load_recogniser(root: Path, study: str, model: str = "best", *, reject: bool = True) -> Recogniser:
    """A study's model, ready for videos.

    Args:
        root, study, model: see `choose_folder`.
        reject: say of clips that are unlike the training clips that they show none of the actions, where the model's
            familiarity was measured (stage `<study>_reject`, of the best model alone).

    Raises:
        NotTrained: see `choose_folder`.
    """
    folder = choose_folder(root, study, model)
    file = root / "build" / study / "reject" / folder.relative_to(root / "build" / study / "models") / FAMILIARITY
    return Recogniser(folder, frames=root / "build" / study / "frames",
                      familiarity=Familiarity.load(file) if reject and file.is_file() else None)
