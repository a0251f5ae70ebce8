"""Files behind URLs, read by ranges.

Hubs and their content networks break most rules of HTTP at times: a range is answered with 200, a HEAD lies, a redirect leads
to a host that must not see the token, an answer never ends. So nothing is believed that was not checked here: an answer to a
range counts when its Content-Range says what was asked, whatever its status; without one only the wanted prefix is read and
the connection dropped; every wait is bounded; authorisation goes to the origin that it was meant for and nowhere else.
"""

import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from fitplug.errors import AccessError, FitplugError, NetworkError, NotFoundError
from fitplug.units import MIB

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 15.0
TOTAL_TIMEOUT = 120.0
"""One answer's body, whole; a server that drips a byte a second ends here."""
MAX_REDIRECTS = 10
MAX_JSON_BYTES = 64 * MIB
RETRY_WAITS = (0.5, 1.0, 2.0)
MAX_TRYING = 20.0
"""No further try is begun after this: two stalls are enough to wait for."""
MAX_RETRY_AFTER = 8.0
MAX_SKIPPED_BYTES = 64 * MIB
"""From a server that ignores ranges so much is read and thrown away before the wanted bytes, and no more."""
MAX_DRAINED_BYTES = 4096
"""Of a body that nobody wants, such as a redirect's, so that the connection serves once more."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_RETRIED = {408, 429, 500, 502, 503, 504}


@dataclass(slots=True)
class Traffic:
    """What was asked of the network, for people who count."""

    n_requests: int = 0
    n_bytes: int = 0


@dataclass(slots=True)
class Http:
    """One conversation with a hub: its authorisation, its keep-alive connections, its counters. Safe to use from threads."""

    origin: str = ""
    """Scheme, host and port that `headers` are meant for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Authorisation, sent to `origin` alone."""
    explain: "Callable[[Response, str], FitplugError | None] | None" = None
    """The hub's own reading of an error answer; None where it has nothing to add."""
    sleep: Callable[[float], None] = time.sleep
    traffic: Traffic = field(default_factory=Traffic)
    _idle: "list[Session]" = field(default_factory=list)
    """Sessions, each with its connections, that no thread uses just now."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get_json(self, url: str, params: Mapping[str, str] | None = None) -> tuple[Any, Mapping[str, str]]:
        """A JSON answer and its headers."""
        import json

        def once() -> tuple[bytes, Mapping[str, str]]:
            with self._answer(url, params=params) as response:
                return self._body(response, MAX_JSON_BYTES + 1), dict(response.headers)

        body, headers = self._patiently(once)
        if len(body) > MAX_JSON_BYTES:
            raise NetworkError(f"{host_of(url)} answers with more than {MAX_JSON_BYTES // MIB} MiB of JSON")
        try:
            return json.loads(body), headers
        except (ValueError, RecursionError):
            raise NetworkError(f"{host_of(url)} answers with no JSON: is it the hub, or a login page?") from None

    def get_range(self, url: str, offset: int, n_bytes: int) -> "Ranged":
        """Bytes `offset` … `offset + n_bytes` of what `url` leads to, fewer only at its end."""
        wanted = {"Range": f"bytes={offset}-{offset + n_bytes - 1}", "Accept-Encoding": "identity"}

        def once() -> Ranged:
            with self._answer(url, extra=wanted, allow={416}) as response:
                if response.status_code == 416:
                    return Ranged(data=b"", total=_total_of(response), url=response.url)
                given = response.headers.get("Content-Range", "")
                if given:
                    return self._checked(response, given, offset, n_bytes)
                if response.status_code == 206:
                    raise NetworkError(f"{host_of(response.url)} sends a part of the file and does not say which")
                return self._prefix(response, offset, n_bytes)

        return self._patiently(once)

    def _patiently(self, once: Callable[[], T]) -> T:
        """Try again, with waits, what a broken connection or a busy server spoiled."""
        start = time.monotonic()
        for wait in RETRY_WAITS:
            try:
                return once()
            except BrokenError as error:
                if error.wait > MAX_RETRY_AFTER or time.monotonic() - start > MAX_TRYING:
                    raise
                self.sleep(error.wait or wait)
        return once()

    def _checked(self, response: "Response", given: str, offset: int, n_bytes: int) -> "Ranged":
        match = _CONTENT_RANGE.fullmatch(given.strip())
        if match is None or int(match[1]) != offset or not offset <= int(match[2]) < offset + n_bytes:
            raise NetworkError(f"{host_of(response.url)} was asked for bytes {offset}… and says that it sends '{given[:60]}'")
        length = int(match[2]) - offset + 1
        data = self._body(response, length)
        if len(data) < length:
            raise BrokenError(f"{host_of(response.url)} broke off after {len(data)} of {length} bytes")
        total = None if match[3] == "*" else int(match[3])
        return Ranged(data=data, total=total, url=response.url)

    def _prefix(self, response: "Response", offset: int, n_bytes: int) -> "Ranged":
        """An answer to the whole file: read up to what is wanted, then hang up."""
        if offset + n_bytes > MAX_SKIPPED_BYTES:
            raise NetworkError(f"{host_of(response.url)} ignores byte ranges: this file can only be read by downloading it")
        data = self._body(response, offset + n_bytes)
        length = response.headers.get("Content-Length", "")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise NetworkError(f"{host_of(response.url)} compresses what must be exact bytes")
        return Ranged(data=data[offset:], total=int(length) if length.isdecimal() else None, url=response.url)

    def _body(self, response: "Response", limit: int) -> bytes:
        """At most `limit` bytes of the body; the rest is not read."""
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        deadline, parts, size = time.monotonic() + TOTAL_TIMEOUT, [], 0
        try:
            while size < limit and (chunk := _some(response, min(limit - size, MIB))):
                parts.append(chunk[: limit - size])
                size += len(parts[-1])
                with self._lock:
                    self.traffic.n_bytes += len(parts[-1])
                if time.monotonic() > deadline:
                    raise NetworkError(f"{host_of(response.url)} took more than {TOTAL_TIMEOUT:.0f} s for {size} bytes")
        except (RequestException, HTTPError, OSError) as error:
            raise BrokenError(f"{host_of(response.url)} broke off after {size} bytes: {_short(error)}") from None
        return b"".join(parts)

    @contextmanager
    def _answer(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
        allow: Collection[int] = (),
    ) -> "Iterator[Response]":
        """An answer that is no redirect and no error."""
        with self._session() as session:
            response = self._followed(session, url, params, extra or {})
            try:
                if response.status_code >= 400 and response.status_code not in allow:
                    raise self._error(response, url)
                yield response
            finally:
                _finish(response)

    def _followed(self, session: "Session", url: str, params: Mapping[str, str] | None, extra: Mapping[str, str]) -> "Response":
        for _ in range(MAX_REDIRECTS + 1):
            response = self._once(session, url, params, extra)
            target = response.headers.get("Location")
            if response.status_code not in {301, 302, 303, 307, 308} or not target:
                return response
            _finish(response)
            before, url, params = url, _leads_to(url, target), None
            scheme = urlsplit(url).scheme
            if scheme not in {"http", "https"} or (scheme == "http" and urlsplit(before).scheme == "https"):
                raise NetworkError(f"{host_of(before)} redirects to {scheme}://{host_of(url)}, which is not safe to follow")
        raise NetworkError(f"{host_of(url)} redirects more than {MAX_REDIRECTS} times")

    def _once(self, session: "Session", url: str, params: Mapping[str, str] | None, extra: Mapping[str, str]) -> "Response":
        from requests import RequestException

        headers = dict(extra)
        if self.origin and origin_of(url) == self.origin:
            headers.update(self.headers)
        with self._lock:
            self.traffic.n_requests += 1
        try:
            return session.get(
                url,
                params=params,
                headers=headers,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                stream=True,
                allow_redirects=False,
            )
        except RequestException as error:
            raise BrokenError(f"cannot reach {host_of(url)}: {_short(error)}") from None

    @contextmanager
    def _session(self) -> "Iterator[Session]":
        """A session for one thread at a time; those that are given back keep their connections for whoever comes next."""
        import requests

        try:
            session = self._idle.pop()
        except IndexError:
            session = requests.Session()
            session.auth = _NoAuth()
            session.headers["User-Agent"] = "fitplug"
        try:
            yield session
        finally:
            self._idle.append(session)

    def _error(self, response: "Response", url: str) -> FitplugError:
        told = self.explain(response, url) if self.explain else None
        if told is not None:
            return told
        status, host = response.status_code, host_of(response.url)
        if status in {401, 403}:
            return AccessError(f"{host} refuses access ({status}): is it private or gated, and is a token set?")
        if status in {404, 410}:
            return NotFoundError(f"{host} has nothing at {urlsplit(url).path}")
        if status == 429:
            wait = _retry_after(response)
            when = f"in {wait:.0f} s" if wait > MAX_RETRY_AFTER else "in a few minutes"
            hint = f"try again {when}, or set a token for a higher limit"
            return BrokenError(f"{host} asks to slow down (429): {hint}", wait=wait)
        wrong = f"{host} answers with status {status}: try again later"
        return BrokenError(wrong, wait=_retry_after(response)) if status in _RETRIED else NetworkError(wrong)


class BrokenError(NetworkError):
    """A failure that another try may mend."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _NoAuth:
    """Keeps requests from reading ~/.netrc, which would hand a password to whichever host a redirect names."""

    def __call__(self, request: Any) -> Any:
        return request


