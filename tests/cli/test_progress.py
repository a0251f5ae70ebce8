"""The line that a terminal shows meanwhile."""

import io
import time

from fitplug.cli.progress import progressing
from fitplug.sources.progress import tell


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_told_what_is_fetched_and_how_far_it_is(monkeypatch):
    """Once it takes longer than anybody's patience; what a file calls itself turns nothing red."""
    monkeypatch.setattr("fitplug.cli.progress.PATIENCE", 0.0)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    done = [0]

    def until(words):
        for _ in range(200):
            if words in shown.getvalue():
                return
            time.sleep(0.05)
        raise AssertionError(f"{words!r} is not in {shown.getvalue()!r}")

    with progressing("reading"):
        until("reading")
        tell(lambda: f"fetching \x1b[31m{'漢' * 200}: {done[0]} of 3")
        until("fetching")
        tell(lambda: f"fetched {done[0]} of 3")
        done[0] = 3
        until("fetched 3 of 3")
    text = shown.getvalue()
    assert "\x1b[31m漢" not in text
    assert text.count("\n") == 1  # at its end


def test_away_from_a_terminal_nothing_is_shown(monkeypatch):
    monkeypatch.setattr("fitplug.cli.progress.PATIENCE", 0.0)
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    with progressing("reading") as say:
        say("more")
        tell("and more")
    assert not shown.getvalue()
