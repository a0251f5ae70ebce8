"""Hubs, mirrors and content hosts that do the same in another way."""

import email.utils
import json
import time
from functools import partial
from urllib.parse import quote

import pytest

from fitplug.sources.http import Http

CARD = ("--gpu", "RTX 4060")


@pytest.fixture
def team(hub, gguf):
    """team/model with one quant, in a folder of its own."""
    hub.add("team/model", {"UD/Model-Q4_K_M.gguf": gguf("gemma-3-4b")})
    return hub


def fits(run, reference, *more):
    """`check` of it finds something that fits."""
    ran = run("check", reference, *CARD, "--json", *more)
    assert ran.status == 0, ran.err + ran.out
    return ran.json


def changed(change):
    """A hub whose ModelScope listing is changed item by item before it is sent."""

    def instead(handler):
        if handler.server_name != "ms" or "/repo/files" not in handler.path:
            return False
        send = handler.send_json

        def changing(value, *rest, **named):
            for item in (value.get("Data") or {}).get("Files") or []:
                change(item)
            send(value, *rest, **named)

        handler.send_json = changing
        return False

    return instead


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_any_redirect_is_followed_wherever_it_leads(team, run, scheme, status):
    """Relative ones, several in a row, all to the same host."""

    def instead(handler):
        here, _, hops = handler.path.partition("hops=")
        if handler.server_name == "cdn" or "gguf" not in handler.path or hops == "4":
            return False
        handler.begin()
        more = "" if hops else "&" if "?" in here else "?"
        handler.send(status, b"", {"Location": f"{here}{more}hops={int(hops or 0) + 1}"})
        return True

    team.instead = instead
    fits(run, f"{scheme}:team/model")


@pytest.mark.parametrize("form", ["interface", "page"])
def test_a_modelscope_that_serves_files_in_one_of_its_two_forms_is_enough(team, run, form):
    """Its package asks the interface, people's links name the page."""

    def instead(handler):
        is_page = "/resolve/" in handler.path
        if handler.server_name != "ms" or "gguf" not in handler.path or is_page == (form == "page"):
            return False
        handler.begin()
        handler.send(404, b"404 page not found")
        return True

    team.instead = instead
    fits(run, "modelscope:team/model")


@pytest.mark.parametrize("change", [
    pytest.param(lambda item: item.update(Size=str(item["Size"])), id="sizes as text"),
    pytest.param(lambda item: item.update(Sha256=""), id="no hashes"),
    pytest.param(lambda item: item.pop("Sha256"), id="no hash keys"),
    pytest.param(lambda item: item.update(Type="file") if item["Type"] == "blob" else None, id="another type"),
    pytest.param(lambda item: item.update(Sha256=None, IsLFS=None, Name=None), id="nulls"),
])  # fmt: skip
def test_what_a_listing_of_modelscope_may_lack_is_not_needed(team, run, change):
    """Files are found all the same."""
    team.instead = changed(change)
    fits(run, "modelscope:team/model")


def test_a_file_without_a_size_is_not_left_out_in_silence(team, run):
    """It is named."""
    team.instead = changed(lambda item: item.pop("Size"))
    ran = run("check", "modelscope:team/model", *CARD)
    assert ran.status == 3
    assert "UD/Model-Q4_K_M.gguf" in ran.err


def test_a_mirrors_pages_are_followed_on_the_mirror(hub, run, gguf):
    """Its Link names the hub that it mirrors, or is relative; nothing is cut off, and nobody else is asked."""
    hub.page_size = 2
    hub.add("team/many", {f"Model-{i}-Q4_K_M.gguf": gguf("gemma-3-4b") for i in range(5)})
    for origin in ("https://huggingface.co", ""):

        def instead(handler, origin=origin):
            send = handler.send_json

            def linking(value, status=200, headers=None):
                link = (headers or {}).get("Link", "").replace(hub.url("hf"), origin)
                send(value, status, {"Link": link} if link else headers)

            handler.send_json = linking
            return False

        hub.instead = instead
        assert len(fits(run, "hf:team/many")["files"]) == 5


@pytest.mark.parametrize(
    "name", ["Modell Größe #1 100%-Q4_K_M.gguf", "模型/千问+&=?-Q4_K_M.gguf", "a b/Model-Q4_K_M.GGUF", "x@y-Q8_0.gguf"]
)
def test_names_are_what_people_type(hub, run, gguf, scheme, name):
    """Spaces, signs that mean something in a URL, any script, upper-case endings."""
    hub.add("team/named", {name: gguf("gemma-3-4b"), "other-Q2_K.gguf": gguf("gemma-3-4b")})
    found = fits(run, f"{scheme}:team/named")
    assert all(row["fits"] for row in found["files"])
    ran = run("auto", f"{scheme}:team/named:{name}", *CARD)
    assert ran.status == 0, ran.err + ran.out


