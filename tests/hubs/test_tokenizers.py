"""How large a hub's safetensors would be as GGUF: what is fetched to know it, when, how often, and what is said without."""

import base64
import hashlib
import os
from pathlib import Path

import pytest

from conversion import checkpoints
from conversion.test_vocabularies import CLASSES, RECORDED
from conversion.test_vocabularies import known as _known
from fitplug.extension import Entry
from fitplug.sources import cache
from hubs.local_hub import Stored
from hubs.test_packages import packages

CARD = ("--gpu", "RTX 4090")
NAME = RECORDED["folder"]
"""The repository is called as the folder was that llama.cpp's converter converted, since that is in the file."""
PAIRS = (("LlamaForCausalLM", "llama3"), ("Qwen3ForCausalLM", "gpt2"), ("GemmaForCausalLM", "spm"))
known = _known


def checkpoint(folder, name="LlamaForCausalLM", tokenizer="llama3"):
    """A repository's files: those of a checkpoint that was converted, weights as holes."""
    tensors = {key: (kind, tuple(shape)) for key, kind, shape in CLASSES[name]["source"]}
    beside = {
        path: base64.b64decode(text) if path.endswith(".model") else text.encode()
        for path, text in RECORDED["sets"][tokenizer].items()
    }
    return checkpoints.write(folder, CLASSES[name]["config"], tensors) | beside


@pytest.fixture
def told(run):
    """The sizes that a command tells: type → (bytes, exact)."""

    def call(command, reference):
        ran = run(command, reference, *(CARD if command != "show" else ()), "--json")
        assert ran.status == 0, ran.err
        rows = ran.json["as_gguf"] if command == "show" else [row for row in ran.json["files"] if row["quant"]]
        return {row.get("file_type") or row["quant"]: (row["n_bytes"], row["low_bytes"] == row["high_bytes"]) for row in rows}

    return call


def asked_for(hub, *names):
    """How often each file was asked for, on whichever host."""
    return [sum(name in request.path for request in hub.log) for name in names]


@pytest.mark.parametrize(("name", "tokenizer"), PAIRS)
@pytest.mark.parametrize("below", ["", "sub/folder/"])
def test_a_repository_is_as_large_as_what_the_converter_wrote(hub, told, tmp_path, scheme, name, tokenizer, below):
    """To the byte, in folders below too, with what lies in folders of their own."""
    repository = f"team/{'collection' if below else NAME}"
    below = f"{below}{NAME}/" if below else ""
    files = checkpoint(tmp_path, name, tokenizer)
    hub.add(repository, {f"{below}{path}": data for path, data in files.items()} | {"LICENSE": b"x"})
    first = next(iter(told("show", f"{scheme}:{repository}").values()))
    assert first == (RECORDED["lengths"][name][tokenizer], True)


