"""What the hubs' own packages keep on this disk, in every layout that they have had, online and offline."""

import os
import subprocess
import sys

import pytest

from conversion import checkpoints

CARD = ("--gpu", "RTX 4060")
SHARDS = [f"Q4/Model-Q4_K_M-0000{i}-of-00002.gguf" for i in (1, 2)]
LAYOUTS = {
    "hf": ["hub/models--team--model-1.5/snapshots/main"],
    "modelscope": ["ms/models/team--model-1.5/snapshots/master", "ms/models/team/model-1___5", "ms/hub/models/team/model-1___5",
                   "ms/team/model-1___5", "ms/hub/team/model-1___5"],
}  # fmt: skip


def layouts():
    """Each hub's."""
    return [(scheme, folder) for scheme, folders in LAYOUTS.items() for folder in folders]


@pytest.fixture
def split(gguf, tmp_path):
    """A model in two files, small ones: path in the repository → path."""
    from hubs.hub_files import shards

    return dict(zip(SHARDS, shards(gguf("gemma-3-4b", n_merges=1000), tmp_path, 2).values(), strict=True))


def keep(folder, files):
    """Put them where a package would."""
    for name, path in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)


def fitplug(*words, **variables):
    """In a process of its own: the packages read the environment when they are imported."""
    code = "import sys; from fitplug.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | variables,
    )


@pytest.mark.parametrize(("scheme", "folder"), layouts())
def test_a_split_that_is_there_is_read_from_there(hub, run, split, tmp_path, scheme, folder):
    """In each layout; only the listing is asked for."""
    hub.add("team/model-1.5", split)
    keep(tmp_path / "home" / folder, split)
    ran = run("auto", f"{scheme}:team/model-1.5", *CARD)
    assert ran.status == 0, ran.err
    assert len(hub.log) == 1


@pytest.mark.parametrize(("scheme", "folder"), layouts())
def test_a_file_that_is_there_is_called_as_its_repository_calls_it(hub, run, split, tmp_path, scheme, folder):
    """With its folder: llama.cpp is told to fetch it under that name."""
    hub.add("team/model-1.5", split)
    keep(tmp_path / "home" / folder, split)
    argv = run("auto", f"{scheme}:team/model-1.5", *CARD, "--json").json["argv"]
    assert argv[argv.index("-hff") + 1] == SHARDS[0]


@pytest.mark.parametrize(("scheme", "folder"), layouts())
def test_what_is_there_can_be_planned_for_without_the_hub(hub, run, split, tmp_path, monkeypatch, scheme, folder):
    """And the page says that it may not be all."""
    keep(tmp_path / "home" / folder, split)
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run("auto", f"{scheme}:team/model-1.5:q4_k_m", *CARD).status == 0
    ran = run("check", f"{scheme}:team/model-1.5", *CARD)
    assert ran.status == 0
    assert "only what of team/model-1.5 has been downloaded" in " ".join(ran.out.split())
    ran = run("auto", f"{scheme}:team/model-1.5:Q8_0", *CARD)
    assert ran.status == 3
    assert "has been downloaded" in ran.err


def test_offline_means_that_nobody_is_asked(hub, split, tmp_path):
    """HF_HUB_OFFLINE: what is there is planned for, what is not is one line."""
    hub.add("team/model-1.5", split)
    keep(tmp_path / "home" / LAYOUTS["hf"][0], split)
    assert fitplug("auto", "hf:team/model-1.5", *CARD, HF_HUB_OFFLINE="1").returncode == 0
    done = fitplug("auto", "hf:team/other", *CARD, HF_HUB_OFFLINE="1")
    assert done.returncode == 3
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not hub.log


def test_a_cut_or_older_file_is_not_taken_for_the_one_that_is_listed(hub, run, split, gguf, tmp_path, scheme):
    """Another length, or another blob of the same length."""
    hub.add("team/model-1.5", split)
    folder = tmp_path / "home" / LAYOUTS[scheme][0]
    first, second = SHARDS
    (folder / first).parent.mkdir(parents=True)
    (folder / first).write_bytes(b"GGUF cut")
    if scheme == "hf":
        blob = tmp_path / "home" / "hub" / "blobs" / ("a" * 64)
        blob.parent.mkdir(parents=True)
        with blob.open("wb") as file:
            file.truncate(split[second].stat().st_size)
        (folder / second).symlink_to(blob)
    ran = run("auto", f"{scheme}:team/model-1.5", *CARD)
    assert ran.status == 0, ran.err