def test_a_location_in_any_script_is_followed(hub, run, gguf):
    """Sent as its bytes, without percent signs."""
    hub.add("team/named", {"模型-Q4_K_M.gguf": gguf("gemma-3-4b")})

    def instead(handler):
        send = partial(type(handler).send, handler)  # one connection serves several requests

        def raw(status, body=b"", headers=None, **named):
            location = (headers or {}).get("Location", "")
            if location:
                headers = headers | {"Location": location.replace(quote("模型"), "模型").encode().decode("latin-1")}
            send(status, body, headers, **named)

        handler.send = raw
        return False

    hub.instead = instead
    fits(run, "hf:team/named")


@pytest.mark.parametrize("location", ["http://[::1", "http://host:port/", "ftp://host/x", "//", "http://"])
def test_a_location_that_is_none_is_one_line(team, run, scheme, location):
    """And no traceback."""

    def instead(handler):
        if "gguf" not in handler.path:
            return False
        handler.begin()
        handler.send(302, b"", {"Location": location})
        return True

    team.instead = instead
    ran = run("show", f"{scheme}:team/model")
    assert ran.status == 3
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("error: ")


@pytest.mark.parametrize(
    ("variable", "scheme"), [("HF_ENDPOINT", "hf"), ("MODELSCOPE_ENDPOINT", "modelscope"), ("MODELSCOPE_DOMAIN", "modelscope")]
)
def test_an_endpoint_is_written_in_many_ways(team, run, monkeypatch, variable, scheme):
    """With slashes behind it, in capitals; what is no address is one line."""
    url = team.url("hf" if scheme == "hf" else "ms")
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    for written in (f"{url}/", f"{url}//", url.replace("http", "HTTP"), f" {url} "):
        monkeypatch.setenv(variable, written)
        fits(run, f"{scheme}:team/model")
    for written in ("http://127.0.0.1:port", "http://[::1", "localhost:9", "127.0.0.1:9", "nonsense with spaces", "ftp://host"):
        monkeypatch.setenv(variable, written)
        ran = run("check", f"{scheme}:team/model")
        assert ran.status == 3, written
        assert ran.err.count("\n") == 1


