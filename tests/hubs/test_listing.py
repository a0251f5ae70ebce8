"""What the hub plugins read of a repository, and what they say when they cannot."""

import pytest

from fitplug.errors import AccessError, FitplugError, NetworkError, NotFoundError
from fitplug.extension import Listing, Source
from fitplug.registry import load
from hubs.local_hub import Handler, LocalHub

FILES = {
    "README.md": b"hello",
    "Model-Q4_K_M.gguf": b"GGUF" + b"\1" * 200_000,
    "UD/Model-UD-Q2_K_XL.gguf": b"GGUF" + b"\2" * 90_000,
}
HUBS = ("hf", "modelscope")


@pytest.fixture
def hub(hub: LocalHub) -> LocalHub:
    hub.add("team/model", FILES)
    return hub


@pytest.fixture(params=HUBS)
def source(request: pytest.FixtureRequest) -> Source:
    return load().source(request.param)


def listed(source: Source, name: str = "team/model") -> Listing:
    assert source.list is not None
    return source.list(name)


def test_a_listing_holds_every_file_with_its_size(hub: LocalHub, source: Source) -> None:
    """Folders are no files, and sizes are exact."""
    assert {e.path: e.n_bytes for e in listed(source).entries} == {path: len(data) for path, data in FILES.items()}


def test_pages_are_followed_and_caps_walked_around(hub: LocalHub, source: Source, monkeypatch) -> None:
    """A repository larger than one answer is listed whole."""
    monkeypatch.setattr("fitplug_modelscope.hub.LISTING_CAP", 7)
    hub.page_size = hub.modelscope_cap = 7
    many = {f"f{i % 5}/part-{i}.gguf": b"x" for i in range(28)}
    hub.add("team/many", many)
    assert {e.path for e in listed(source, "team/many").entries} == set(many)


