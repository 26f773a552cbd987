"""Two published studies of action recognition for health, rebuilt from tracked data."""

from importlib.metadata import version


def describe_versions(*packages: str) -> str:
    """The versions of Python packages as one line, for the top of a notebook."""
    return ", ".join(f"{package} {version(package)}" for package in packages)
