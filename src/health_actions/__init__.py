"""Two published studies of action recognition for health, rebuilt from tracked data."""


def describe_versions(*packages: str) -> str:
    """The versions of Python packages as one line, for the top of a notebook."""
    from importlib.metadata import version  # here, so that the processes that decode videos start without it

    return ", ".join(f"{package} {version(package)}" for package in packages)
