"""llama.cpp's answers about options that llama-server has besides (fixtures/flags), read as the command line reads them."""

import gzip
import json
from functools import cache

import click

import adapter_support as adapters
import projector_support as projectors
import truth_support as truth
from fitplug.cli.command import Command
from fitplug.cli.options import settings_options
from fitplug.memory.estimate import Estimator

FLAGS = truth.Answers("flags")


@click.command(cls=Command)
@settings_options
def _read(*, given):
    return given.settings


def settings(args):
    """`Settings` of llama-server's arguments."""
    return _read.main([str(arg) for arg in args], standalone_mode=False)


def estimator(row):
    return Estimator(adapters.model(row), truth.machine(row["devices"]), truth.RUNNERS[row["runner"]])


def estimate(row):
    return estimator(row)(settings(row["args"]))


def label(row):
    return f"{row['model']}-{len(row['devices'])}gpu {' '.join(row['args'])}"


@cache
def pictures():
    """Rows about projectors."""
    return [json.loads(line) for line in gzip.decompress((FLAGS.folder / "projectors.jsonl.gz").read_bytes()).splitlines()]


@cache
def projector(name):
    return projectors.header(next(row for row in projectors.rows() if row["name"] == name))
