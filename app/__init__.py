"""The page: hand-wash check and patient monitor, on this machine alone. In a notebook: `build_app().launch()`."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is loaded: it would send usage data to its makers

from app.page import build_app  # noqa: E402

__all__ = ["build_app"]
