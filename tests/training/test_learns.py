"""A LoRA learns what the bundled model does not know, from 24 clips in a minute of one core: run with -m long.

Named in advance. Look: 24 prompts that say neither colour nor ground, fixed seeds; a clip has moved to the look where
its colours are at most half as far from it as those of the base model's clip of the same prompt and seed. Motion: 24
prompts, fixed seeds; a clip has it where its middle lies to the right of its ends.
"""

import json
from pathlib import Path

import comfy.sd
import pytest
from opensora_comfy.training import setup
from opensora_comfy.training.config import from_mapping
from opensora_comfy.training.data.dataset import clip_of_images
from opensora_comfy.training.data.encoders import TextEncoder, VideoEncoder
from opensora_comfy.training.sampling import sample
from opensora_comfy.training.tiny import looks
from opensora_comfy.training.tiny.captions import MOTION_WORDS
from opensora_comfy.training.tiny.judge import judge
from opensora_comfy.training.tiny.shapes import BACKGROUNDS, COLORS, MOTIONS, SHAPES
from opensora_comfy.training.trainer.trainer import Trainer

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
SIZE = {"height": 64, "width": 64, "num_frames": 17}
SHARE = 0.9
OF_THE_LOOK = [
    (shape, motion, looks.PROMPT.format(shape=shape, does=MOTION_WORDS[motion][0][0]))
    for motion in MOTIONS
    for shape in SHAPES
]
OF_THE_LOOK += [
    ("circle", "left", "a ball moves left"),
    ("square", "up", "a box goes up"),
    ("triangle", "grow", "a triangle gets bigger"),
]
OF_THE_MOTION = [(list(COLORS)[index % 6], SHAPES[index // 2 % 3], list(BACKGROUNDS)[index % 4]) for index in range(24)]


@pytest.fixture(scope="module")
def encoders():
    return VideoEncoder(), TextEncoder(tokenizer=Path(comfy.sd.__file__).parent / "text_encoders" / "t5_tokenizer")


def taught(folder, encoders, made, branches, steps, dropout):
    """(the base model, the same with the LoRA that these clips taught, the losses held out before and after)."""
    clips = [clip_of_images(video, caption, 24.0, f"clip {n}") for n, (video, caption, _) in enumerate(made)]
    config = from_mapping(
        {
            "train": {"steps": steps, "rank": 16, "learning_rate": 2e-3, "ema": 0.98, "branches": branches,
                      "schedule": "cosine"},
            "objective": {"masks": {"identity": 1.0}, "caption_dropout": dropout},
            "data": {"validation": 0.2},
            "save": {"folder": str(folder), "every_steps": 1000, "every_minutes": 60},
        }
    )  # fmt: skip
    base, about = setup.open_network(config)
    network = setup.make_trainable(setup.open_network(config)[0], config.train)
    shapes = setup.shapes_of(config, about, clips, encoders[0].counting, network.version)
    examples, held_back = setup.examples_of(config, clips, shapes)
    for part in (examples, held_back):
        part.prepare(*encoders)
    objective = setup.objective_of(config, network, about)
    trainer = Trainer(network, examples, objective, config.train, config.save, validation=held_back)
    trainer.run()
    trainer.result()
    judged = [line["validation"] for line in trainer.log.entries() if "validation" in line]
    return base, network, judged[0], min(judged)


def generate(network, encoders, prompts):
    encoder, reader = encoders
    settings = {"base_resolution": 32 * 32, "base_num_frames": 1, "scale": 1.0}
    found = []
    for number, prompt in enumerate(prompts):
        features, mask = reader(prompt)
        latents = sample(
            network, features, mask, counting=encoder.counting, seed=100 + number, flow_settings=settings, **SIZE
        )
        found.append(((encoder.decode(latents, 17)[0].permute(1, 2, 3, 0) + 1) / 2).clamp(0, 1))
    return found


def share(values):
    return sum(values) / len(values)


def test_a_look_is_learned_and_shape_and_motion_stay(tmp_path, encoders):
    base, network, before, after = taught(tmp_path, encoders, looks.ember(24, seed=5), "look", 300, 0.3)
    prompts = [prompt for _, _, prompt in OF_THE_LOOK]
    clips = {"base": generate(base, encoders, prompts), "lora": generate(network, encoders, prompts)}
    away = {name: [looks.distance_to_ember(clip) for clip in made] for name, made in clips.items()}
    verdicts = {name: [judge(clip) for clip in made] for name, made in clips.items()}
    found = {
        "held_out_loss": (before, after),
        "moved": share([new <= old / 2 for old, new in zip(away["base"], away["lora"])]),
        **{
            f"{what}_{name}": share([getattr(v, what) == asked[at] for v, asked in zip(made, OF_THE_LOOK)])
            for at, what in enumerate(("shape", "motion"))
            for name, made in verdicts.items()
        },
    }
    print(json.dumps(found))
    assert after < before
    assert found["moved"] >= SHARE
    assert found["shape_lora"] >= SHARE * found["shape_base"] and found["motion_lora"] >= SHARE * found["motion_base"]


def test_a_motion_is_learned(tmp_path, encoders):
    base, network, before, after = taught(tmp_path, encoders, looks.there_and_back(24, seed=5), "motion", 250, 0.7)
    prompts = [looks.SWINGS.format(color=color, shape=shape, ground=ground) for color, shape, ground in OF_THE_MOTION]
    clips = {"base": generate(base, encoders, prompts), "lora": generate(network, encoders, prompts)}
    found = {"held_out_loss": (before, after)}
    for name, made in clips.items():
        stills = [judge(clip[8:9]) for clip in made]
        found[name] = {
            "swings": share([looks.swing(clip) > looks.THERE_AND_BACK for clip in made]),
            **{
                what: share([getattr(v, what) == asked[at] for v, asked in zip(stills, OF_THE_MOTION)])
                for at, what in enumerate(("color", "shape", "background"))
            },
        }
    print(json.dumps(found))
    assert after < before
    assert found["lora"]["swings"] >= SHARE > found["base"]["swings"]
    assert min(found["lora"][what] for what in ("shape", "background")) >= SHARE  # single frames stay
