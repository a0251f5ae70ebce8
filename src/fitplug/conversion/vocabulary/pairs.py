"""Keys as gguf-py's writer takes them: empty texts and lists are left out, the last value of a key counts."""

from collections.abc import Sequence

from fitplug.formats.header import Skipped, Value

_LENGTH, _NUMBER = 8, 4


class Pairs(dict[str, Value]):
    """What a conversion writes besides the hyper-parameters."""

    def text(self, key: str, text: str) -> None:
        """GGUFWriter.add_string."""
        if not isinstance(text, str):
            raise TypeError(key)
        if text:
            text.encode()  # what UTF-8 cannot hold, llama.cpp's writer refuses
            self[key] = text

    def texts(self, key: str, texts: Sequence[str]) -> None:
        """GGUFWriter.add_array of texts, of which only number and length are kept."""
        self.lengths(key, len(texts), len("".join(texts).encode()))

    def lengths(self, key: str, n: int, n_bytes: int) -> None:
        """The same for so many texts of so many bytes together."""
        if n:
            self[key] = Skipped("string", n, n_bytes=n_bytes + n * _LENGTH)

    def numbers(self, key: str, n: int, item_type: str = "int32") -> None:
        """An array of numbers of four bytes."""
        if n:
            self[key] = Skipped(item_type, n, n_bytes=n * _NUMBER)

    def raw(self, key: str, n: int) -> None:
        """An array of bytes."""
        if n:
            self[key] = Skipped("uint8", n, n_bytes=n)

    def flag(self, key: str, value: object) -> None:
        """GGUFWriter.add_bool."""
        self[key] = bool(value)

    def number(self, key: str, value: float) -> None:
        """A number of four bytes."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(key)
        self[key] = value
