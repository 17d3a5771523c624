"""The pictures and clips that the templates load: offered once, never over a file of the artist's, never again."""

import json
import shutil

import pytest
from conftest import ROOT
from small import pack


@pytest.fixture
def places(comfy, tmp_path, monkeypatch):
    """(input folder, folder of the pack's examples), both the test's own."""
    import folder_paths

    examples = pack("nodes.comfy.examples")
    folder, source = tmp_path / "input", tmp_path / "examples"
    folder.mkdir()
    shutil.copytree(examples.EXAMPLE_IMAGES, source)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(folder))
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(examples, "EXAMPLE_IMAGES", source)
    return folder, source


def start():
    pack("nodes.comfy.examples").offer_example_images()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_deleted_stays_deleted(places):
    folder, source = places
    start()
    assert names(folder) == names(source) and len(names(source)) > 3
    first, *rest = names(folder)
    (folder / first).unlink()
    start()
    start()
    assert names(folder) == rest
    shutil.rmtree(folder)
    folder.mkdir()
    start()
    assert names(folder) == []


def test_a_file_of_the_artists_stays_and_still_does_once_it_is_gone(places):
    folder, source = places
    mine = folder / names(source)[0]
    mine.write_text("the artist's own")
    start()
    assert mine.read_text() == "the artist's own" and names(folder) == names(source)
    mine.unlink()
    start()
    assert not mine.exists()


def test_a_new_example_is_offered_and_a_changed_one_replaces_its_untouched_copy(places):
    folder, source = places
    start()
    changed, edited, deleted, *_ = names(source)
    (folder / edited).write_text("the artist's own")
    (folder / deleted).unlink()
    for name in (changed, edited, deleted, "new.png"):
        (source / name).write_text("of a newer version")
    start()
    assert (folder / "new.png").read_text() == (folder / changed).read_text() == "of a newer version"
    assert (folder / edited).read_text() == "the artist's own"
    assert not (folder / deleted).exists()


def test_each_input_folder_is_offered_them(places, tmp_path, monkeypatch):
    import folder_paths

    start()
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(other))
    start()
    assert names(other) == names(places[1])


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "[" * 100_000])
def test_a_damaged_list_of_what_was_offered_is_no_failure(places, tmp_path, text):
    file = tmp_path / "user" / "__opensora" / "examples.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    start()
    assert names(places[0]) == names(places[1])
    assert len(json.loads(file.read_text())) == 1


def test_a_folder_that_cannot_be_written_to_is_no_failure(places, caplog):
    folder, source = places
    folder.rmdir()
    start()
    assert "could not be put into the input folder" in caplog.text
    folder.mkdir()
    start()  # not counted as offered
    assert names(folder) == names(source)


def test_a_list_that_cannot_be_written_is_no_failure(places, tmp_path, caplog):
    (tmp_path / "user").write_text("a file where the folder should be")
    start()
    assert names(places[0]) == names(places[1])
    assert "example pictures that you delete will return" in caplog.text


def test_a_copy_that_fails_half_way_leaves_nothing(places, monkeypatch):
    def disk_full(source, target):
        target.write_bytes(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(pack("nodes.comfy.examples").shutil, "copyfile", disk_full)
    start()
    assert names(places[0]) == []


def test_templates_find_their_files_where_the_loaders_look(server):
    """In the lists of Load Image and Load Video: newer front ends mark any other file red."""
    listed = {
        kind: set(server.object_info(kind)[kind]["input"]["required"][name][0])
        if isinstance(server.object_info(kind)[kind]["input"]["required"][name][0], list)
        else set(server.object_info(kind)[kind]["input"]["required"][name][1]["options"])
        for kind, name in (("LoadImage", "image"), ("LoadVideo", "file"))
    }
    wanted = set()
    for path in (ROOT / "workflows").glob("*.json"):
        for node in json.loads(path.read_text(encoding="utf-8")).get("nodes", []):
            if node["type"] in listed:
                wanted.add((node["type"], node["widgets_values"][0]))
    assert len(wanted) > 4
    assert not {(kind, name) for kind, name in wanted if name not in listed[kind]}


def test_two_starts_of_a_server(server):
    """What a real start wrote is what the next one goes by."""
    offered = json.loads((server.base / "user" / "__opensora" / "examples.json").read_text(encoding="utf-8"))
    examples = pack("nodes.comfy.examples")
    assert list(offered) == [str((server.base / "input").resolve())]
    assert sorted(*offered.values()) == names(examples.EXAMPLE_IMAGES)