@dataclass(frozen=True, slots=True)
class Ranged:
    """An answer to a range."""

    data: bytes
    total: int | None
    """The whole file's length, where the answer says it."""
    url: str
    """Where the redirects ended."""


def origin_of(url: str) -> str:
    """Scheme, host and port: what an authorisation is bound to."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def host_of(url: str) -> str:
    """The host, for messages."""
    return urlsplit(url).hostname or url[:60]


def _total_of(response: "Response") -> int | None:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _retry_after(response: "Response") -> float:
    """Seconds to wait: Retry-After, a number or a date, else what is left of the window that RateLimit names; 0: not said."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    if value:
        from email.utils import parsedate_to_datetime

        try:
            return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
        except (ValueError, OverflowError):
            return 0.0
    window = re.search(r";\s*t=(\d{1,9})", response.headers.get("RateLimit", ""))
    return float(window[1]) if window else 0.0


def _some(response: "Response", n_bytes: int) -> bytes:
    """What has arrived of a body, `n_bytes` at most; empty at its end. Waits for some, not for all: see TOTAL_TIMEOUT."""
    some = response.raw.read1(n_bytes, decode_content=True)
    return some if isinstance(some, bytes) else b""


def _finish(response: "Response") -> None:
    """Give the connection back where hardly anything of the answer is left, else drop it."""
    if (response.raw.length_remaining or 0) <= MAX_DRAINED_BYTES and response.raw.length_remaining is not None:
        response.raw.drain_conn()
    response.close()


def _leads_to(url: str, target: str) -> str:
    """Where a Location leads, relative or not; its bytes are UTF-8 and not the Latin-1 that headers are read as.

    Raises:
        NetworkError: nowhere.
    """
    with suppress(UnicodeError):
        target = target.encode("latin-1").decode()
    try:
        url = urljoin(url, target)
        origin_of(url)
    except ValueError:
        raise NetworkError(f"{host_of(url)} redirects to '{target[:60]}', which is no address") from None
    return url


def _short(error: Exception) -> str:
    """The innermost reason, without the library's wrapping."""
    cause: BaseException = error
    for _ in range(6):
        inner = next((each for each in (getattr(cause, "reason", None), *cause.args) if isinstance(each, BaseException)), None)
        if inner is None:
            break
        cause = inner
    text = re.sub(r"^HTTPS?Connection\w*\(.*?\): ", "", str(cause).rpartition(">: ")[2]) or type(cause).__name__
    return text[:120]