def test_a_tokenizer_is_fetched_once(hub, told, tmp_path, scheme):
    """The listing, the weights' header and config.json, and what lies beside them; then the listing alone."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    sizes = told("show", f"{scheme}:team/{NAME}")
    beside = RECORDED["sets"]["llama3"]
    assert asked_for(hub, *beside) == [1] * len(beside)
    assert len(hub.log) <= 1 + 3 + 1 + len(beside)
    hub.log.clear()
    assert told("show", f"{scheme}:team/{NAME}") == sizes
    assert len(hub.log) == 1


def test_auto_and_explain_tell_the_same_size(hub, run, tmp_path, scheme):
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    for command in ("auto", "explain"):
        page = " ".join(run(command, f"{scheme}:team/{NAME}", *CARD).out.split())
        assert f"it would have {RECORDED['lengths']['LlamaForCausalLM']['llama3']:,} bytes" in page


def test_of_gguf_no_tokenizer_is_fetched(hub, run, gguf, tmp_path, scheme):
    """Its header has it."""
    beside = {name: text.encode() for name, text in RECORDED["sets"]["llama3"].items()}
    hub.add("team/gguf", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b"), "config.json": b"{}"} | beside)
    for command in ("show", "check", "auto"):
        assert run(command, f"{scheme}:team/gguf", *(CARD if command != "show" else ())).status == 0
    assert asked_for(hub, *beside, "config.json") == [0] * (len(beside) + 1)


def test_a_check_of_one_repository_fetches_a_small_tokenizer(hub, told, tmp_path, scheme, monkeypatch):
    """A large one it does without, and a range is told."""
    files = checkpoint(tmp_path)
    hub.add(f"team/{NAME}", files)
    monkeypatch.setattr("fitplug.cli.check._MOST_FOR_ONE", len(files["tokenizer.json"]) - 1)
    assert not any(exact for _, exact in told("check", f"{scheme}:team/{NAME}").values())
    assert asked_for(hub, "tokenizer", "README.md", "generation_config.json") == [0, 0, 0]
    monkeypatch.setattr("fitplug.cli.check._MOST_FOR_ONE", len(files["tokenizer.json"]))
    sizes = told("check", f"{scheme}:team/{NAME}")
    assert {quant for quant, (_, exact) in sizes.items() if not exact} == {"IQ4_XS", "IQ3_XXS"}  # the matrix's names
    assert sizes["Q4_K_M"] == told("show", f"{scheme}:team/{NAME}")["Q4_K_M"]


def test_a_check_of_several_fetches_none_and_takes_what_is_here(hub, run, tmp_path, scheme):
    """Exact, and for nothing, where one of them was looked at before."""
    for name in ("first", "second"):
        hub.add(f"{name}/{NAME}", checkpoint(tmp_path / name))
    assert run("show", f"{scheme}:first/{NAME}").status == 0
    hub.repositories[f"second/{NAME}"].files["README.md"].data = b"---\nlicense: mit\n---\n"
    hub.log.clear()
    rows = run("check", f"{scheme}:first/{NAME}", f"{scheme}:second/{NAME}", *CARD, "--json").json["files"]
    exact = {row["repository"]: row["low_bytes"] == row["high_bytes"] for row in rows if row["quant"] == "Q4_K_M"}
    assert exact == {f"{scheme}:first/{NAME}": True, f"{scheme}:second/{NAME}": False}
    assert asked_for(hub, "tokenizer", "README.md") == [0, 0]


def test_many_models_share_a_tokenizer(hub, told, tmp_path, scheme):
    """It is kept by its content, not by whose it is."""
    for name in ("first", "second"):
        hub.add(f"{name}/{NAME}", checkpoint(tmp_path / name))
        told("show", f"{scheme}:{name}/{NAME}")
    assert asked_for(hub, "tokenizer.json") == [1]


FAULTS = ("503", "404", "403", "drop", "stall", "html", "changed", "cut")


def spoil(hub, name, fault):
    """Let one file's every answer fail."""

    def instead(handler):
        if name not in handler.path:
            return False
        handler.begin()
        hub.faults["tokenizer"] = ["stall*" if fault == "stall" else f"{fault}*"]
        if fault == "changed":
            stored = next(
                stored for repository in hub.repositories.values() for path, stored in repository.files.items() if path == name
            )
            handler.send(200, stored.read(0, stored.size).swapcase())
        elif fault == "cut":
            handler.send(200, b'{"model": ', length=99_000)
            handler.close_connection = True
        else:
            handler.common_fault("tokenizer")
        return True

    hub.instead = instead


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["tokenizer.json", "README.md"])
def test_a_fault_meanwhile_is_a_range_and_a_note(hub, run, tmp_path, scheme, fault, name, monkeypatch):
    """The answer is there all the same, soon, and the next time it is exact."""
    if fault == "stall":
        monkeypatch.setattr("fitplug.sources.http.READ_TIMEOUT", 0.5)
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    spoil(hub, name, fault)
    ran = run("show", f"{scheme}:team/{NAME}", "--json")
    assert ran.status == 0, ran.err
    assert not ran.err
    first = ran.json["as_gguf"][0]
    assert first["low_bytes"] <= RECORDED["lengths"]["LlamaForCausalLM"]["llama3"] <= first["high_bytes"]
    assert not first["exact"]
    assert any(f"how long its vocabulary is remains unknown: {name}" in note for note in ran.json["notes"])
    for command in ("auto", "explain", "check"):
        assert run(command, f"{scheme}:team/{NAME}", *CARD).status == 0
    hub.instead = None
    assert run("show", f"{scheme}:team/{NAME}", "--json").json["as_gguf"][0]["exact"]


def test_a_network_that_is_gone_is_waited_for_once(hub, run, tmp_path, scheme):
    """Not for each file."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    beside = RECORDED["sets"]["llama3"]

    def instead(handler):
        if not any(name in handler.path for name in beside):
            return False
        handler.begin()
        handler.send(503)
        return True

    hub.instead = instead
    assert run("show", f"{scheme}:team/{NAME}").status == 0
    assert sum(asked_for(hub, *beside)) <= 4 * len(beside)


def test_a_gated_tokenizer_is_a_note(hub, run, tmp_path):
    """The rest may be kept from when it was not."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    assert run("check", f"hf:team/{NAME}", f"hf:team/{NAME}@v1", *CARD).status == 0
    hub.repositories[f"team/{NAME}"].gated = True
    notes = run("show", f"hf:team/{NAME}", "--json").json["notes"]
    assert any("gated: accept its terms" in note for note in notes)


