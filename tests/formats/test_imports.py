"""What the start path may cost is pinned by what it imports, not by a stopwatch."""

import subprocess
import sys

HEAVY = {"json", "numpy", "mmap", "pathlib", "tempfile", "subprocess", "socket", "urllib", "http", "logging", "ctypes"}


def test_reading_gguf_imports_nothing_heavy():
    """-S: site itself may import some of them."""
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:] = {path!r}; before = set(sys.modules)\n"
    code += "import fitplug.formats.gguf, fitplug.sources.local, fitplug.opening\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert "struct" in loaded
    assert not loaded & HEAVY
