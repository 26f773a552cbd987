"""`python -m app` opens the page."""

import typer

from app.page import main

typer.run(main)
