"""Models of fixtures/models and projectors of fixtures/projectors, written for a test."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def make_models():
    """fixtures/models/make.py as a module."""
    return _script("models")


@cache
def make_projectors():
    """fixtures/projectors/make.py as a module."""
    return _script("projectors")


def _script(folder):
    spec = importlib.util.spec_from_file_location(f"make_{folder}", ROOT / "fixtures" / folder / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "fixtures" / folder))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def write_projector(name, path):
    """Write its header and a hole; the path again."""
    projectors = make_projectors()
    row = next(row for row in projectors.projectors() if row[0] == name)
    projectors.write_ghost(path, row[1], projectors.tensors_of(*row[1:]))
    return path


def model_names():
    """What there is."""
    return make_models().names()


def write_model(name, path, **options):
    """Write it; the path again."""
    make_models().write(name, path, **options)
    return path
