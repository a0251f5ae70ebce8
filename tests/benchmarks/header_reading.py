"""How long reading a GGUF header takes, and how much memory: fitplug, gguf.GGUFReader and a plain loop, side by side.

    python tests/benchmarks/header_reading.py PATH

PATH is llama-cpp-python's sdist (`pip download --no-binary :all: --no-deps llama-cpp-python`), packed or not, or any folder
with ggml-vocab-llama-bpe.gguf and ggml-vocab-gemma-4.gguf in it. Every reading runs in a process of its own: the time is that
of the reading alone, the memory is the process's peak less that of an interpreter that does nothing. Linux only (/proc).
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VOCABULARIES = {"ggml-vocab-llama-bpe.gguf": 45, "ggml-vocab-gemma-4.gguf": 80}
"""File → milliseconds that fitplug may take."""
MEMORY_MIB = 40
RUNS = {"fitplug": 9, "gguf.GGUFReader": 1, "struct loop": 5}

MEASURE = """
import sys, time
{setup}
start = time.perf_counter()
read(sys.argv[1])
seconds = time.perf_counter() - start
with open("/proc/self/status") as status:
    print(seconds, next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""
"""VmHWM, not getrusage's ru_maxrss: that one outlives exec, so a child would start with the peak of this process."""
SETUPS = {
    "nothing": "def read(path): pass",
    "fitplug": """
from fitplug.formats import gguf
from fitplug.sources.local import open_path
def read(path): gguf.read(open_path(path))
""",
    "gguf.GGUFReader": """
from gguf import GGUFReader
def read(path): GGUFReader(path)
""",
    "struct loop": """
from struct import unpack_from
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
def read(path):
    data = open(path, "rb").read()
    def value(pos, kind):
        if kind == 8:
            return pos + 8 + unpack_from("<Q", data, pos)[0]
        if kind != 9:
            return pos + SIZES[kind]
        item, count = unpack_from("<IQ", data, pos)
        pos += 12
        if item != 8:
            return pos + count * SIZES[item]
        for _ in range(count):
            pos += 8 + unpack_from("<Q", data, pos)[0]
        return pos
    pos = 24
    for _ in range(unpack_from("<Q", data, 16)[0]):
        pos += 8 + unpack_from("<Q", data, pos)[0]
        pos = value(pos + 4, unpack_from("<I", data, pos)[0])
""",
}


def measure(reader: str, path: Path) -> tuple[float, int]:
    """Seconds, and the process's peak in bytes."""
    code = MEASURE.format(setup=SETUPS[reader])
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    seconds, peak = out.split()
    return float(seconds), int(peak) * 1024


@contextmanager
def folder_of(path: Path) -> Iterator[Path]:
    """The folder in which the vocabularies lie; an archive's are unpacked for the time."""
    if path.is_dir():
        yield next(path.rglob(next(iter(VOCABULARIES)))).parent
        return
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in VOCABULARIES and (content := archive.extractfile(member)):
                Path(folder, name).write_bytes(content.read())
        yield Path(folder)


def main() -> int:
    """Print the table; 1 where fitplug took more than it may."""
    parser = argparse.ArgumentParser(description="how long reading a GGUF header takes")
    parser.add_argument("path", type=Path, help="llama-cpp-python's sdist, packed or not, or a folder of its models/")
    late = 0
    with folder_of(parser.parse_args().path) as folder:
        bare = min(measure("nothing", folder)[1] for _ in range(3))
        print(f"{'vocabulary':<28}{'reader':<18}{'best':>10}{'median':>10}{'peak memory':>14}")
        for name, limit in VOCABULARIES.items():
            for reader, runs in RUNS.items():
                found = [measure(reader, folder / name) for _ in range(runs)]
                times = sorted(seconds * 1000 for seconds, _ in found)
                memory = (max(peak for _, peak in found) - bare) / 2**20
                median = times[len(times) // 2]
                within = reader != "fitplug" or (median <= limit and memory <= MEMORY_MIB)
                late += not within
                allowed = f"   at most {limit} ms, {MEMORY_MIB} MiB: {'yes' if within else 'NO'}" if reader == "fitplug" else ""
                print(f"{name:<28}{reader:<18}{times[0]:>7.1f} ms{median:>7.1f} ms{memory:>10.1f} MiB{allowed}", flush=True)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
