"""The Modelfile's grammar, both ways: what Ollama's parser reads in a text, and a text for what is meant.

The grammar has no escapes, drops every rune that Go's unicode.IsPrint refuses, and goes on at the next line where a quote is
not closed (parser/parser.go, ParseFile). So `quote` proves each value by reading it back, and refuses what does not survive.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from fitplug.errors import RefusedError, UnreadableError

COMMANDS = frozenset({"from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
                      "requires"})  # fmt: skip
ROLES = frozenset({"system", "user", "assistant"})
_BLANK, _LINE_END = frozenset(" \t"), frozenset("\r\n")


class Command(NamedTuple):
    """One command as Ollama keeps it: FROM is called "model", a PARAMETER by its own name."""

    name: str
    value: str


class _State(Enum):
    NOTHING = auto()
    COMMENT = auto()
    NAME = auto()
    PARAMETER = auto()
    ROLE = auto()
    VALUE = auto()


_WORD_STATES = {"parameter": _State.PARAMETER, "message": _State.ROLE}


def is_kept(char: str) -> bool:
    """Whether the parser keeps a rune: Go's strconv.IsPrint (letters, marks, numbers, punctuation, symbols, the space) or
    white space of the grammar's own."""  # noqa: D205, D209 - one sentence
    return char in " \t\r\n" or unicodedata.category(char)[0] in "LMNPS"


def parse(text: str) -> list[Command]:
    """What Ollama reads in a Modelfile.

    Raises:
        UnreadableError: it would refuse the file.
    """
    reader = _Reader()
    for char in text.removeprefix("\ufeff"):
        reader.feed(char)
    return reader.end()


class _Reader:
    """The parser's state between two runes."""

    def __init__(self) -> None:
        self.state, self.text, self.line = _State.NOTHING, "", 1
        self.name = self.role = ""
        self.found: list[Command] = []

    def feed(self, char: str) -> None:
        self.line += char in _LINE_END
        match self.state:
            case _State.NOTHING:
                self._begin(char)
            case _State.COMMENT:
                self.state = _State.NOTHING if char in _LINE_END else _State.COMMENT
            case _State.VALUE:
                self._value(char)
            case _:
                self._word(char)

    def _begin(self, char: str) -> None:
        if char == "#":
            self.state = _State.COMMENT
        elif char not in _BLANK | _LINE_END:
            self.state, self.text = _State.NAME, ""
            self._word(char, first=True)

    def _word(self, char: str, *, first: bool = False) -> None:
        """A command's, a parameter's or a role's own letters, up to the one blank that ends them."""
        extra = char in "0123456789_" if self.state is _State.PARAMETER else first
        if (char.isascii() and char.isalpha()) or extra:
            self.text += char if is_kept(char) else ""
        elif char in _BLANK:
            self._word_done()
            self.text = ""
        elif self.state is _State.NAME:
            raise self._bad("a command must be one of " + ", ".join(sorted(COMMANDS)))
        else:
            raise UnreadableError("Modelfile: unexpected end of file")

    def _word_done(self) -> None:
        word = self.text
        if self.state is _State.NAME:
            if word.lower() not in COMMANDS:
                raise self._bad(f"{word!r} is no command")
            self.name, self.role = {"from": "model"}.get(word.lower(), word.lower()), ""
            self.state = _WORD_STATES.get(self.name, _State.VALUE)
            return
        if self.state is _State.ROLE:
            if word not in ROLES:
                raise self._bad("a message is from system, user or assistant")
            self.role = word
        else:
            self.name = word
        self.state = _State.VALUE

    def _value(self, char: str) -> None:
        if char in _LINE_END:
            value = unquote(self.text.strip())
            if value is not None:
                self._emit(value)
                self.state = _State.NOTHING
                return
        self.text += char if is_kept(char) else ""

    def _emit(self, value: str) -> None:
        self.found.append(Command(self.name, f"{self.role}: {value}" if self.role else value))

    def end(self) -> list[Command]:
        if self.state is _State.VALUE:
            value = unquote(self.text.strip())
            if value is None:
                raise UnreadableError("Modelfile: a quote is not closed")
            self._emit(value)
        elif self.state not in (_State.NOTHING, _State.COMMENT):
            raise UnreadableError("Modelfile: unexpected end of file")
        if not any(command.name == "model" for command in self.found):
            raise UnreadableError("Modelfile: no FROM line")
        return self.found

    def _bad(self, what: str) -> UnreadableError:
        return UnreadableError(f"Modelfile, line {self.line}: {what}")


def unquote(text: str) -> str | None:
    """The value in its quotes, or None where they are not closed yet: three double quotes, one, or none."""
    for quotes in ('"""', '"'):
        if text.startswith(quotes):
            closed = len(text) >= 2 * len(quotes) and text.endswith(quotes)
            return text[len(quotes) : -len(quotes)] if closed else None
    return text


def quote(value: str, what: str = "value") -> str:
    """A spelling that Ollama reads as exactly `value`.

    Raises:
        RefusedError: there is none.
    """
    dropped = next((char for char in value if not is_kept(char)), None)
    if dropped is not None:
        raise RefusedError(f"a Modelfile cannot hold U+{ord(dropped):04X} ({what}): Ollama's parser drops it without a word")
    plain = bool(value) and value == value.strip() and not set(value) & _LINE_END and not value.startswith('"')
    for spelling in ([value] if plain else []) + [f'"""{value}"""']:
        if _reads_as(spelling, value):
            return spelling
    raise RefusedError(f'a Modelfile cannot hold this {what}: a line of it ends in """')


def _reads_as(spelling: str, value: str) -> bool:
    try:
        found = parse(f"FROM x\nSYSTEM {spelling}\nPARAMETER seed 1\n")
    except UnreadableError:
        return False
    return found[1:] == [Command("system", value), Command("seed", "1")]


def write(commands: Iterable[Command], comments: Sequence[str] = ()) -> str:
    """A Modelfile that reads back as `commands`.

    Raises:
        RefusedError: one of them cannot be written.
    """
    wanted = list(commands)
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    lines += [_line(command) for command in wanted]
    text = "\n".join(lines) + "\n"
    if parse(text) != wanted:
        raise RefusedError("Ollama would read something else in this Modelfile")
    return text


def _line(command: Command) -> str:
    name, value = command
    if name == "model":
        return f"FROM {quote(value, 'model')}"
    if name == "message":
        role, _, text = value.partition(": ")
        return f"MESSAGE {role} {quote(text, 'message')}"
    if name in COMMANDS:
        return f"{name.upper()} {quote(value, name)}"
    return f"PARAMETER {name} {quote(value, name)}"