def test_what_is_larger_than_any_tokenizer_is_not_fetched(hub, told, tmp_path, scheme, monkeypatch):
    monkeypatch.setattr("fitplug.sources.fetched.MOST_BYTES", 1000)
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    assert not any(exact for _, exact in told("show", f"{scheme}:team/{NAME}").values())
    assert asked_for(hub, "tokenizer.json") == [0]


def test_what_was_kept_and_is_damaged_is_fetched_again(hub, told, tmp_path, scheme):
    """A disk may be full, a file may be cut."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    sizes = told("show", f"{scheme}:team/{NAME}")
    kept = [path for path in (tmp_path / "home").rglob("files/*") if path.is_file()]
    assert len(kept) >= len(RECORDED["sets"]["llama3"])
    for path in kept:
        path.write_bytes(path.read_bytes()[::-1])
    hub.log.clear()
    assert told("show", f"{scheme}:team/{NAME}") == sizes
    assert asked_for(hub, "tokenizer.json") == [1]


def test_a_cache_that_cannot_be_written_to_costs_only_time(hub, told, tmp_path, scheme, monkeypatch):
    """Exact all the same."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert told("show", f"{scheme}:team/{NAME}")["BF16"][1]


def test_a_content_that_is_no_name_of_one_leads_nowhere(hub, told, tmp_path, scheme, monkeypatch):
    """Whatever a listing calls it."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    for method in ("git_oid", "sha256"):
        monkeypatch.setattr(Stored, method, lambda _: "../../escaped")
    assert told("show", f"{scheme}:team/{NAME}")["BF16"][1]
    assert not list(tmp_path.rglob("escaped*"))


FETCH = {
    "hf": """
from huggingface_hub import snapshot_download
snapshot_download("team/{name}", ignore_patterns="*.safetensors")
""",
    "modelscope": """
from modelscope import snapshot_download
snapshot_download("team/{name}", "master", ignore_file_pattern=["*.safetensors"])
""",
}


def test_what_the_hubs_own_package_fetched_is_not_fetched_again(hub, run, tmp_path, scheme):
    """Nor kept twice; several repositories are exact for nothing then."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    hub.add("team/other", checkpoint(tmp_path / "other", "GemmaForCausalLM", "spm"))
    packages(FETCH[scheme].format(name=NAME) + "print(0)")
    hub.log.clear()
    rows = run("check", f"{scheme}:team/{NAME}", f"{scheme}:team/other", *CARD, "--json").json["files"]
    exact = {row["repository"]: row["low_bytes"] == row["high_bytes"] for row in rows if row["quant"] == "Q4_K_M"}
    assert exact == {f"{scheme}:team/{NAME}": True, f"{scheme}:team/other": False}
    assert asked_for(hub, "tokenizer", "README.md") == [0, 0]
    assert not list((tmp_path / "home").rglob("files/*"))


def test_a_model_that_was_looked_at_is_read_from_here(hub, run, gguf, tmp_path, scheme):
    """Headers too: `auto` after `check` asks for the listing and nothing else."""
    hub.add("team/gguf", {f"Model-{quant}.gguf": gguf("gemma-3-4b", n_merges=1000) for quant in ("Q4_K_M", "Q6_K")})
    assert run("check", f"{scheme}:team/gguf", *CARD).status == 0
    hub.log.clear()
    for command in ("auto", "explain", "show"):
        assert run(command, f"{scheme}:team/gguf:Q6_K", *(CARD if command != "show" else ())).status == 0
    assert len(hub.log) == 3


def test_all_files_of_a_model_share_connections(hub, run, tmp_path, scheme):
    """What is fetched later goes over those of the headers."""
    hub.add(f"team/{NAME}", checkpoint(tmp_path))
    assert run("show", f"{scheme}:team/{NAME}").status == 0
    assert hub.n_connections <= 2 * 6
    assert len(hub.log) > 6


def test_the_cache_forgets_what_was_not_used_for_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MAX_FILES_BYTES", 250)
    files = cache.FileCache(tmp_path)
    contents = [bytes([i]) * 100 for i in range(3)]
    entries = [Entry(path="x", n_bytes=100, sha256=hashlib.sha256(data).hexdigest()) for data in contents]
    for i in (0, 1):
        files.put(entries[i], contents[i])
        os.utime(Path(tmp_path) / str(entries[i].content), (1000 + i, 1000 + i))
    assert files.get(entries[0]) == contents[0]
    files.put(entries[2], contents[2])
    assert [files.get(entry) is not None for entry in entries] == [True, False, True]
