"""`python -m mirrortool`."""

from mirrortool.cli.main import run

run()
