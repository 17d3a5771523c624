"""Files that are whole or not there."""

import pytest
from opensora_comfy.model.whole_files import write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_whole_or_as_it_was(tmp_path, durable):
    path = tmp_path / "of" / "one.txt"
    assert write_whole(str(path), lambda file: file.write_text("first"), durable=durable) == path

    def fails(file):
        file.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fails, durable=durable)
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_the_systems_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_whole(tmp_path / "file" / "one.txt", lambda file: file.write_text("first"))
