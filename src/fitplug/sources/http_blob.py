"""One file behind a URL as a blob: read in windows, straight from where its redirects led."""

from fitplug.errors import AccessError, NetworkError, NotFoundError
from fitplug.sources.http import Http, Traffic, host_of, origin_of

MIN_WINDOW = 64 << 10


class HttpBlob:
    """A file behind a URL. Redirects are followed once; later reads go straight to where they led."""

    def __init__(self, http: Http, url: str, name: str, n_bytes: int | None = None, *, page: str = "") -> None:
        """Make one.

        Args:
            http: the conversation.
            url: where the file is asked for.
            name: the file's.
            n_bytes: its length, where that is known.
            page: its address for people and programs, where it is asked for when nothing is at `url`.
        """
        self._http, self._url, self._direct, self._name = http, url, "", name
        self._page = page or url
        self._size = n_bytes
        self._window: tuple[int, bytes] = (0, b"")

    @property
    def name(self) -> str:
        """The file's name."""
        return self._name

    @property
    def url(self) -> str:
        """Its address, before any redirect."""
        return self._page

    @property
    def traffic(self) -> Traffic:
        """The conversation's, for whoever shows how far a read is."""
        return self._http.traffic

    @property
    def n_bytes(self) -> int:
        """Its length, asked for when nobody told."""
        if self._size is None:
            self._fetch(0, MIN_WINDOW)
        if self._size is None:
            raise NetworkError(f"{host_of(self._url)} does not say how long {self._name} is")
        return self._size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Bytes from `offset`; small reads are served from the last window."""
        start, data = self._window
        if not (start <= offset and offset + n_bytes <= start + len(data)):
            end = offset + max(n_bytes, MIN_WINDOW)
            end = end if self._size is None else min(end, self._size)
            if end <= offset:
                return b""
            start, data = self._fetch(offset, end - offset)
        return data[offset - start : offset - start + n_bytes]

    def _fetch(self, offset: int, n_bytes: int) -> tuple[int, bytes]:
        try:
            got = self._http.get_range(self._direct or self._url, offset, n_bytes)
        except (AccessError, NotFoundError) as error:
            if self._direct:
                self._direct = ""  # a signed URL that has expired
            elif self._url != self._page and isinstance(error, NotFoundError):
                self._url = self._page
            else:
                raise
            got = self._http.get_range(self._url, offset, n_bytes)
        if got.total is not None and self._size is not None and got.total != self._size:
            told = f"{got.total} bytes where {self._size} were listed"
            raise NetworkError(f"{self._name} has {told}: it is changing, try again")
        self._size = got.total if self._size is None else self._size
        if origin_of(got.url) != origin_of(self._url):
            self._direct = got.url
        self._window = (offset, got.data)
        return self._window
