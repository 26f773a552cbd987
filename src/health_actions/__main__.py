"""`python -m health_actions` is `health-actions`."""

from health_actions.cli import app

app(prog_name="health-actions")
