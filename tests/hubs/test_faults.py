"""Every way that a hub can fail, seen through the command line: exit 3 and one line that says what to do."""

import signal
import subprocess
import sys
import time

import pytest

GGUF = {"Model-Q4_K_M.gguf": b"GGUF" + b"\1" * 200_000}


@pytest.fixture
def fails(hub, run):
    """Run `check` (or another command), which must fail with exit 3 and one line; returns the line."""

    def call(*words):
        ran = run(*words)
        assert ran.status == 3, ran.out
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1
        assert not ran.out
        return ran.err

    return call


@pytest.mark.parametrize("command", ["check", "auto", "show", "download"])
def test_a_repository_that_is_not_there(fails, scheme, command):
    """Missing ones and private ones look alike."""
    assert "no repository team/none" in fails(command, f"{scheme}:team/none")


def test_a_private_repository(hub, fails, scheme):
    """The variable of the token is named."""
    hub.add("team/private", GGUF, private=True)
    assert "_TOKEN" in fails("check", f"{scheme}:team/private")


def test_a_gated_repository(hub, fails):
    """It can be listed, not read."""
    hub.add("team/gated", GGUF, gated=True)
    for command in ("show", "check", "auto"):
        assert "gated: accept its terms" in fails(command, "hf:team/gated")
    assert "private or gated" in fails("show", "modelscope:team/gated")


@pytest.mark.parametrize("fault", ["503", "drop", "403"])
@pytest.mark.parametrize("name", ["Model-Q4_K_M.gguf", "model.safetensors"])
def test_a_repository_of_which_no_file_can_be_had_is_no_page_that_says_none_fits(hub, fails, scheme, fault, name):
    """Nothing is known of it."""
    hub.add("team/model", {name: b"GGUF" + b"\1" * 200_000, "config.json": b"{}"})
    hub.faults["cdn"] = [f"{fault}*"]
    fails("check", f"{scheme}:team/model")


def test_a_network_that_fails_is_not_asked_for_every_file(hub, fails, scheme):
    """Each would take half a minute to fail."""
    hub.add("team/model", {f"Model-{i}-Q4_K_M.gguf": b"GGUF" + b"\1" * 200_000 for i in range(30)})
    hub.faults["cdn"] = ["503*"]
    fails("check", f"{scheme}:team/model")
    assert sum(request.server == "cdn" for request in hub.log) <= 2 * 4


@pytest.mark.parametrize("where", ["list", "cdn"])
def test_ctrl_c_does_not_wait_for_a_stall(hub, scheme, where):
    """Whatever threads are waiting for."""
    hub.add("team/model", GGUF | {f"Model-0000{i}-of-00003.gguf": b"GGUF" + b"\1" * 100_000 for i in (1, 2, 3)})
    hub.faults[where] = ["stall*"]
    words = ["check", f"{scheme}:team/model"] if where == "list" else ["show", f"{scheme}:team/model:Model-00001-of-00003.gguf"]
    # what is started in the background ignores SIGINT from birth
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from fitplug.cli import run; run()"
    running = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)
    for _ in range(300):
        if any(request.server == "cdn" or where == "list" for request in hub.log):
            break
        time.sleep(0.1)
    start = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert time.monotonic() - start < 20  # a stall is given up after 30 s
    assert running.returncode == 130
    assert "Traceback" not in err


def test_a_file_that_cannot_be_had_beside_one_that_can_is_a_note(hub, gguf, run, scheme):
    """The other one is planned."""
    hub.add("team/model", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")} | {"Model-Q8_0.gguf": b"GGUF" + b"\1" * 200_000})

    def instead(handler):
        if "Q8_0" not in handler.path:
            return False
        handler.begin()
        handler.send(403)
        return True

    hub.instead = instead
    ran = run("check", f"{scheme}:team/model", "--gpu", "RTX 4060")
    assert ran.status == 0
    assert "1 of 1 fit" in ran.out
    assert "Q8_0: 127.0.0.1 refuses access" in ran.out or "Q8_0: localhost refuses access" in ran.out


def test_a_token_that_is_refused(hub, fails, scheme, monkeypatch):
    """It is not blamed on the repository alone."""
    monkeypatch.setenv("HF_TOKEN", "wrong")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "wrong")
    hub.add("team/private", GGUF, private=True)
    assert "team/private" in fails("check", f"{scheme}:team/private")


