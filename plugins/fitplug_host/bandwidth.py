"""How fast this host's memory is read: what generation on the CPU is bound by."""

import ctypes
import os
import sys
import threading
import time

_TOTAL_BYTES = 256 << 20
"""More than the caches of all but the largest servers; writing it costs a tenth of a second."""
_MAX_THREADS = 16


def measure_bandwidth(seconds: float = 0.5) -> int:
    """Bytes per second that all threads together read.

    Each searches a buffer of its own for a byte that is not there, with the C library's memchr: it reads everything
    once, writes nothing, and ctypes lets other threads run meanwhile.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    n_threads = max(1, min(_MAX_THREADS, len(affinity(0)) if affinity else os.cpu_count() or 1))
    memchr = _memchr()
    counts = [0] * n_threads
    ready = threading.Barrier(n_threads + 1)
    stop = threading.Event()

    def read(i: int) -> None:
        buffer = bytearray(b"\x01") * (_TOTAL_BYTES // n_threads)  # written once: untouched pages are all one zero page
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        ready.wait()
        while not stop.is_set():
            memchr(address, 0, len(buffer))
            counts[i] += len(buffer)

    threads = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return round(sum(counts) / (time.perf_counter() - started))


def _memchr() -> "ctypes._NamedFuncPointer":
    libc = ctypes.CDLL("msvcrt") if sys.platform == "win32" else ctypes.CDLL(None)
    memchr = libc.memchr
    memchr.argtypes, memchr.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], ctypes.c_void_p
    return memchr
