"""Which weights a training of study B starts from: what the pretraining left, or a released file in `weights/`."""

import json
from pathlib import Path

from health_actions.paths import place_inside, write_text

SOURCE = ("the model zoo of the public repository okankop/Efficient-3DCNNs (Kopuklu et al., 2019), "
          "a folder of files that its README links")


def find_released(folder: Path, name: str) -> Path:
    """A released Kinetics-600 file.

    Raises:
        FileNotFoundError: when it is not there; says where to get it and how it must be called.
    """
    file = Path(folder) / name
    if not file.is_file():
        found = ", ".join(sorted(path.name for path in Path(folder).glob("*"))) or "nothing"
        raise FileNotFoundError(f"no {folder.name}/{name}: get it from {SOURCE} and put it there under this name. "
                                f"Found in {folder.name}/: {found}")
    return file


def write_start(folder: Path, weights: str | None) -> None:
    """Write `<folder>/start.json`: the path, from the project's root, of the weights to start from; None for none."""
    write_text(Path(folder) / "start.json", json.dumps({"weights": weights}) + "\n")


def read_start(folder: Path) -> str | None:
    """What `write_start` wrote.

    Raises:
        FileNotFoundError: when the pretraining has not run.
        ValueError: when the file is none of `write_start`, or leads out of the project.
    """
    file = Path(folder) / "start.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: run the pretraining first (make repro)")
    try:
        weights = json.loads(file.read_text(encoding="utf-8"))["weights"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} does not tell weights ({error}): run the pretraining again (make repro)") from None
    return None if weights is None else place_inside("", weights).as_posix()
