"""docs/training.md says what the code does: every field, mask, message, command and configuration in it."""

import dataclasses
import importlib.util
import json
import re
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from golden import FOLDER
from opensora_comfy.model.frames import CHUNKS
from opensora_comfy.runner import training_ways
from opensora_comfy.runner.memory_table import gigabytes
from opensora_comfy.runner.training_fields import tables
from opensora_comfy.runner.training_memory import training_peak
from opensora_comfy.training import config, masks, setup
from opensora_comfy.training.data.batches import Shapes

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "docs" / "training-1.2.yaml"
STAGE = json.loads((FOLDER / "training" / "published_configs.json").read_text())["1.2/stage3"]
CONFIGURATIONS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def first_cells(head):
    """The first cells of the table in the page whose first head is this."""
    lines = PAGE[PAGE.index(f"\n| {head} |") + 1 :].splitlines()
    rows = lines[2 : next((number for number, line in enumerate(lines) if not line.startswith("|")), None)]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows]


def test_every_field_is_listed_as_it_is():
    assert tables() in PAGE, tables()


def test_fields_are_listed_with_default_and_range():
    said = tables()
    assert "| `rank` | `16` | 1 … 1,024 | rank of the LoRA |" in said
    assert "| `shift` | `true` | true or false |" in said and "| `trigger` | empty | text |" in said
    assert (
        "| `way` | `buckets` | buckets, padding, packing |" in said
        and "| `learning_rate` | `0.0001` | 1e-09 … 10 |" in said
    )
    assert said.count("\n| `") == sum(len(dataclasses.fields(part.type)) for part in dataclasses.fields(config.Config))


def names_in(cells):
    return sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell))


def test_every_mask_has_its_row():
    assert names_in(first_cells("strategy")) == sorted({*masks.strategies(), "mask_no"})
    assert {f"mask_{name}" for name in masks.RUNS} | {"mask_no"} == set(masks.strategies("1.1"))
    assert names_in(first_cells("condition (1.3)")) == sorted(masks.CONDITIONS)


def test_the_mixture_of_masks_is_the_one_that_is_drawn():
    for ratios in (setup.MASKS, setup.CONDITIONS):
        assert ", ".join(f"`{name}` {ratio:g}" for name, ratio in ratios.items()) in PAGE.replace("\n", " ")


def test_configurations_in_the_page_are_read():
    assert CONFIGURATIONS
    for text in CONFIGURATIONS:
        config.from_mapping(yaml.safe_load(text))


def test_inline_configurations_are_read():
    found = [text for text in re.findall(r"`(\w+: \{.*?\})`", PAGE) if "…" not in text]
    assert len(found) >= 2
    for text in found:
        config.from_mapping(yaml.safe_load(text))


def test_the_published_stage_is_as_published():
    read = config.read(PUBLISHED)
    assert (
        json.loads(json.dumps({str(name): each for name, each in read.shape.buckets.items()})) == STAGE["bucket_config"]
    )
    assert (
        read.objective.masks == STAGE["mask_ratios"] and read.objective.timesteps == STAGE["scheduler"]["sample_method"]
    )
    train = read.train
    assert (train.learning_rate, train.clip, train.eps, train.ema, train.warmup) == (1e-4, 1.0, 1e-15, 0.99, 1000)
    assert (train.learning_rate, train.clip, train.eps) == tuple(
        STAGE[name] for name in ("lr", "grad_clip", "adam_eps")
    )
    assert (train.ema, train.warmup, train.seed) == tuple(STAGE[name] for name in ("ema_decay", "warmup_steps", "seed"))
    assert (train.precision, train.gradient_checkpointing) == (STAGE["dtype"], STAGE["grad_checkpoint"])
    assert read.model.transformer == str(ROOT / "docs" / "opensora_v1_2.safetensors")


def test_the_published_stage_can_be_trained():
    read = config.read(PUBLISHED)
    shapes = Shapes(read.shape.buckets, CHUNKS, read.shape.way, "1.2")
    assert shapes.assign(408, 1080, 1920, lambda index: 0.49).name == "512 · 408 frames · 672x384"
    assert shapes.assign(408, 1080, 1920, lambda index: 0.5).name == "144p · 408 frames · 256x144"
    assert shapes.assign(1, 512, 512).resolution == "512"
    assert setup.objective_of(read, SimpleNamespace(version="1.2", family="stdit3"), {}).ratios == STAGE["mask_ratios"]


def sources():
    files = [*(ROOT / "training").rglob("*.py"), *(ROOT / "model").rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)  # messages that go over several lines


@pytest.mark.parametrize("cell", first_cells("it says"))
def test_messages_are_those_of_the_code(cell):
    """Between dots, and but for values and names that are filled in."""
    code = re.sub(r"\{[^{}]*\}", "…", sources())
    pieces = [piece.strip(" `") for piece in cell.split("…")]
    said = [re.sub(r"'\w+'|\b\d+\b|this \w+ has|train\.rank|nan", "…", piece) for piece in pieces]
    for piece in (part.strip(" ,;") for each in said for part in each.split("…")):
        assert piece in code, piece


def test_commands_are_there():
    spec = importlib.util.spec_from_file_location("opensora_run", ROOT / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    commands = re.findall(r"python run\.py ([^`\n]*)", PAGE)
    assert len(commands) >= 5
    for command in commands:
        options, rest = run.parser().parse_known_args(command.split())
        assert options.command and (not rest or options.passes_on), command


def test_the_measured_table_is_what_was_measured():
    figures = json.loads((ROOT / "docs" / "training_ways.json").read_text(encoding="utf-8"))
    assert training_ways.table(figures) in PAGE, training_ways.table(figures)


def test_the_table_of_memory_is_what_is_counted():
    rows = [row for row in PAGE.splitlines() if row.startswith("| 144p, 51 frames |")]
    counted = [gigabytes(training_peak(256, 144, 51, recompute)) for recompute in (True, False)]
    assert rows == [f"| 144p, 51 frames | {' | '.join(counted)} |"]
