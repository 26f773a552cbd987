"""Two published studies of action recognition for health, rebuilt from tracked data."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would send data on its use to its makers


def describe_versions(*packages: str) -> str:
    """The versions of Python packages as one line, for the top of a notebook."""
    from importlib.metadata import version  # here, so that the processes that decode videos start without it

    return ", ".join(f"{package} {version(package)}" for package in packages)
