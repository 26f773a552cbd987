"""params.yaml with the profile in use laid over the published one."""

from pathlib import Path

from health_actions.paths import read_yaml

BASE = "published"  # the papers' values; another profile lists what differs


def read_params(root: Path) -> dict:
    """All parameters of the profile in use.

    Args:
        root: of the project.

    Returns:
        profile, machine, and for each study ("handwash", "ntu") its classes, models and sections (frames, training
        and so on).

    Raises:
        FileNotFoundError, ValueError: when params.yaml is missing, unreadable or has no such profile.
    """
    values = read_yaml(Path(root) / "params.yaml")
    profile = values["profile"]
    if profile not in values:
        known = [name for name in values if name != "profile" and isinstance(values[name], dict)]
        raise ValueError(f"params.yaml: profile is {profile!r}, but the file has no such section; found {', '.join(known)}")
    common = {name: value for name, value in values.items() if name not in (BASE, profile)}
    return overlay(overlay(common, values[BASE]), values[profile])


def overlay(base, changes):
    """`base` with the values of `changes` in place of its own; sections are merged, lists and plain values replaced."""
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return {**base, **{name: overlay(base.get(name), value) for name, value in changes.items()}}
