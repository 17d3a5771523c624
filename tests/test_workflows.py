"""Every template that the tiny model can run, over the API: the video that comes out has the frames, colours and motion."""

import io
import json
from pathlib import Path

import av
import pytest
import torch
from opensora_comfy.training.tiny.judge import judge
from opensora_comfy.training.tiny.looks import is_ember
from tiny import track

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
# name: frames, colour, background, motion of the first and of the last 17 frames
EXPECTED = {
    "1 Text to video": (17, "orange", "black", "right", "right"),
    "2 Image to video (first frame)": (17, "orange", "black", "right", "right"),
    "3 First and last frame (interpolate)": (34, "orange", "black", "right", "right"),
    "4 Keyframe timeline (storyboard)": (34, "orange", "black", "right", "right"),
    "5 Extend a video": (34, "red", "white", "right", "right"),
    "6 Connect two clips (transition)": (51, "red", "white", "right", "right"),
    "7 Loop (seamless)": (34, "red", "white", "right", "left"),
    "8 Inpaint a region (video to video)": (17, "blue", "white", "right", "right"),
}
TRAINING, FOOTAGE = "9 Train a LoRA on my clips", "10 From footage to data set"


def frames_of(data):
    """The frames [T, H, W, 3] in 0..1 of a video file."""
    with av.open(io.BytesIO(data)) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).float() / 255


def test_every_template_of_the_tiny_model_is_here():
    own = {
        path.stem
        for path in WORKFLOWS.glob("*.json")
        if "official files" not in path.stem and not path.stem.endswith(".app")
    }
    assert own == {*EXPECTED, TRAINING, FOOTAGE}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EXPECTED)
def test_the_video_shows_what_the_template_says(name, server):
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    result = server.run(server.page_workflow_to_api(workflow))
    (file,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    video = frames_of(server.view(file))
    frames, color, background, first, last = EXPECTED[name]
    assert video.shape == (frames, 64, 64, 3)
    verdict = judge(video)
    assert (verdict.color, verdict.background) == (color, background)
    assert moves(video[:17]) == first and moves(video[-17:]) == last
    steps = (video.roll(-1, 0) - video).abs().mean((1, 2, 3))
    if name == "7 Loop (seamless)":
        assert steps[-1] <= steps[:-1].max()


@pytest.mark.timeout(600)
def test_what_is_trained_has_the_look_of_the_clips(server):
    """Before and after, side by side; without the samples on the way, which change nothing."""
    workflow = json.loads((WORKFLOWS / f"{TRAINING}.json").read_text(encoding="utf-8"))
    graph = server.page_workflow_to_api(workflow)
    (train,) = [node for node in graph.values() if node["class_type"] == "OpenSoraTrain"]
    assert train["inputs"]["steps"] == 150 and train["inputs"]["branches"] == "look"
    train["inputs"]["sample_every"] = 0
    result = server.run(graph, timeout=600)
    (file,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    video = frames_of(server.view(file))
    assert video.shape == (17, 64, 136, 3)
    before, after = video[:, :, :64], video[:, :, -64:]
    assert is_ember(after) and not is_ember(before)
    assert moves(before) == moves(after) == "right"


@pytest.mark.timeout(600)
def test_what_is_trained_on_the_footage_has_its_look(server):
    """Ten shots of three films, without their flaws; as above without the samples on the way."""
    graph = server.page_workflow_to_api(json.loads((WORKFLOWS / f"{FOOTAGE}.json").read_text(encoding="utf-8")))
    (train,) = [node for node in graph.values() if node["class_type"] == "OpenSoraTrain"]
    train["inputs"]["sample_every"] = 0
    result = server.run(graph, timeout=600)
    (told,) = [result.outputs[key]["text"][0] for key in graph if graph[key]["class_type"] == "OpenSoraFilterClips"]
    assert told.startswith("10 of 13 shots kept of 3 files")
    (file,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    verdict = judge(frames_of(server.view(file)))
    assert (verdict.color, verdict.background, verdict.motion) == ("blue", "white", "right")


def moves(video):
    """Which way the shape goes, by the centre of what differs from the corner; "nowhere" below 4 pixels."""
    x, _, _ = track(video)
    change = float(x[-1] - x[0])
    return "nowhere" if abs(change) < 4 else "right" if change > 0 else "left"