def test_ranges_are_read_without_the_token_leaving_its_origin(hub: LocalHub, source: Source, monkeypatch) -> None:
    """The content host refuses authorisation, and gets none."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", hub.token)
    hub.repositories["team/model"].private = True
    listing = listed(source)
    entry = next(e for e in listing.entries if e.path.endswith("Q4_K_M.gguf"))
    assert source.open_file is not None
    assert source.open_file(listing, entry).read(100_000, 10) == b"\1" * 10
    assert all("authorization" not in r.headers and "cookie" not in r.headers for r in hub.log if r.server == "cdn")


@pytest.mark.parametrize("fault", ["429", "503", "drop"])
def test_a_passing_fault_is_survived(hub: LocalHub, source: Source, fault: str) -> None:
    """One bad answer is tried again."""
    hub.faults["list"] = [fault]
    assert len(listed(source).entries) == len(FILES)


@pytest.mark.parametrize("fault", ["403", "overloaded"])
def test_a_passing_refusal_of_modelscope_is_no_answer(hub: LocalHub, fault: str) -> None:
    """It refuses what it lists a moment later, and says "no such repository" when its database is busy."""
    hub.faults["list"] = [fault]
    assert len(listed(load().source("modelscope")).entries) == len(FILES)


def test_a_repository_without_the_usual_branch_is_read_at_its_own(hub: LocalHub) -> None:
    """Unless a revision was asked for."""
    hub.add("team/main", FILES, branch="main")
    source = load().source("modelscope")
    listing = listed(source, "team/main")
    assert (listing.revision, len(listing.entries)) == ("main", len(FILES))
    assert source.open_file is not None
    assert source.open_file(listing, listing.entries[0]).read(0, 4) == FILES[listing.entries[0].path][:4]
    with pytest.raises(NotFoundError, match="no such revision"):
        listed(source, "team/main@master")


@pytest.mark.parametrize("fault", ["503*", "drop*", "html", "loop*", "429*"])
def test_a_lasting_fault_is_one_line(hub: LocalHub, source: Source, fault: str) -> None:
    """And not a traceback."""
    hub.faults["list"] = [fault]
    with pytest.raises(NetworkError) as caught:
        listed(source)
    assert "\n" not in str(caught.value)


def test_what_is_missing_private_or_gated_is_told_apart(hub: LocalHub, source: Source) -> None:
    """As far as the hub itself tells."""
    hub.add("team/private", FILES, private=True)
    with pytest.raises((NotFoundError, AccessError), match="no repository team/none"):
        listed(source, "team/none")
    with pytest.raises(AccessError, match=r"private.*set (HF_TOKEN|MODELSCOPE_API_TOKEN)"):
        listed(source, "team/private")
    with pytest.raises(NotFoundError, match="no such revision"):
        listed(source, "team/model@nowhere")


@pytest.mark.parametrize("text", ["model", "a/b/c", "../x/y", "team/..", "team/model@../x", "te am/model", ""])
def test_what_is_no_repository_never_reaches_the_network(hub: LocalHub, source: Source, text: str) -> None:
    """A reference is checked before it becomes part of a URL."""
    with pytest.raises(FitplugError, match="not a re"):
        listed(source, text)
    assert not hub.log


@pytest.mark.parametrize("fault", ["unsuccessful", "null-files"])
def test_modelscope_never_answers_an_empty_listing_for_a_failed_one(hub: LocalHub, fault: str) -> None:
    """Its own package does."""
    hub.faults["list"] = [fault]
    with pytest.raises(NetworkError):
        listed(load().source("modelscope"))


@pytest.mark.parametrize("fault", ["truncated", "wrong-range", "gzip", "403"])
def test_a_spoiled_range_is_never_taken_for_the_file(hub: LocalHub, source: Source, fault: str) -> None:
    """The bytes come right in the end, or an error does."""
    listing = listed(source)
    entry = next(e for e in listing.entries if e.path.endswith("Q4_K_M.gguf"))
    assert source.open_file is not None
    blob = source.open_file(listing, entry)
    hub.faults["cdn"] = [fault]
    try:
        data = blob.read(70_000, 10)
    except FitplugError as error:
        data = b"\1" * 10 if "\n" not in str(error) else b""
    assert data == b"\1" * 10


def test_a_server_that_ignores_ranges_is_not_drained(hub: LocalHub, source: Source, tmp_path) -> None:
    """Only what stands before the wanted bytes is read."""
    big = tmp_path / "big.gguf"
    with big.open("wb") as file:
        file.write(b"GGUF" + b"\7" * 200_000)
        file.truncate(900 << 20)
    hub.add("team/big", {"Big-Q8_0.gguf": big})
    listing = listed(source, "team/big")
    assert source.open_file is not None
    blob = source.open_file(listing, listing.entries[0])
    hub.faults["cdn"] = ["ignore-range*"]
    hub.log.clear()
    assert blob.read(150_000, 4) == b"\7" * 4
    assert hub.traffic()[1] < 32 << 20
    with pytest.raises(NetworkError, match="ignores byte ranges"):
        blob.read(800 << 20, 4)


def test_a_signature_that_expires_meanwhile_is_asked_for_again(hub: LocalHub, source: Source) -> None:
    """A signed address is good for an hour, a session may be longer."""
    listing = listed(source)
    entry = next(e for e in listing.entries if e.path.endswith("Q4_K_M.gguf"))
    assert source.open_file is not None
    blob = source.open_file(listing, entry)
    assert blob.read(0, 10) == FILES[entry.path][:10]
    hub.faults["cdn"] = ["403"]
    assert blob.read(100_000, 10) == FILES[entry.path][100_000:100_010]
    assert not hub.faults["cdn"]


def test_a_file_of_another_length_than_the_listed_one_is_not_read(hub: LocalHub, source: Source) -> None:
    """It was replaced since: half of one and half of the other is no header."""
    listing = listed(source)
    entry = next(e for e in listing.entries if e.path.endswith("Q4_K_M.gguf"))
    hub.repositories["team/model"].files[entry.path].data = FILES[entry.path] + b"more"
    assert source.open_file is not None
    with pytest.raises(NetworkError, match="it is changing, try again"):
        source.open_file(listing, entry).read(0, 10)


def test_a_mirror_that_answers_with_the_whole_file_and_does_not_say_how_long_it_is(hub: LocalHub, source: Source) -> None:
    """After a redirect of its own, without Content-Length: what is wanted is read and no more."""
    listing = listed(source)
    entry = next(e for e in listing.entries if e.path.endswith("Q4_K_M.gguf"))

    def instead(handler: Handler) -> bool:
        if "gguf" not in handler.path:
            return False
        handler.begin()
        if "mirrored" not in handler.path:
            handler.send(308, b"", {"Location": handler.path + ("&" if "?" in handler.path else "?") + "mirrored=1"})
            return True
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        handler.body(FILES[entry.path])
        return True

    hub.instead = instead
    assert source.open_file is not None
    assert source.open_file(listing, entry).read(0, 10) == FILES[entry.path][:10]
