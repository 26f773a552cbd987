"""Mend what a killed dvc left half-written: `python -m health_actions.mend`, which `make repro` runs first.

dvc writes the file of its locks and dvc.lock in place. Killed in the middle of that, it leaves one that it refuses to
read ever after. What is removed here is made again by the next run, or taken from dvc's cache.
"""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import yaml
from dvc.lock import LockError, make_lock
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK
from dvc.rwlock import SCHEMA as LOCKS
from dvc.schema import COMPILED_LOCKFILE_SCHEMA as STAGES
from voluptuous import Invalid

from health_actions.paths import find_root, write_text


def is_whole(file: Path, load, schema) -> bool:
    """Whether dvc can read a file; one that is not there does no harm."""
    try:
        schema(load(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return True
    except (ValueError, yaml.YAMLError, Invalid):
        return False
    return True


def keep_whole_stages(text: str) -> str:
    """The stages of a dvc.lock that was cut off somewhere: all but the last, of which nobody knows how far it came."""
    starts = [match.start() for match in re.finditer(r"^ {2}\S", text, re.MULTILINE)]
    return text[:starts[-1]] if len(starts) > 1 else ""


def mend(root: Path) -> list[str]:
    """Mend dvc's files in a project; tells in a line each what was done.

    Nothing is touched while dvc is at work there: what looks cut off then is being written.
    """
    folder, lock, done = root / ".dvc" / "tmp", root / "dvc.lock", []
    locks = folder / RWLOCK_FILE
    if is_whole(locks, json.loads, LOCKS) and is_whole(lock, yaml.safe_load, STAGES):
        return done
    folder.mkdir(parents=True, exist_ok=True)  # not there yet in a fresh clone
    with ExitStack() as stack:
        try:
            for name in ("lock", RWLOCK_LOCK):
                stack.enter_context(make_lock(str(folder / name), tmp_dir=str(folder)))
        except LockError:
            return done
        if not is_whole(locks, json.loads, LOCKS):
            locks.unlink()
            done.append(f"{locks.relative_to(root)} was cut off when dvc was killed: removed")
        if not is_whole(lock, yaml.safe_load, STAGES):
            kept = keep_whole_stages(lock.read_text(encoding="utf-8", errors="replace"))
            write_text(lock, kept) if kept else lock.unlink()
            done.append(f"{lock.name} was cut off when dvc was killed: stages that it no longer names run again")
    return done


if __name__ == "__main__":
    for line in mend(find_root()):
        print(line)
