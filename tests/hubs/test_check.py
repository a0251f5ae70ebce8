"""`fitplug check` against the hubs: what it shows, what it recommends, what it costs."""

import pytest

from cli_support import make_models, write_projector
from conversion import checkpoints

CARD = ("--gpu", "RTX 4060")


def test_each_model_is_a_row_and_the_rest_is_listed_apart(team, run, scheme):
    """Projectors, drafts, importance matrices and pieces are no models."""
    ran = run("check", f"{scheme}:team/model", *CARD, "--json")
    assert ran.status == 0
    assert ran.json["schema"] == 1
    assert [row["label"] for row in ran.json["files"]] == ["Q2_K", "Q4_K_M", "Q6_K"]
    others = {other["path"]: other["role"] for other in ran.json["repositories"][0]["others"]}
    assert others == {
        "mmproj-F16.gguf": "projector",
        "imatrix.gguf": "imatrix",
        "mtp-Model-Q4_K_M.gguf": "draft",
        "Old.Q4_0.gguf": "pieces",
    }


def test_the_quant_is_what_the_tensors_say(team, run):
    """A name is only a label: all three files here are Q4_K_M."""
    rows = run("check", "hf:team/model", *CARD, "--json").json["files"]
    assert len({row["bits_per_weight"] for row in rows}) == 1
    assert 4.5 < rows[0]["bits_per_weight"] < 5.5
    assert rows[0]["quality"] == "small loss" or rows[0]["quality"] == "very small loss"


def test_the_page_names_one_row_why_and_what_to_type(team, run, scheme):
    """Download and plan, ready to copy."""
    out = run("check", f"{scheme}:team/model", *CARD).out
    assert out.count("→") == 1
    assert "bits per weight with" in out
    recommended = run("check", f"{scheme}:team/model", *CARD, "--json").json["recommended"]
    for words in recommended["commands"]:
        assert " ".join(words[:3]) in out
    assert run("auto", recommended["reference"], *CARD).status == 0


def test_nothing_fits_is_exit_1(team, run):
    """A card of 1 GiB in a machine without memory to speak of."""
    ran = run("check", "hf:team/model", "--gpu", "RTX 4060=0.3", "-ngl", "all", "-c", "131072")
    assert ran.status == 1
    assert "none fits" in ran.out
    assert "fitplug download" not in ran.out


def test_several_repositories_and_a_search_rank_across(team, gguf, run, scheme):
    """The best of all is named last; one that cannot be read is a note."""
    team.add("team/larger", {"Larger-Q4_K_M.gguf": gguf("llama-3.1-8b")})
    ran = run("check", f"{scheme}:team/model", f"{scheme}:team/larger", f"{scheme}:team/none", *CARD, "--json")
    assert ran.status == 0
    assert ran.json["recommended"]["reference"] == f"{scheme}:team/larger"
    assert "team/none" in ran.json["notes"][0]
    found = run("check", "--search", "team", "--hub", scheme, *CARD, "--json")
    assert {one["repository"] for one in found.json["repositories"]} == {f"{scheme}:team/model", f"{scheme}:team/larger"}


def test_a_search_that_finds_nothing_is_one_line(team, run):
    """And so is a hub that does not exist, or words and names together."""
    assert run("check", "--search", "nothing of that name").status == 3
    assert run("check", "--search", "team", "--hub", "nowhere").status == 3
    assert run("check", "hf:team/model", "--search", "team").status == 2
    assert run("check").status == 2


@pytest.mark.parametrize("stranger", ["team/model", "file:x", "https://hf.co/datasets/team/data", "hf", "ollama:llama3"])
def test_what_is_no_hub_is_told_how_to_write_it(hub, run, stranger):
    """Exit 3, one line."""
    ran = run("check", stranger)
    assert ran.status == 3
    assert "OWNER/NAME" in ran.err
    assert ran.err.count("\n") == 1


def test_shards_are_one_row_and_a_missing_one_is_said(hub, gguf, run, tmp_path):
    """Twenty shards, of which the last is not there."""
    names = [f"Big-Q4_K_M-{i:05d}-of-00020.gguf" for i in range(1, 20)]
    hub.add("team/split", dict.fromkeys(names, b"GGUF" + b"\x00" * 200))
    ran = run("check", "hf:team/split", *CARD)
    assert ran.status == 1
    assert "Big-Q4_K_M-00020-of-00020.gguf is not in the repository" in ran.out


