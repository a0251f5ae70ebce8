"""Text that came from files and servers, made safe for one line of a terminal."""


def one_line(text: str) -> str:
    """The text on one line, without anything that a terminal would obey or that turns the writing direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t\r" else f"\\x{ord(c):02x}" for c in text).strip()


def shortened(text: str, width: int) -> str:
    """The text on one line, cut in the middle to at most `width` characters."""
    text = one_line(text)
    if len(text) <= width:
        return text
    head = max(1, (width - 1) * 2 // 3)
    tail = max(0, width - 1 - head)
    return f"{text[:head]}…{text[len(text) - tail :]}" if tail else f"{text[: width - 1]}…"