def test_a_branch_is_the_commit_that_it_was(hub, run, split, tmp_path):
    """A ref's file names it, in folders where the branch has slashes."""
    hub.add("team/model-1.5", split)
    home = tmp_path / "home" / "hub" / "models--team--model-1.5"
    keep(home / "snapshots" / ("c" * 40), split)
    for ref in ("main", "v1"):
        (home / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (home / "refs" / ref).write_text("c" * 40)
    for revision in ("", "@v1"):
        hub.log.clear()
        assert run("auto", f"hf:team/model-1.5{revision}", *CARD).status == 0
        assert len(hub.log) == 1


def test_a_config_that_is_there_and_only_as_long_as_the_listed_one_is_not_it(hub, run, tmp_path, scheme):
    """One digit may differ. Hugging Face's package names a small file by git's name for it, ModelScope's leaves it as it is."""
    config, tensors = checkpoints.llama(2)
    old, new = (
        checkpoints.write(tmp_path / str(n_ctx), config | {"max_position_embeddings": n_ctx}, tensors) for n_ctx in (4096, 8192)
    )
    hub.add("team/model", old)
    kept = tmp_path / (hub.repositories["team/model"].files["config.json"].git_oid() if scheme == "hf" else "config.json")
    kept.write_bytes(old["config.json"])
    keep(tmp_path / "home" / LAYOUTS[scheme][0].replace("model-1.5", "model"), old | {"config.json": kept})
    for files, n_ctx in ((old, 4096), (new, 8192)):
        hub.add("team/model", files)
        hub.log.clear()
        rows = run("check", f"{scheme}:team/model", *CARD, "--json").json["files"]
        assert max(row["n_ctx"] or 0 for row in rows) == n_ctx
        assert any("config.json" in request.path for request in hub.log) is (files is new)


@pytest.mark.parametrize(
    "name", ["../x-Q4_K_M.gguf", "/etc/x-Q4_K_M.gguf", "a/../../x-Q4_K_M.gguf", "a\\..\\..\\x-Q4_K_M.gguf"]
)
def test_no_listing_leads_out_of_its_folder(hub, run, gguf, scheme, name, tmp_path):
    """Such a file is not there, for any command."""
    hub.add("team/model", {name: gguf("gemma-3-4b"), "Model-Q4_K_M.gguf": gguf("gemma-3-4b")})
    assert len(run("check", f"{scheme}:team/model", *CARD, "--json").json["files"]) == 1
    for command in ("show", "download"):
        assert run(command, f"{scheme}:team/model:{name}").status == 3


def test_a_header_that_another_fitplug_read_is_read_anew(hub, run, gguf, scheme, monkeypatch):
    """This one may see more in it."""
    hub.add("team/model", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b", n_merges=1000)})
    requests = []
    for version in ("1", "2", "2"):
        monkeypatch.setattr("fitplug.sources.headers._version", lambda version=version: version)
        hub.log.clear()
        assert run("show", f"{scheme}:team/model").status == 0
        requests.append(len(hub.log))
    assert requests[0] == requests[1] > requests[2] == 1


def test_a_cache_of_headers_that_was_cut_is_read_anew(hub, run, gguf, tmp_path, scheme):
    """And mended."""
    hub.add("team/model", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b", n_merges=1000)})
    first = run("check", f"{scheme}:team/model", *CARD, "--json").json["files"]
    kept = list((tmp_path / "home").rglob("headers/*.json"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1000])
    assert run("check", f"{scheme}:team/model", *CARD, "--json").json["files"] == first
    hub.log.clear()
    assert run("check", f"{scheme}:team/model", *CARD, "--json").json["files"] == first
    assert len(hub.log) == 1
