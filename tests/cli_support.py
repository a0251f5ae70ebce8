"""Models of fixtures/models, written for a test."""

import importlib.util
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def make_models():
    """fixtures/models/make.py as a module."""
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "fixtures" / "models" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_names():
    """What there is."""
    return make_models().names()


def write_model(name, path, **options):
    """Write it; the path again."""
    make_models().write(name, path, **options)
    return path
