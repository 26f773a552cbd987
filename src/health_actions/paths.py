"""Paths from the project's root, files in a folder, and files that are written whole or not at all."""

import errno
import os
import re
import shutil
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError
from safetensors import SafetensorError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file is larger than this disk or account allows"}


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


def place_inside(folder: Path, name: str) -> Path:
    """`folder / name`, where `name` came from a file: a table, a card or an archive that anybody may have written.

    Raises:
        ValueError: when it would lead out of the folder.
    """
    path = Path(str(name))
    if path.is_absolute() or ".." in path.parts or "\0" in str(name):
        raise ValueError(f"{str(name)!r} leads out of {folder or 'the project'}: what names it was not made by this "
                         "project; make it again (make repro)")
    return Path(folder) / path


def simplify_name(name: str) -> str:
    """The form in which names of folders and classes are compared: case does not matter; -, _ and blanks are equal."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).strip().lower())


def list_files(folder: Path, above: tuple[Path, ...] = (), listed: set[Path] | None = None
               ) -> Iterator[tuple[Path, Path]]:
    """Every file in and below a folder, without hidden ones, and every folder that cannot be opened.

    Links to folders are followed, but not in a circle. Deeper than folders of clips lie, <split>/<class>/, a folder
    that was listed is not listed again. Yields (path, place): where links lead to one file by several paths, these
    have one place.
    """
    place, listed = Path(folder).resolve(), set() if listed is None else listed
    if place in above or (len(above) > 2 and place in listed):
        return
    listed.add(place)
    try:
        os.stat(f"{folder}/.")  # a folder may allow to read its names alone
        paths = sorted(Path(folder).iterdir())
    except OSError:
        yield Path(folder), place
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from list_files(path, (*above, place), listed)
        else:
            yield path, place / path.name


def read_yaml(file: Path):
    """The content of a YAML file (see `parse_yaml`); FileNotFoundError when there is none."""
    return parse_yaml(Path(file).read_bytes(), Path(file).name)


def parse_yaml(text: str | bytes, name: str):
    """Read YAML 1.2 as DVC does (2e-05 is a number, `yes` is text); plain values only, no code is run.

    Raises:
        ValueError: when it is no YAML, or asks for more than plain values; has the name, the line and what is there.
    """
    try:
        return YAML(typ="safe", pure=True).load(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError:
        where, what = "", "it is not valid UTF-8: save it as UTF-8"
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    except (YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:  # "2026-13-01" is no date
        where, what = "", " ".join(str(error).split())
    raise ValueError(f"{name} is not readable: {where}{what}")


@contextmanager
def atomic_write(path: Path):
    """Give a temporary name beside `path` to write to; it becomes `path` only when the block ends without an error.

    So a killed run or a full disk never leaves an incomplete file under the final name.

    Raises:
        OSError: when it cannot be written; names the file and, on a full disk, how much is free and what to do.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, whatever the name: a file system allows 255 bytes.
    temporary = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # weights are written by a library that has its own errors
        code = getattr(error, "errno", None) or next((one for one in FULL if f"(os error {one})" in str(error)), None)
        if code not in FULL:
            raise OSError(f"could not write {path}: {getattr(error, 'strerror', None) or error}") from error
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OSError(f"could not write {path}: {FULL[code]} ({free:.0f} MB are free there); make room and run the "
                      "same command again, what is complete is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
