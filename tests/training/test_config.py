"""The configuration: every field with its range, read from YAML and written back."""

import dataclasses
import difflib
import sys
from pathlib import Path

import pytest
from opensora_comfy.training import config as configuration
from opensora_comfy.training.config import Config, DataConfig, ModelConfig, SaveConfig, TrainConfig, from_mapping

FIELDS = [
    (section.name, one) for section in dataclasses.fields(Config) for one in dataclasses.fields(section.type)
]  # fmt: skip
NUMBERS = [(section, one) for section, one in FIELDS if one.type in (int, float)]
CHOICES = [(section, one) for section, one in FIELDS if "choices" in one.metadata]
OTHERS = [(section, one) for section, one in FIELDS if one.type not in (int, float)]


def ids(value):
    return getattr(value, "name", value)


def refusal(section, one, value):
    with pytest.raises(ValueError) as caught:
        from_mapping({section: {one.name: value}})
    return str(caught.value)


def test_there_are_fields():
    assert len(FIELDS) > 40 and len(NUMBERS) > 20 and len(CHOICES) >= 8
    assert all(one.metadata["help"] for _, one in FIELDS)


@pytest.mark.parametrize("section, one", NUMBERS, ids=ids)
def test_every_number_has_its_range(section, one):
    low, high = one.metadata["low"], one.metadata["high"]
    for value, near in ((low - 1, low), (high + 1, high)):
        said = refusal(section, one, value)
        assert said.startswith(f"{section}.{one.name} is ") and f"within {low} … {high}" in said
        assert said.endswith(f"the nearest is {near}")
    for value in (low, high):
        assert getattr(getattr(from_mapping({section: {one.name: value}}), section), one.name) == value
    for value in ("much", True, None, [1], float("nan")):
        assert refusal(section, one, value).startswith(f"{section}.{one.name} is {value!r}; it must be a number within")
    if one.type is int:
        assert refusal(section, one, low + 0.25).endswith(
            f"is {low + 0.25:g}; it must be a whole number; the nearest is {low}"
        )


@pytest.mark.parametrize("section, one", CHOICES, ids=ids)
def test_every_choice_names_the_nearest(section, one):
    choices = one.metadata["choices"]
    for choice in choices:
        wrong = f"{choice}x"
        near = difflib.get_close_matches(wrong, choices, 1, 0)[0]
        said = refusal(section, one, wrong)
        assert (
            said == f"{section}.{one.name} is '{wrong}'; it must be one of {', '.join(choices)}; the nearest is {near}"
        )
        assert getattr(getattr(from_mapping({section: {one.name: choice}}), section), one.name) == choice


@pytest.mark.parametrize("section, one", OTHERS, ids=ids)
def test_every_other_field_has_its_type(section, one):
    kind = {str: "text", bool: "true or false", dict: "a mapping", list: "a list of texts"}[one.type]
    wrong = {str: [7, ["x"]], bool: ["yes", 1], dict: [[1], "x"], list: ["x", {"a": 1}, [1]]}[one.type]
    for value in wrong:
        assert refusal(section, one, value).startswith(f"{section}.{one.name} is {value!r}; it must be {kind}, such as")


def test_what_has_no_name_is_refused():
    with pytest.raises(ValueError, match="^trian is no field; known are model, data, .*; the nearest is train$"):
        from_mapping({"trian": {}})
    with pytest.raises(
        ValueError, match="^train.lerning_rate is no field; known are kind, .*; the nearest is learning_rate$"
    ):
        from_mapping({"train": {"lerning_rate": 1}})
    for value in (3, [], "x", 0):
        with pytest.raises(ValueError, match="^train is .*; it must be a section with fields: kind, rank"):
            from_mapping({"train": value})
    assert from_mapping({}) == from_mapping({"train": None}) == Config()


def test_yaml_as_people_write_it(tmp_path):
    """1e-4 is text to YAML, and 1.2 a number."""
    path = tmp_path / "c.yaml"
    path.write_text("train:\n  learning_rate: 1e-4\n  steps: 1e3\n  ema: '0.5'\nmodel:\n  version: 1.0\nshape:\n")
    found = configuration.read(path)
    assert (found.train.learning_rate, found.train.steps, found.train.ema) == (1e-4, 1000, 0.5)
    assert type(found.train.steps) is int and found.model.version == "1.0"
    path.write_text("")
    assert configuration.read(path).train == TrainConfig()


def test_paths_are_seen_from_the_file(tmp_path):
    path = tmp_path / "runs" / "c.yaml"
    path.parent.mkdir()
    path.write_text("data: {path: ../clips}\nmodel: {vae: /weights/vae.safetensors}\nsave: {folder: out}\n")
    found = configuration.read(path)
    assert Path(found.data.path).resolve() == (tmp_path / "clips").resolve()
    assert Path(found.model.vae) == Path("/weights/vae.safetensors").absolute() or found.model.vae.endswith(
        "vae.safetensors"
    )
    assert found.model.transformer == "bundled" and found.data.cache == ""
    assert found.save.folder == str(tmp_path / "runs" / "out")


def test_what_is_written_is_read_back(tmp_path):
    given = Config(
        model=ModelConfig(transformer=str(tmp_path / "夜 model.safetensors"), version="1.3"),
        data=DataConfig(path=str(tmp_path / "a: b #c"), trigger="zwx 'cat' \"x\": #1", windows=3),
        shape=configuration.ShapeConfig(way="packing", buckets={"240p": {1: 4, 17: [0.5, 2]}, "64x64": {34: 1}}),
        objective=configuration.ObjectiveConfig(masks={"image_head": 0.25}, shift=False),
        train=TrainConfig(learning_rate=3e-05, eps=1e-15, seed=2**63 - 1, gradient_checkpointing=True),
        save=SaveConfig(folder=str(tmp_path / "run"), prompts=["a: b", "one # two", "ünï", ""], every_minutes=0.5),
    )
    path = tmp_path / "sub" / "c.yaml"
    configuration.write(given, path)
    assert configuration.read(path) == given
    configuration.write(configuration.read(path), path)
    assert configuration.read(path) == given and [one.name for one in path.parent.iterdir()] == ["c.yaml"]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(FIELDS) + 6 and sum("  # " in line for line in lines) >= len(FIELDS)


@pytest.mark.parametrize(
    "content, words",
    [("a: [", "is no YAML"), ("- a\n", "holds list; it must hold sections: model, data, shape"), ("text", "holds str")],
)
def test_what_is_no_configuration(tmp_path, content, words):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        configuration.read(path)


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path):
    (tmp_path / "train.yaml").write_text("")
    with pytest.raises(ValueError, match="there is no configuration .*trian.yaml; the nearest is train.yaml"):
        configuration.read(tmp_path / "trian.yaml")
    with pytest.raises(ValueError, match="c.yaml cannot be written .*; free space there, or choose another folder"):
        configuration.write(Config(), tmp_path / "train.yaml" / "c.yaml")


def test_without_yaml_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    for call in (
        lambda: configuration.read(tmp_path / "c.yaml"),
        lambda: configuration.write(Config(), tmp_path / "c.yaml"),
    ):
        with pytest.raises(ValueError, match="needs the package PyYAML: pip install pyyaml"):
            call()
