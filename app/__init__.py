"""The page: hand-wash check and patient monitor, on this machine alone. In a notebook: `build_app().launch()`."""

from app.page import build_app

__all__ = ["build_app"]
