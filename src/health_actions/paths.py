"""Where things lie: paths are relative to the project's root, wherever Jupyter was started."""

import errno
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

# A file that gets a line for each file that a cell of a notebook writes: where a reader of a report finds its origin.
WRITTEN_VARIABLE = "HEALTH_ACTIONS_WRITTEN"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, somebody's share of it, the size that a file may have


def find_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the working folder) that holds dvc.yaml."""
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no dvc.yaml in {start} or above it: start from inside the project")


def at_root(path: str | Path) -> Path:
    """A path given relative to the project's root, as one that can be opened from any working folder."""
    path = Path(path)
    return path if path.is_absolute() else find_root() / path


@contextmanager
def replacing(path: Path):
    """Give a temporary name beside `path` to write to; it becomes `path` only when the block ends without an error.

    A killed run or a full disk so never leaves half a file under a name that is trusted later.

    Raises:
        OSError: naming the file, the reason and, where the disk is full, what to do.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
        note_written(path)
    except (OSError, SafetensorError) as error:  # weights are written by a library that has its own errors
        reason, code = getattr(error, "strerror", None) or str(error), getattr(error, "errno", None)
        if code in FULL or any(f"(os error {number})" in reason for number in FULL):
            reason += "; make room on that disk and run it again: what was finished is kept"
        raise OSError(f"could not write {path}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def note_written(path: Path) -> None:
    """Note which cell of the notebook that is being run wrote a file; nothing where no stage runs this notebook."""
    record, interactive = os.environ.get(WRITTEN_VARIABLE), sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive else None
    if record and shell:
        name = os.path.relpath(path, find_root())
        with open(record, "a", encoding="utf-8") as file:
            file.write(json.dumps({"file": Path(name).as_posix(), "count": len(shell.user_ns["In"]) - 1}) + "\n")
