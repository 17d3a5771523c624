"""Footage in a real server: a film by the template, and interrupts that keep what is done and leave the server usable."""

import io
import json
import shutil
import threading
import time

import av
import pytest
from conftest import ROOT
from prompts import as_prompt

TEMPLATE = ROOT / "workflows" / "10 From footage to data set.json"
SHORT = {
    "OpenSoraTrain": {"steps": 2, "sample_every": 0, "rank": 2, "validation": 0.0},
    "OpenSoraSampler": {"steps": 2},
}
PREPARE = {
    "folder": "example footage (bundled)", "cuts": "1.2", "shortest": 0.5, "motion": True, "camera": False,
    "quality": False, "duplicates": False, "text_overlay": False, "captions": "a street",
}  # fmt: skip
FILTER = {
    "manifest": ["shots", 0], "min_motion": 0.5, "max_motion": 0.0, "min_sharpness": 0.0, "min_seconds": 0.0,
    "max_seconds": 0.0, "min_aesthetic": 0.0, "camera": "any", "drop_duplicates": True,
}  # fmt: skip


def prepare(**values):
    """The node that prepares, as a graph."""
    return {"shots": ("OpenSoraPrepareClips", PREPARE | values)}


@pytest.fixture(scope="module")
def put(server, footage):
    """Copies real files into a folder of ComfyUI's input folder."""

    def copied(folder, *names):
        place = server.base / "input" / folder
        place.mkdir(parents=True)
        for name in names:
            shutil.copyfile(footage / name, place / name)
        return place

    return copied


def ran(result):
    """The nodes that a run has executed, in their order."""
    return [data["node"] for kind, data in result.events if kind == "executing" and data.get("node")]


def notes_of(server, folder):
    """{file: its bytes} of what is noted of a folder's footage."""
    found = (server.base / "output" / "opensora_training" / "footage").glob(f"{folder}-*/*.notes/**/*.jsonl")
    return {path: path.read_bytes() for path in found}


def test_one_film_becomes_a_data_set_a_lora_and_a_clip_by_the_template(server, put):
    """The template as it is, but for the folder and the counts of steps: five shots of a film with real cuts."""
    put("bikes", "bikes.mp4")
    graph = server.page_workflow_to_api(json.loads(TEMPLATE.read_text(encoding="utf-8")))
    for node in graph.values():
        node["inputs"] |= SHORT.get(node["class_type"], {})
        if node["class_type"] == "OpenSoraPrepareClips":
            node["inputs"]["folder"] = "bikes"
    result = server.run(graph)
    told = {node["class_type"]: result.outputs.get(number, {}).get("text", [""])[0] for number, node in graph.items()}
    assert told["OpenSoraPrepareClips"].startswith("5 of 6 shots kept of 1 file")
    assert "1 left out: it lasts 0.32 s, less than 0.5 s" in told["OpenSoraPrepareClips"]
    assert told["OpenSoraFilterClips"].startswith("5 of 6 shots kept of 1 file")
    assert told["OpenSoraDataset"].startswith("5 clips, 1 captions") and "bikes.mp4#5" in told["OpenSoraDataset"]
    page = told["OpenSoraPrepareClips"].splitlines()[-1].removeprefix("report: ")
    with open(page, encoding="utf-8") as file:
        assert file.read(9).lower() == "<!doctype"
    (video,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    with av.open(io.BytesIO(server.view(video))) as container:
        assert len(list(container.decode(video=0))) == 17


def test_a_changed_file_is_prepared_again_and_so_is_what_follows(server, put):
    """Queued again as it is, nothing runs; with one file more, both nodes do."""
    place = put("grows", "carphone_pristine.mp4")
    graph = as_prompt(prepare(folder="grows") | {"kept": ("OpenSoraFilterClips", FILTER)})
    first = server.run(graph)
    assert first.outputs["kept"]["text"][0].startswith("1 of 1 shot kept of 1 file")
    assert ran(first) == ["shots", "kept"] and ran(server.run(graph)) == []
    shutil.copyfile(ROOT / "assets" / "footage" / "porcelain circles.mp4", place / "more.mp4")
    again = server.run(graph)
    assert again.outputs["kept"]["text"][0].startswith("6 of 6 shots kept of 2 files")


def test_an_interrupt_keeps_what_is_done_and_the_next_run_goes_on(server, put):
    """Within a long file too; what waits in the queue can be deleted meanwhile, and other graphs run afterwards."""
    put("long", "bikes.mp4", "world.mp4")
    graph, stopped = as_prompt(prepare(folder="long")), []

    def stop():
        end = time.monotonic() + 60
        while not any(b'"shot"' in notes for notes in notes_of(server, "long").values()) and time.monotonic() < end:
            time.sleep(0.05)
        waiting = server.client.post("/prompt", {"prompt": as_prompt(prepare())})["prompt_id"]
        server.client.post("/queue", {"delete": [waiting]})
        stopped.append(time.monotonic())
        server.interrupt()

    watcher = threading.Thread(target=stop)
    watcher.start()
    result = server.post_prompt(graph)
    watcher.join()
    assert result.interrupted and not result.success and time.monotonic() - stopped[0] < 5
    before = {path: notes for path, notes in notes_of(server, "long").items() if b'"shot"' in notes}
    assert before and not list((server.base / "output" / "opensora_training" / "footage").glob("long-*/*.jsonl"))
    queue = server.client.get("/queue")
    assert server.alive() and not queue["queue_running"] and not queue["queue_pending"]
    assert server.run(as_prompt(prepare(shortest=0.4))).outputs["shots"]["text"][0].startswith("13 of 13 shots")
    again = server.run(graph)
    assert again.outputs["shots"]["text"][0].startswith("6 of 7 shots kept of 2 files")
    after = notes_of(server, "long")
    assert all(after[path].startswith(notes) for path, notes in before.items())  # nothing noted is done over again


def test_an_interrupt_is_heard_within_a_file(server, put):
    """One long file, interrupted as soon as it is begun: it is not read to its end first."""
    put("alone", "world.mp4")

    def stop():
        end = time.monotonic() + 60
        while not notes_of(server, "alone") and time.monotonic() < end:
            time.sleep(0.02)
        server.interrupt()

    watcher = threading.Thread(target=stop)
    watcher.start()
    result = server.post_prompt(as_prompt(prepare(folder="alone")))
    watcher.join()
    (notes,) = notes_of(server, "alone").values()
    assert result.interrupted and b'"holds": [' not in notes and server.alive()


@pytest.mark.parametrize(
    "graph, words",
    [
        (prepare(cuts="none", transitions=1.0), "cuts are by 'none'"),
        (prepare(folder="nowhere"), "folder is 'nowhere'"),
        ({"kept": ("OpenSoraFilterClips", FILTER | {"manifest": "/nowhere.jsonl"})}, "and there is nothing"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(graph, words, server):
    result = server.post_prompt(as_prompt(graph))
    assert words in result.message and not ran(result)