def waiting(how):
    """The headers of an answer that asks for patience."""
    return {
        "seconds": {"Retry-After": "3"},
        "date": {"Retry-After": email.utils.formatdate(time.time() + 4, usegmt=True)},
        "window": {"RateLimit": '"api";r=0;t=3', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
    }[how]


@pytest.mark.parametrize("how", ["seconds", "date", "window"])
def test_a_busy_hub_is_given_the_time_it_asks_for(team, how):
    """In whichever header it says so."""
    waits, busy = [], [1]

    def instead(handler):
        if not busy:
            return False
        busy.pop()
        handler.begin()
        handler.send(429, b"", waiting(how))
        return True

    team.instead = instead
    http = Http(sleep=waits.append)
    http.get_json(f"{team.url('hf')}/api/models/team/model/tree/main")
    assert len(waits) == 1
    assert 2 <= waits[0] <= 4


def test_a_hub_that_asks_for_minutes_is_not_asked_again(team, run, scheme):
    """Waiting in vain and asking too early serve nobody: when is said instead."""

    def instead(handler):
        handler.begin()
        handler.send(429, b"", {"Retry-After": "240"})
        return True

    team.instead = instead
    ran = run("check", f"{scheme}:team/model")
    assert ran.status == 3
    assert "try again in 240 s" in ran.err
    assert len(team.log) == 1


@pytest.mark.parametrize("where", ["list", "gguf"])
def test_a_body_that_drips_ends(team, run, monkeypatch, scheme, where):
    """Each byte in time, and never all of them."""
    monkeypatch.setattr("fitplug.sources.http.TOTAL_TIMEOUT", 0.5)

    def instead(handler):
        if ("gguf" in handler.path) != (where == "gguf"):
            return False
        handler.begin()
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(200):
            handler.body(b" ")
            if handler.close_connection:
                break
            time.sleep(0.05)
        handler.close_connection = True
        return True

    team.instead = instead
    start = time.monotonic()
    ran = run("show", f"{scheme}:team/model")
    assert ran.status == 3
    assert "took more than" in ran.err
    assert time.monotonic() - start < 6


def test_a_part_without_its_place_is_not_believed(team, run):
    """206 and no Content-Range."""

    def instead(handler):
        if handler.server_name != "cdn":
            return False
        handler.begin()
        handler.send(206, b"GGUF" + b"\0" * 1000)
        return True

    team.instead = instead
    ran = run("show", "hf:team/model")
    assert ran.status == 3
    assert "does not say which" in ran.err


def test_the_size_of_a_large_file_is_its_own_and_not_its_pointers(team, run):
    """As a hub says it that takes the pointer for the file."""

    def instead(handler):
        if handler.server_name != "hf":
            return False
        item = handler.__class__.item

        def pointing(path, stored):
            made = item(path, stored)
            return made | {"size": 135} if "lfs" in made else made | {"lfs": None}

        handler.item = pointing
        return False

    team.instead = instead
    assert fits(run, "hf:team/model")["files"][0]["n_bytes"] > 1 << 30


@pytest.mark.parametrize("revision", ["v1", "release/2.0", "refs/pr/1"])
def test_a_revision_is_asked_for_everywhere(team, run, scheme, revision):
    """In the listing and for each file, slashes and all."""
    asked = []

    def instead(handler):
        if handler.server_name == "cdn":
            return False
        asked.append(handler.path)
        escaped = quote(revision, safe="")
        if escaped not in handler.path:
            handler.begin()
            handler.send_json({"Code": 10990101004, "Success": False}, 404, {"X-Error-Code": "RevisionNotFound"})
            return True
        handler.path = handler.path.replace(escaped, "v1")
        return False

    team.instead = instead
    fits(run, f"{scheme}:team/model@{revision}")
    assert len(asked) >= 2


def test_a_search_shows_what_each_hub_has(hub, run, gguf):
    """The first one does not take all places."""
    for i in range(6):
        hub.add(f"team/model-{i}", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")})

    def instead(handler):
        if handler.server_name != "hf" or not handler.path.startswith("/api/models?"):
            return False
        handler.begin()
        handler.send_json([{"id": "team/model-5"}, {"modelId": "x"}, {"id": 7}, "nonsense"])
        return True

    hub.instead = instead
    found = fits(run, "--search=model", "--limit", "3")
    names = {one["repository"] for one in found["repositories"]}
    assert "hf:team/model-5" in names
    assert len(names) == 3


def test_a_listing_is_json_whatever_it_calls_itself(team, run):
    """And compressed, where the client takes that."""
    import gzip

    def instead(handler):
        if "/tree/" not in handler.path:
            return False

        def squeezed(value, status=200, headers=None):
            body = gzip.compress(json.dumps(value).encode())
            handler.send(status, body, {"Content-Encoding": "gzip", "Content-Type": "text/plain"})

        handler.send_json = squeezed
        return False

    team.instead = instead
    fits(run, "hf:team/model")


@pytest.mark.parametrize("command", ["auto", "show"])
def test_a_repository_without_its_hub_is_told_how_to_write_it(team, run, command):
    """A path of two names may be meant as one; other paths are not."""
    err = run(command, "team/model:Q4_K_M").err
    assert "no such file" in err or "no source" in err
    assert "hf:team/model:Q4_K_M" in err
    assert "modelscope:team/model:Q4_K_M" in err
    for path in ("some/where/model", "models/model.gguf"):
        assert "hf:" not in run(command, path).err


PAGES = {
    "hf": ["https://huggingface.co/team/model", "https://hf.co/team/model/", "https://huggingface.co/team/model/tree/main?x=1#files"],
    "modelscope": ["https://modelscope.cn/models/team/model", "https://www.modelscope.cn/models/team/model/summary",
                   "https://modelscope.ai/models/team/model/files"],
}  # fmt: skip
FILES = {
    "hf": ["https://huggingface.co/team/model/blob/main/UD/Model-Q4_K_M.gguf",
           "https://huggingface.co/team/model/resolve/main/UD/Model-Q4_K_M.gguf?download=true"],
    "modelscope": ["https://modelscope.cn/models/team/model/file/view/master/UD/Model-Q4_K_M.gguf?status=2",
                   "https://modelscope.cn/models/team/model/resolve/master/UD/Model-Q4_K_M.gguf"],
}  # fmt: skip


def test_the_address_of_a_page_is_a_name_too(team, run, scheme):
    """As the browser shows it, of the repository or of a file in it."""
    for page in PAGES[scheme]:
        ran = run("check", page, *CARD, "--json")
        assert ran.status == 0, ran.err
        assert ran.json["repository"] == f"{scheme}:team/model"
    for page in FILES[scheme]:
        ran = run("auto", page, *CARD, "--json")
        assert ran.status == 0, ran.err
        assert ran.json["argv"][1:5] == ["-hf", "team/model", "-hff", "UD/Model-Q4_K_M.gguf"]
    assert "no such revision" in run("show", FILES[scheme][0].replace("/main/", "/gone/").replace("/master/", "/gone/")).err


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_no_try_is_begun_when_the_last_one_took_long(team, run, scheme, monkeypatch, seconds):
    """A stall is as long as a network may take; four of them are longer than anybody waits."""
    monkeypatch.setattr("fitplug.sources.http.READ_TIMEOUT", 0.1)
    monkeypatch.setattr("fitplug.sources.http.MAX_TRYING", seconds)
    team.faults["list"] = ["stall*"]
    ran = run("check", f"{scheme}:team/model", *CARD)
    assert ran.status == 3
    assert ran.err.count("\n") == 1
    assert len(team.log) == (4 if seconds else 1)
