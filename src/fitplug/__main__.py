"""`python -m fitplug`."""

from fitplug.cli import run

run()
