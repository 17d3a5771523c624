"""The pictures that the templates load are offered, once, and never over a picture of the artist's."""


def test_example_images_are_offered_and_never_replace_anything(comfy, tmp_path, monkeypatch):
    import folder_paths
    from opensora_comfy.nodes.comfy import files

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    files.offer_example_images()
    offered = sorted(path.name for path in tmp_path.iterdir())
    assert offered == sorted(path.name for path in files.EXAMPLE_IMAGES.iterdir())
    assert offered
    (tmp_path / offered[0]).write_text("the artist's own")
    files.offer_example_images()
    assert (tmp_path / offered[0]).read_text() == "the artist's own"


def test_a_folder_that_cannot_be_written_to_is_no_failure(comfy, tmp_path, monkeypatch, caplog):
    import folder_paths
    from opensora_comfy.nodes.comfy import files

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "missing"))
    files.offer_example_images()
    assert "could not be put into the input folder" in caplog.text


def test_a_copy_that_fails_half_way_leaves_nothing(comfy, tmp_path, monkeypatch):
    import folder_paths
    from opensora_comfy.nodes.comfy import files

    def disk_full(source, target):
        target.write_bytes(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    monkeypatch.setattr(files.shutil, "copyfile", disk_full)
    files.offer_example_images()
    assert not list(tmp_path.iterdir())
