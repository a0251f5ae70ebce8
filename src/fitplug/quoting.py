"""Quoting a command for the shell that will read it: sh and PowerShell.

Both spellings leave plain words alone, so that what people see is what they would have typed.
"""

import re
from collections.abc import Iterable

_PLAIN_SH = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_PLAIN_POWERSHELL = re.compile(r"[A-Za-z0-9_./\\:+-]*[A-Za-z0-9_./\\:+]")
"""Without `,` (an array), `@` (splatting) and `%`, and not a dash alone."""
_PARAMETER = re.compile(r"-[^-].*[.:].*")
"""PowerShell splits a word that starts with a dash at its first dot or colon."""
_QUOTES = "'\u2018\u2019\u201a\u201b"
"""All of these end a single-quoted PowerShell string; doubled, they stand for themselves."""


def quote_sh(word: str) -> str:
    """One word for a POSIX shell."""
    if _PLAIN_SH.fullmatch(word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def quote_powershell(word: str) -> str:
    r"""One word for PowerShell 7.3 and later, which hands it on unchanged.

    Windows PowerShell 5.1 loses double quotes and empty words on the way to a program whatever one writes; no setting that
    decides memory holds any.
    """
    if _PLAIN_POWERSHELL.fullmatch(word) and not _PARAMETER.fullmatch(word):
        return word
    return "'" + "".join(char * 2 if char in _QUOTES else char for char in word) + "'"


def join_sh(words: Iterable[str]) -> str:
    """A command line for a POSIX shell."""
    return " ".join(map(quote_sh, words))


def join_powershell(words: Iterable[str]) -> str:
    """A command line for PowerShell; a quoted program needs the call operator."""
    quoted = list(map(quote_powershell, words))
    return ("& " if quoted and quoted[0].startswith("'") else "") + " ".join(quoted)


def env_sh(env: Iterable[tuple[str, str]]) -> str:
    """`NAME=value` pairs as they stand before a command in a POSIX shell."""
    return " ".join(f"{name}={quote_sh(value)}" for name, value in env)


def env_powershell(env: Iterable[tuple[str, str]]) -> str:
    """The same for PowerShell: assignments, one statement each."""
    return "; ".join(f"$env:{name} = " + quote_powershell_value(value) for name, value in env)


def quote_powershell_value(value: str) -> str:
    """A value on the right of an assignment, where a bare word would be run as a command."""
    return "'" + "".join(char * 2 if char in _QUOTES else char for char in value) + "'"