def test_one_broken_file_does_not_hide_the_others(team, run, scheme):
    """It is a row that says so."""
    team.repositories["team/model"].files["Model-IQ1_S.gguf"] = type(team.repositories["team/model"].files["README.md"])(
        b"no model" * 20
    )
    ran = run("check", f"{scheme}:team/model", *CARD, "--json")
    assert ran.status == 0
    broken = next(row for row in ran.json["files"] if row["label"] == "IQ1_S")
    assert broken["problem"]
    assert not broken["fits"]


def test_a_sibling_costs_its_two_ends(hub, run, tmp_path, scheme):
    """One listing, one whole header, and 64 KiB and a window of each further file; the second time one listing."""
    path = tmp_path / "model.gguf"
    make_models().write("llama-3.1-8b", path, n_merges=280_000)
    hub.add("team/many", {f"Model-{i}-Q4_K_M.gguf": path for i in range(6)})
    for i, stored in enumerate(hub.repositories["team/many"].files.values()):
        stored.digest = f"{i:064d}"
    assert run("check", f"{scheme}:team/many", *CARD).status == 0
    n_requests, n_bytes = hub.traffic()
    header = 128256 * 16 + 280_000 * 17
    assert n_requests <= 1 + 6 * 4
    assert n_bytes < 2 * header + 6 * (160 << 10)
    hub.log.clear()
    assert run("check", f"{scheme}:team/many", *CARD).status == 0
    assert len(hub.log) == 1


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_safetensors_are_shown_as_they_are_and_as_what_they_would_be(hub, run, tmp_path, scheme, dtype):
    """A row for the files, and one for each quant, planned."""
    config, tensors = checkpoints.qwen3_4b()
    if dtype != "BF16":
        config |= {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    hub.add("team/tensors", checkpoints.write(tmp_path / "st", config, tensors, dtype=dtype, n_shards=3))
    ran = run("check", f"{scheme}:team/tensors", *CARD, "--json")
    assert ran.status == 0
    first, *others = ran.json["files"]
    assert first["label"].startswith("FP8" if dtype != "BF16" else "BF16")
    assert first["n_bytes"] == sum(path.stat().st_size for path in (tmp_path / "st").glob("*.safetensors"))
    assert {"Q8_0", "Q4_K_M", "IQ4_XS"} <= {row["quant"] for row in others}
    assert all(row["fits"] for row in others)
    assert run("auto", f"{scheme}:team/tensors:Q4_K_M", *CARD, "--json").json["model"]["file_type"] == "Q4_K_M"
    assert run("auto", f"{scheme}:team/tensors:Q4_K_M", *CARD).out.count("worked out from safetensors") == 1
    assert run("show", f"{scheme}:team/tensors").status == 0


def test_safetensors_of_an_unknown_class_are_shown_with_their_size(hub, run, tmp_path):
    """And the reason why there is no plan."""
    config, tensors = checkpoints.llama(2)
    files = checkpoints.write(tmp_path / "st", config | {"architectures": ["NobodyKnowsForCausalLM"]}, tensors)
    hub.add("team/unknown", files)
    ran = run("check", "hf:team/unknown", *CARD)
    assert ran.status == 1
    assert "NobodyKnowsForCausalLM" in ran.out


def test_the_disk_is_looked_at(team, run, monkeypatch):
    """What it cannot hold is said, with Ollama's copy counted."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3 << 30})())
    assert "not enough disk space" not in run("check", "hf:team/model", *CARD).out
    ran = run("check", "hf:team/model", *CARD, "--runner", "ollama")
    assert "2 times, since Ollama keeps a copy" in ran.out
    assert not run("check", "hf:team/model", *CARD, "--runner", "ollama", "--json").json["files"][0]["fits_disk"]


def test_the_disk_must_hold_what_a_quant_is_made_of(hub, run, tmp_path, monkeypatch, scheme):
    """The checkpoint, the file that is quantised, and the quant."""
    hub.add("team/tensors", checkpoints.write(tmp_path / "st", *checkpoints.llama(2)))
    whole, *quants = run("check", f"{scheme}:team/tensors", *CARD, "--json").json["files"]
    f16 = run("show", f"{scheme}:team/tensors", "--json").json["as_gguf"][0]["n_bytes"]
    needed = {row["quant"]: whole["n_bytes"] + f16 + row["n_bytes"] for row in quants}
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": needed["Q4_K_M"]})())
    rows = run("check", f"{scheme}:team/tensors", *CARD, "--json").json["files"][1:]
    assert {row["quant"]: row["fits_disk"] for row in rows} == {q: n <= needed["Q4_K_M"] for q, n in needed.items()}
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20})())
    assert "for what it is made of" in " ".join(run("check", f"{scheme}:team/tensors", *CARD).out.split())


def test_another_config_is_another_model(hub, run, tmp_path, scheme):
    """What is kept of safetensors is not believed once config.json has changed, if only by a digit."""
    config, tensors = checkpoints.llama(2)
    for n_ctx in (4096, 8192):
        hub.add("team/tensors", checkpoints.write(tmp_path / "st", config | {"max_position_embeddings": n_ctx}, tensors))
        rows = run("check", f"{scheme}:team/tensors", *CARD, "--json").json["files"]
        assert max(row["n_ctx"] or 0 for row in rows) == n_ctx


def test_how_weights_are_stored_may_lie_in_a_file_of_its_own(hub, run, tmp_path, scheme):
    """ModelOpt's, whose config.json says nothing of it."""
    files = checkpoints.write(tmp_path / "st", *checkpoints.llama(2))
    path = tmp_path / "st" / "hf_quant_config.json"
    path.write_text('{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}')
    hub.add("team/opt", files | {path.name: path})
    assert "FP8 safetensors" in run("check", f"{scheme}:team/opt", *CARD).out


def test_a_projector_beside_the_model_is_planned_for_on_request(hub, run, gguf, tmp_path, scheme):
    """The page says how, and the command that `auto` then prints names something that llama-server can open."""
    projector = write_projector("gemma-3-4b", tmp_path / "mmproj.gguf")
    files = {"Model-Q4_K_M.gguf": gguf("gemma-3-4b", n_merges=1000)}
    hub.add(
        "team/sees", files | {"mmproj-Q8_0.gguf": projector, "mmproj-F16.gguf": projector, "old/mmproj-F16.gguf": projector}
    )
    out = run("check", f"{scheme}:team/sees", *CARD).out
    assert f"fitplug auto {scheme}:team/sees --mmproj {scheme}:team/sees:mmproj-F16.gguf --gpu 'RTX 4060'" in out
    ran = run("auto", f"{scheme}:team/sees", "--mmproj", f"{scheme}:team/sees:mmproj-F16.gguf", *CARD, "--json")
    assert ran.status == 0, ran.err
    argv = ran.json["argv"]
    assert argv[argv.index("-mmu") + 1].startswith("http://127.0.0.1:")
    assert argv[argv.index("-mmu") + 1].endswith("mmproj-F16.gguf")
    assert "--no-mmproj" not in argv
    assert run("export", "ollama", f"{scheme}:team/sees", "--mmproj", f"{scheme}:team/sees:mmproj-F16.gguf", *CARD).status == 3


def test_planning_for_one_file_costs_a_few_requests(hub, run, tmp_path, scheme):
    """A header of megabytes comes in pieces that are as large as it probably is."""
    path = tmp_path / "model.gguf"
    make_models().write("llama-3.1-8b", path, n_merges=280_000)
    hub.add("team/one", {"Model-Q4_K_M.gguf": path})
    assert run("auto", f"{scheme}:team/one", *CARD).status == 0
    assert len(hub.log) <= 8


def test_files_of_one_hub_share_connections(team, run, scheme):
    """Also over redirects: setting one up costs more than a request."""
    team.add(
        "team/many",
        {f"Model-{i:02d}-Q4_K_M.gguf": team.repositories["team/model"].files["Model-Q2_K.gguf"].data for i in range(20)},
    )
    assert run("check", f"{scheme}:team/many", *CARD).status == 0
    assert team.n_connections <= 2 * (1 + 6) + 2
    assert len(team.log) >= 3 * 20
