"""Parameters: params.yaml with the profile in use laid over the published one, and those of one stage of dvc.yaml."""

import re
from pathlib import Path

from health_actions.paths import read_yaml
from health_actions.schema import BASE, find_faults


def read_params(root: Path) -> dict:
    """All parameters of the profile in use: profile, machine, and for each study its classes, models and sections.

    Raises:
        FileNotFoundError, ValueError: when params.yaml is missing or unreadable, has no such profile, or values that
            `schema` does not allow, all of which are named.
    """
    merged, faults = inspect_params(root)
    if faults:
        raise ValueError(f"params.yaml: {'; '.join(faults)}")
    return merged


def inspect_params(root: Path, profile: str | None = None) -> tuple[dict, list[str]]:
    """The same of any profile, whatever its values are, and what is wrong with them."""
    values = read_yaml(Path(root) / "params.yaml")
    profile = profile or str(pick(values, "profile"))
    merged = {name: value for name, value in values.items() if name not in (BASE, profile)}
    for part in (pick(values, BASE), pick(values, profile)):
        merged = overlay(merged, part if isinstance(part, dict) else None)
    return merged, find_faults(values, merged)


def read_stage(root: Path, stage: str) -> tuple[dict, str]:
    """What the `params:` of a stage in dvc.yaml stand for, and the path of the executed notebook among its `outs:`.

    Args:
        root: of the project.
        stage: as dvc calls it: `name`, or `name@value` where it has a matrix (of one key).

    Returns:
        Section or value, without profile and study ("training" for `${profile}.ntu.training`) -> content; the path.

    Raises:
        FileNotFoundError, ValueError: when a file is missing or unreadable, or has no such stage or parameter.
    """
    return _fill_stage(*(read_yaml(Path(root) / name) for name in ("params.yaml", "dvc.yaml")), stage)


def inspect_stages(root: Path) -> list[str]:
    """What `read_stage` says is wrong with stages of dvc.yaml, each of a matrix; dvc would run none of them."""
    values, known = (read_yaml(Path(root) / name) for name in ("params.yaml", "dvc.yaml"))
    faults = []
    for name, entry in pick(known, "stages", "dvc.yaml").items():
        for items in entry.get("matrix", {"": [""]}).values():
            for item in pick(values, items[2:-1]) if isinstance(items, str) else items:
                try:
                    _fill_stage(values, known, f"{name}@{item}")
                except ValueError as error:
                    faults.append(str(error))
    return list(dict.fromkeys(faults))


def _fill_stage(values: dict, stages: dict, stage: str) -> tuple[dict, str]:
    name, _, item = stage.partition("@")
    entry = pick(stages, f"stages.{name}", "dvc.yaml")
    prefixes = {BASE, pick(values, "profile"), *pick(values, BASE)}
    values = {**values, "item": dict.fromkeys(entry.get("matrix", {}), item)}

    def fill(text: str) -> str:
        return re.sub(r"\$\{([\w.]+)\}", lambda found: str(pick(values, found[1], "dvc.yaml or params.yaml")), text)

    sections = {}
    for key in map(fill, entry.get("params", [])):
        value, path = pick(values, key), key.split(".")
        while len(path) > 1 and path[0] in prefixes:
            path.pop(0)
        for part in reversed(path):
            value = {part: value}
        sections = overlay(sections, value)
    outs = [fill(out if isinstance(out, str) else next(iter(out))) for out in entry.get("outs", [])]
    output = next((path for path in outs if path.endswith(".ipynb")), None)
    if output is None:
        raise ValueError(f"dvc.yaml: stage {name} has no executed notebook (.ipynb) among its outs; add it")
    return sections, output


def pick(values: dict, key: str, file: str = "params.yaml"):
    """The value of a dotted key."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            known = ", ".join(map(str, values)) if isinstance(values, dict) else "nothing"
            raise ValueError(f"{file} has no {key!r}: at {part!r} it has {known}")
        values = values[part]
    return values


def overlay(base, changes):
    """`base` with the values of `changes` in place of its own; sections are merged, lists and plain values replaced."""
    if not isinstance(base, dict) or not isinstance(changes, dict | None):
        return changes
    return {**base, **{name: overlay(base.get(name), value) for name, value in (changes or {}).items()}}
