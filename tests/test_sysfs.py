from fitplug.sysfs import read_tree


def test_a_star_stands_for_a_part_of_one_name(tmp_path):
    for name in ("card0", "card1", "other", "card1-DP-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(f" {name}\n")
    assert read_tree(["/card*/size"], str(tmp_path)) == {
        "/card0/size": "card0",
        "/card1/size": "card1",
        "/card1-DP-1/size": "card1-DP-1",
    }
    assert read_tree(["/c*1/size", "/absent", "/none*/size"], str(tmp_path)) == {
        "/card1/size": "card1",
        "/card1-DP-1/size": "card1-DP-1",
    }


def test_what_cannot_be_read_is_absent(tmp_path):
    (tmp_path / "folder").mkdir()
    assert read_tree(["/folder", "/missing/file"], str(tmp_path)) == {}


def test_long_files_are_cut_and_odd_bytes_are_text(tmp_path):
    (tmp_path / "long").write_bytes(b"x" * 100_000)
    (tmp_path / "odd").write_bytes(b"nvidia,tegra234\0\xff\n")
    found = read_tree(["/long", "/odd"], str(tmp_path))
    assert len(found["/long"]) == 16 << 10
    assert found["/odd"] == "nvidia,tegra234\ufffd"


def test_no_more_files_are_read_than_a_machine_has(tmp_path):
    for i in range(2100):
        (tmp_path / f"f{i}").touch()
    assert len(read_tree(["/f*"], str(tmp_path))) == 2048
