"""Training of the tiny T5 text encoder: every token's feature learns to carry the whole caption's meaning."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from ..data.cache import EncodesText
from ..data.encoders import load_tokenizer, t5_module
from .captions import caption, partial_caption
from .recipe import TEXT_ENCODER
from .run import fit
from .shapes import BACKGROUNDS, COLORS, FRAME_COUNTS, MOTIONS, SHAPES, sample_scene

# What a caption may say of each attribute; "none" where it leaves it open.
MEANINGS = {
    "color": ("none", *COLORS),
    "background": ("none", *BACKGROUNDS),
    "shape": ("none", *SHAPES),
    "motion": ("none", *MOTIONS),
}
CAMERA = ("pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "static", "none")
# Words of prompts that say nothing about this world. They are learned as fillers; all other words share one vector.
FILLERS = (
    "and or but so then also just very really quite nice beautiful pretty small tiny large huge little perfect "
    "clean smooth smoothly slow slowly quick quickly fast gently steadily high quality detailed cinematic "
    "realistic shot scene video clip animation frame camera image picture photo render style art digital "
    "graphic minimal simple geometric shape object thing form figure color colored flat solid plain empty "
    "whole entire screen view middle center of in at by for with from to into onto over under near behind here "
    "there where which that this it its one some any only is are was be being has have as while during when we "
    "see watch show shows shown showing please make create masterpiece ultra sharp focus lighting soft vivid "
    "light dark bright deep time day night sky water people man woman dog cat city street forest sea mountain "
    "car tree house music happy sad 4k 8k hd , . : ; ! the a an on against across "
).split()
DROPPABLE = frozenset("a an the is on of with that single one over".split())


def codes() -> dict[str, torch.Tensor]:
    """For each attribute the directions of its meanings in feature space, [meanings, 64], all orthonormal.

    A feature is 4 times the sum of its four meanings' directions, so its root mean square is 1. Rows of a Hadamard
    matrix (Sylvester's construction) are orthonormal to the last bit on every machine.
    """
    matrix = torch.ones(1, 1)
    while len(matrix) < TEXT_ENCODER["d_model"]:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    rows = matrix[1:] / TEXT_ENCODER["d_model"] ** 0.5
    counts = [len(values) for values in MEANINGS.values()]
    return dict(zip(MEANINGS, rows[: sum(counts)].split(counts), strict=True))


def read_meaning(features: torch.Tensor, mask: torch.Tensor) -> dict[str, list[str]]:
    """What the features [N, L, 64] with mask [N, L] say, per attribute a list of N values; "none" is unsaid."""
    mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    best = {name: (mean @ directions.T).argmax(1).tolist() for name, directions in codes().items()}
    return {name: [MEANINGS[name][index] for index in indices] for name, indices in best.items()}


def draw_captions(count: int, rng: numpy.random.Generator, split: str = "train") -> tuple[list[str], list[dict]]:
    """Random captions and what each means. In training one in eight leaves something out."""
    texts, meanings = [], []
    for frames in rng.choice(FRAME_COUNTS, size=count, p=(0.15, 0.6, 0.25)):
        scene = sample_scene(rng, num_frames=int(frames), split=split)
        if split == "train" and rng.random() < 0.125:
            text, meaning = partial_caption(scene, rng)
        else:
            text, meaning = caption(scene, rng, split), {name: getattr(scene, name) for name in MEANINGS}
        texts.append(text)
        meanings.append(meaning)
    return texts, meanings


def add_suffixes(text: str, rng: numpy.random.Generator) -> str:
    """The caption with some of Open-Sora's score and camera suffixes, which say nothing about the scene."""
    suffixes = (
        f" aesthetic score: {rng.uniform(3, 8):.1f}.",
        f" motion score: {rng.uniform(0, 30):.1f}.",
        f" camera motion: {CAMERA[rng.integers(len(CAMERA))]}.",
    )
    chosen = rng.random(3) < 0.6
    if not chosen.any():
        return text
    return text.rstrip(".") + "." + "".join(suffix for suffix, keep in zip(suffixes, chosen, strict=True) if keep)


def disturb(text: str, rng: numpy.random.Generator) -> str:
    """The caption with small words dropped and filler words strewn in, sometimes a whole phrase of them."""
    words = [word for word in text.split() if word not in DROPPABLE or rng.random() < 0.85]
    for _ in range(rng.integers(0, 4)):
        words.insert(rng.integers(len(words) + 1), _filler(rng))
    if rng.random() < 0.3:
        phrase = [_filler(rng) for _ in range(rng.integers(2, 9))]
        words = phrase + words if rng.random() < 0.5 else words + phrase
    return " ".join(words)


def _filler(rng: numpy.random.Generator) -> str:
    return FILLERS[rng.integers(len(FILLERS))]


def _add_unknown(row: list[int], unknown: int, rng: numpy.random.Generator) -> list[int]:
    """Unknown words strewn in; rarely a long passage of them before or after, as in an artist's long prompt."""
    row = list(row)
    for _ in range(rng.integers(1, 5)):
        row.insert(rng.integers(len(row)), unknown)  # never behind the end token
    if rng.random() < 0.1:
        passage = [unknown] * rng.integers(10, 60)
        row = passage + row if rng.random() < 0.5 else row[:-1] + passage + row[-1:]
    return row


def pad(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [N, L], padded on the right with 0, the T5 padding token."""
    length = max(len(row) for row in rows)
    tokens = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.arange(length) < torch.tensor([[len(row)] for row in rows])
    return tokens, mask.long()


def train_text_encoder(
    folder: Path, tokenizer_dir: str | os.PathLike, steps: int = 2000, count: int = 30_000, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict]:
    """Trains the tiny T5 on `count` captions; returns its fp32 state dict (Hugging Face's key names) and its config.

    Only tokens that occur in captions, suffixes and fillers have vectors of their own; all others share the vector
    of an unknown word, which training strews into captions, so that unseen words do not disturb.
    """
    torch.manual_seed(seed)
    rng = numpy.random.default_rng(seed)
    tokenizer = load_tokenizer(tokenizer_dir)
    texts, meanings = draw_captions(count, rng)
    for index, kind in enumerate(rng.random(len(texts))):
        if kind < 0.25:
            texts[index] = disturb(texts[index], rng)
        if kind < 0.1 or kind > 0.9:
            texts[index] = add_suffixes(texts[index], rng)
    rows = tokenizer(texts, truncation=True, max_length=TEXT_ENCODER["max_length"])["input_ids"]
    targets = torch.tensor([[MEANINGS[name].index(meaning[name]) for name in MEANINGS] for meaning in meanings])

    # Train on a compact vocabulary: 0 padding, 1 end, the tokens in use, last the unknown word.
    used = sorted({0, 1}.union(*rows))
    unknown = len(used)
    compact = {token: index for index, token in enumerate(used)}
    rows = [[compact[token] for token in row] for row in rows]
    for index in numpy.flatnonzero(rng.random(len(rows)) < 0.2).tolist():
        rows[index] = _add_unknown(rows[index], unknown, rng)

    model = t5_module({**TEXT_ENCODER, "vocab_size": unknown + 1})
    directions = codes()
    goals = 4 * torch.stack([table[targets[:, column]] for column, table in enumerate(directions.values())]).sum(0)
    lengths = numpy.array([len(row) for row in rows])

    def loss_of(rng: numpy.random.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        # Batches of captions of similar length waste little on padding.
        pool = rng.integers(len(rows), size=1024)
        start = int(rng.integers(1024 - 127))
        batch = pool[lengths[pool].argsort(kind="stable")][start : start + 128]
        tokens, mask = pad([rows[index] for index in batch])
        features = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        weight = mask / mask.sum(1, keepdim=True) / len(batch)  # each caption counts alike, however long
        mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        squared = (((features - goals[batch][:, None]) ** 2).mean(-1) * weight).sum()
        loss = squared
        for column, table in enumerate(directions.values()):
            wanted = targets[batch, column]
            single = -torch.log_softmax(features @ table.T, -1)
            single = single.gather(-1, wanted[:, None, None].expand(*mask.shape, 1))[..., 0]
            loss = loss + 0.05 * ((single * weight).sum() + torch.nn.functional.cross_entropy(mean @ table.T, wanted))
        return loss, {"squared": squared.detach()}

    fit(folder, model, loss_of, steps, 4e-3, weight_decay=0.01, ema=0.0, seed=seed)
    state = {name: value.clone() for name, value in model.state_dict().items() if "embed_tokens" not in name}
    table = state["shared.weight"]
    state["shared.weight"] = table[-1].repeat(TEXT_ENCODER["vocab_size"], 1)
    state["shared.weight"][torch.tensor(used)] = table[:-1]
    return state, dict(TEXT_ENCODER)


def evaluate(
    encoder: EncodesText, seed: int = 1, count: int = 2000, change: Callable | None = None
) -> dict[str, float]:
    """Accuracy per attribute, and of all together, on held-out sentences about held-out combinations.

    `change` (text, rng) -> text disturbs each caption first. Also `error`, the features' root mean square distance
    from the ideal ones, whose root mean square is 1.
    """
    rng = numpy.random.default_rng(seed)
    texts, meanings = draw_captions(count, rng, "held_out")
    if change:
        texts = [change(text, rng) for text in texts]
    features, mask = (torch.stack(part) for part in zip(*map(encoder, texts)))
    read = read_meaning(features, mask)
    right = numpy.array([[read[name][i] == meanings[i][name] for name in MEANINGS] for i in range(count)])
    directions = codes()
    chosen = [directions[name][[MEANINGS[name].index(each[name]) for each in meanings]] for name in MEANINGS]
    goals = 4 * torch.stack(chosen).sum(0)
    error = ((features - goals[:, None]) ** 2).mean(-1)[mask.bool()].mean().sqrt()
    scores = {name: float(right[:, column].mean()) for column, name in enumerate(MEANINGS)}
    return {**scores, "all": float(right.all(1).mean()), "error": float(error)}