def test_a_renamed_repository_is_followed(hub, gguf, run):
    """As the hub redirects it."""
    hub.add("team/new", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")})
    hub.add("team/old", {}, renamed_to="team/new")
    assert run("check", "hf:team/old", "--gpu", "RTX 4060").status == 0


def test_an_empty_repository(hub, fails, scheme):
    """Empty is said, and different from what holds no model."""
    hub.add("team/empty", {})
    assert "is empty" in fails("check", f"{scheme}:team/empty")
    hub.add("team/data", {"train.parquet": b"x" * 10, "README.md": b"y"})
    assert "no GGUF and no safetensors" in fails("check", f"{scheme}:team/data")
    hub.add("team/projector", {"mmproj-F16.gguf": b"GGUF" + b"\0" * 90})
    assert "no model, only: projector" in fails("check", f"{scheme}:team/projector")


def test_a_dataset(hub, fails, scheme):
    """Its name has one part too many."""
    assert "is not a repository" in fails("check", f"{scheme}:datasets/team/data")


def test_pointers_without_their_files(hub, fails, scheme):
    """Git LFS pointers that were committed as if they were the files."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456789\n"
    hub.add("team/pointers", {"Model-Q4_K_M.gguf": pointer})
    assert "LFS" in fails("show", f"{scheme}:team/pointers")


@pytest.mark.parametrize("status", ["401", "403", "404", "429", "500", "502", "503", "504"])
@pytest.mark.parametrize("where", ["list", "resolve", "cdn"])
def test_a_status_that_stays(hub, fails, scheme, where, status):
    """Wherever it happens."""
    hub.add("team/model", GGUF)
    hub.faults[where] = [f"{status}*"]
    line = fails("show", f"{scheme}:team/model")
    if status == "429":
        assert "slow down" in line


@pytest.mark.parametrize("fault", ["drop", "html", "loop"])
@pytest.mark.parametrize("where", ["list", "resolve", "cdn"])
def test_nonsense_that_stays(hub, fails, scheme, where, fault):
    """Resets, login pages, endless redirects."""
    hub.add("team/model", GGUF)
    hub.faults[where] = [f"{fault}*"]
    fails("show", f"{scheme}:team/model")


@pytest.mark.parametrize("where", ["list", "resolve", "cdn"])
def test_a_stall(hub, fails, where, monkeypatch):
    """Every wait is bounded."""
    monkeypatch.setattr("fitplug.sources.http.READ_TIMEOUT", 0.1)
    hub.add("team/model", GGUF)
    hub.faults[where] = ["stall*"]
    fails("show", "hf:team/model")


@pytest.mark.parametrize("fault", ["truncated", "wrong-range", "gzip"])
def test_ranges_that_lie(hub, fails, scheme, fault):
    """They are not taken for the file."""
    hub.add("team/model", GGUF)
    hub.faults["cdn"] = [f"{fault}*"]
    fails("show", f"{scheme}:team/model")


@pytest.mark.parametrize("fault", ["unsuccessful", "null-files"])
def test_a_listing_that_failed_with_status_200(hub, fails, fault):
    """ModelScope's way; its package takes it for an empty repository."""
    hub.add("team/model", GGUF)
    hub.faults["list"] = [f"{fault}*"]
    fails("check", "modelscope:team/model")


def test_a_server_that_ignores_ranges_still_shows_the_header(hub, gguf, run, scheme):
    """What stands at the beginning can be read without draining the rest."""
    hub.add("team/model", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")})
    hub.faults["cdn"] = ["ignore-range*"]
    assert run("show", f"{scheme}:team/model").status == 0


def test_a_revision_a_file_and_a_quant_that_are_not_there(hub, fails, scheme):
    """What there is instead is listed."""
    hub.add("team/model", GGUF | {"Model-Q8_0.gguf": b"GGUF" + b"\0" * 99})
    assert "no such revision" in fails("check", f"{scheme}:team/model@nowhere")
    assert "there is: Q8_0, Q4_K_M" in fails("auto", f"{scheme}:team/model:Q5_K_M")
    assert "there is: Q8_0, Q4_K_M" in fails("auto", f"{scheme}:team/model")


def test_no_network_at_all(fails, monkeypatch, scheme):
    """Nobody listens there."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot reach 127.0.0.1" in fails("check", f"{scheme}:team/model")


def test_no_token_leaves_its_origin(hub, gguf, run, scheme, monkeypatch):
    """Redirects to the content host carry none, through all of `check`."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", hub.token)
    hub.add("team/private", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")}, private=True)
    assert run("check", f"{scheme}:team/private", "--gpu", "RTX 4060").status == 0
    content = [request for request in hub.log if request.server == "cdn"]
    assert content
    assert all(hub.token not in str(request.headers) for request in content)


def test_a_token_in_the_packages_own_file_opens_a_private_repository(hub, gguf, run, monkeypatch, tmp_path):
    """Without any variable; HF_TOKEN_PATH and HF_HOME are where the package looks."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(f"{hub.token}\n")
    hub.add("team/private", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")}, private=True)
    assert run("check", "hf:team/private", "--gpu", "RTX 4060").status == 0


def test_a_gated_repository_of_which_the_token_has_no_grant(hub, gguf, fails, scheme):
    """403, whatever the body."""
    hub.add("team/gated", {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")})

    def instead(handler):
        if "gguf" not in handler.path:
            return False
        handler.begin()
        handler.send(403, b"access denied", {"X-Error-Code": "GatedRepo"} if scheme == "hf" else {})
        return True

    hub.instead = instead
    assert "gated" in fails("show", f"{scheme}:team/gated")
