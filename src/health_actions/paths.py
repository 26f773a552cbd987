"""Where things lie: paths are relative to the project's root, wherever Jupyter was started."""

import os
from contextlib import contextmanager
from pathlib import Path


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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
