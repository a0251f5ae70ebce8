"""The official packages against the local hubs: what they list and download, so must fitplug; what they keep, it reads."""

import subprocess
import sys
from pathlib import Path

import pytest

from conversion import checkpoints
from fitplug.registry import load

FILES = {"Model-Q4_K_M.gguf": b"GGUF" + b"\1" * 200_000, "folder/part.gguf": b"GGUF" + b"\2" * 90_000, "README.md": b"hello"}

LIST = {
    "hf": """
from huggingface_hub import HfApi
print(sorted((f.path, f.size) for f in HfApi().list_repo_tree("team/model", recursive=True) if hasattr(f, "size")))
""",
    "modelscope": """
from modelscope.hub.api import HubApi
files = HubApi().get_model_files("team/model", revision="master", recursive=True)
print(sorted((f["Path"], f["Size"]) for f in files if f["Size"]))
""",
}
FETCH = {
    "hf": """
from huggingface_hub import hf_hub_download
print(hf_hub_download("team/model", "Model-Q4_K_M.gguf"))
""",
    "modelscope": """
from modelscope import model_file_download
print(model_file_download("team/model", "Model-Q4_K_M.gguf", "master"))
""",
}


def packages(code):
    """In a process of their own: they read the endpoint when they are imported."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def filled(hub):
    hub.add("team/model", FILES)
    return hub


def test_the_package_lists_what_fitplug_lists(filled, scheme):
    """The local hub answers as the package wants it."""
    source = load().source(scheme)
    listed = sorted((entry.path, entry.n_bytes) for entry in source.list("team/model").entries)
    assert packages(LIST[scheme]) == str(listed)


def test_what_the_package_downloaded_is_not_fetched_again(filled, scheme):
    """Its cache is found and read."""
    path = packages(FETCH[scheme])
    source = load().source(scheme)
    listing = source.list("team/model")
    entry = next(entry for entry in listing.entries if entry.path == "Model-Q4_K_M.gguf")
    filled.log.clear()
    blob = source.open_file(listing, entry)
    assert blob.read(100_000, 10) == b"\1" * 10
    assert not filled.log
    assert Path(path).read_bytes() == FILES["Model-Q4_K_M.gguf"]


DOWNLOAD = "import sys; from fitplug.cli import main; sys.exit(main(sys.argv[1:]))"


def fitplug(*words):
    """In a process of its own, for the same reason."""
    return subprocess.run([sys.executable, "-c", DOWNLOAD, *words], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("folder", [True, False])
def test_download_hands_over_to_the_package(filled, gguf, scheme, tmp_path, folder):
    """The file arrives whole, and the command that plans for it is printed."""
    done = fitplug("download", f"{scheme}:team/model:Q4_K_M", *(["--to", str(tmp_path / "to")] if folder else []))
    assert done.returncode == 0, done.stderr
    words = done.stdout.strip().splitlines()[-1].split()
    assert words[:2] == ["fitplug", "auto"]
    assert Path(words[2]).read_bytes() == FILES["Model-Q4_K_M.gguf"]
    if folder:
        assert words[2].startswith(str(tmp_path / "to"))


def test_a_checkpoint_is_downloaded_with_what_the_converter_needs(hub, scheme, tmp_path):
    """The tokenizer in all its files, the card; not the same weights in other forms, nor other folders."""
    files = checkpoints.write(tmp_path / "st", *checkpoints.llama(1), n_shards=2)
    beside = dict.fromkeys(
        ("tokenizer.json", "vocab.json", "vocab.txt", "README.md", "tokenization_own.py", "1_Pooling/config.json"), b"{}"
    )
    others = dict.fromkeys(("pytorch_model.bin", "consolidated.safetensors", "onnx/config.json", "picture.png"), b"x")
    hub.add("team/tensors", files | beside | others)
    done = fitplug("download", f"{scheme}:team/tensors:Q4_K_M", "--to", str(tmp_path / "to"))
    assert done.returncode == 0, done.stderr
    there = {p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*") if p.is_file()}
    assert {path for path in there if not path.startswith(".")} == {*files, *beside}


def test_a_download_that_breaks_is_one_line(filled, scheme):
    """The package's own error, shortened."""
    filled.faults["cdn"] = ["403*"]
    done = fitplug("download", f"{scheme}:team/model:Q4_K_M")
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: downloading from team/model failed")
    assert "Traceback" not in done.stderr


def test_a_download_that_stalls_is_one_line(filled, scheme, monkeypatch):
    """Whichever exception the package's own network code has for it."""
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_TIMEOUT", "1")
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "1")
    filled.faults["cdn"] = ["stall*"]
    done = fitplug("download", f"{scheme}:team/model:Q4_K_M")
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: downloading from team/model failed")


def test_a_gated_download_says_what_to_do(filled, scheme):
    """As all commands do, though here it is the package that is refused."""
    filled.repositories["team/model"].gated = True
    done = fitplug("download", f"{scheme}:team/model:Q4_K_M")
    assert done.returncode == 3
    assert "gated" in done.stderr.strip().splitlines()[-1]


def test_a_disk_that_is_too_small_is_told_before(filled, run, monkeypatch):
    """Nothing is fetched."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    ran = run("download", "hf:team/model:Q4_K_M", "--to", "somewhere")
    assert ran.status == 3
    assert "do not fit on the disk" in ran.err
    assert not any(request.server == "cdn" for request in filled.log)
