"""The page: hand-wash check and patient monitor, for this machine alone."""

from app.page import build_app

__all__ = ["build_app"]
