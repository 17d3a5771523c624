"""The text encoder and its nodes in a real ComfyUI: tokens, weights, masks, numbers, refusals."""

import importlib
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import save_file
from small import pack

MAX_LENGTH = 40
SIZES = {"d_model": 64, "num_layers": 2, "num_heads": 4, "d_kv": 16, "d_ff": 160}
PROMPT = "A Red circle (on white) moves LEFT."


def random_t5(**changes):
    """A T5 v1.1 encoder whose weights are random, exact in fp16, and large enough that nothing hides."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        **{**SIZES, **changes}, vocab_size=32128, feed_forward_proj="gated-gelu_pytorch_tanh", dropout_rate=0.0
    )
    model = transformers.T5EncoderModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape)
        values = 1 + 0.3 * values if parameter.ndim == 1 else values * parameter.shape[-1] ** -0.5
        parameter.data = values.half().float()
    model.shared.weight.data.mul_(8)
    return model


def weights_of(model):
    return {key: value.clone() for key, value in model.state_dict().items() if key != "encoder.embed_tokens.weight"}


@pytest.fixture(scope="module")
def text(comfy):
    """What loads a text encoder, and what encodes a prompt with it."""
    load, encode = (
        pack("nodes.comfy.loading").load_text_encoder,
        pack("nodes.comfy.sampling.conditioning").encode_prompt,
    )
    return SimpleNamespace(load_text_encoder=load, encode_prompt=encode)


@pytest.fixture(scope="module")
def nodes(comfy):
    return importlib.import_module("opensora_comfy.nodes.text")


@pytest.fixture(scope="module")
def t5():
    return random_t5()


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Writes a state dict to a file and returns its path."""
    folder = tmp_path_factory.mktemp("text_encoders")

    def write(name, weights, **config):
        path = folder / f"{name}.safetensors"
        metadata = {"opensora": json.dumps({"kind": "text_encoder", "config": config})} if config else None
        save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata)
        return str(path)

    return write


@pytest.fixture(scope="module")
def path(t5, save):
    return save("tiny", {key: value.half() for key, value in weights_of(t5).items()}, max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def clip(text, path):
    return text.load_text_encoder(path)


@pytest.fixture
def generation(model, monkeypatch):
    """Makes the MODEL one of another generation, as far as text is concerned: its version and caption length."""

    def become(version, length):
        network = model.model.diffusion_model
        monkeypatch.setattr(network, "version", version)
        monkeypatch.setattr(network, "max_caption_length", length)
        return model

    return become


@pytest.fixture(scope="module")
def model(comfy, tmp_path_factory):
    """A small Open-Sora MODEL that reads 64 channels and at most 24 tokens."""
    small = importlib.import_module("small")
    network = small.pack("model.transformers.stdit3").STDiT3(
        small.pack("model.transformers.stdit3").STDiT3Config(
            depth=1, hidden_size=64, num_heads=4, caption_channels=64, model_max_length=24
        )
    )
    file = small.write(tmp_path_factory.mktemp("models") / "model.safetensors", small.random_weights(network, 0))
    return small.pack("nodes.comfy.loading").load_model(file)


def tokens_of(clip, prompt, **options):
    """The real tokens of a prompt as words, each with its weight."""
    (row,) = clip.tokenize(prompt, **options)["t5xxl"]
    words = clip.tokenizer.t5xxl.inv_vocab
    return [(words[token], weight) for token, weight in row if token > 1]


def plain_ids(clip, prompt):
    return clip.tokenizer.t5xxl.tokenizer(
        prompt, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )


# --- numbers


def test_features_equal_transformers(clip, t5, text):
    ((features, extra),) = text.encode_prompt(clip, PROMPT)
    plain = plain_ids(clip, "a red circle on white moves left.")
    wanted = t5(input_ids=plain.input_ids, attention_mask=plain.attention_mask).last_hidden_state
    real = plain.attention_mask.bool()
    assert features.shape == (1, MAX_LENGTH, 64) and features.dtype == torch.float32
    assert torch.equal(extra["attention_mask"], plain.attention_mask)
    assert (features - wanted)[real].abs().max() <= 1e-5 * wanted[real].abs().max()


def test_padding_does_not_change_the_words(clip, text):
    ((short, mask),) = text.encode_prompt(clip, PROMPT)
    tokens = clip.tokenize(PROMPT, max_length=90)
    long = clip.encode_from_tokens(tokens)
    real = int(mask["attention_mask"].sum())
    assert long.shape[1] == 90
    assert (short[:, :real] - long[:, :real]).abs().max() <= 1e-5 * long.abs().max()


def test_stock_text_encode_gives_the_same(clip, text, comfy):
    stock = importlib.import_module("nodes").CLIPTextEncode().encode(clip, PROMPT)[0]
    ours = text.encode_prompt(clip, PROMPT)
    assert torch.equal(stock[0][0], ours[0][0])
    assert torch.equal(stock[0][1]["attention_mask"], ours[0][1]["attention_mask"])


def test_weights_move_words_away_from_the_empty_prompt(clip, text):
    def features(prompt):
        return text.encode_prompt(clip, prompt)[0][0][0]

    plain, empty = features("a red circle"), features("")
    words = [word for word, _ in tokens_of(clip, "a red circle")]
    red, end = words.index("▁red"), len(words)
    for weight in (0.0, 0.5, 1.4):
        weighted = features(f"a (red:{weight}) circle")
        wanted = plain.clone()
        wanted[red] = empty[red] + weight * (plain[red] - empty[red])
        assert (weighted - wanted)[: end + 1].abs().max() <= 1e-5 * plain.abs().max()
    assert weighted.isfinite().all() and weighted.norm() < 2 * plain.norm()


def test_cpu_device_keeps_the_encoder_off_the_gpu(text, path, comfy, monkeypatch):
    seen = []

    class Recorder(comfy.sd.CLIP):
        def __init__(self, *arguments, model_options, **keywords):
            seen.append(model_options)
            super().__init__(*arguments, model_options=model_options, **keywords)

    monkeypatch.setattr(comfy.sd, "CLIP", Recorder)
    text.load_text_encoder(path)
    on_cpu = text.load_text_encoder(path, "cpu")
    assert seen == [{}, {"load_device": torch.device("cpu"), "offload_device": torch.device("cpu")}]
    assert on_cpu.patcher.load_device == torch.device("cpu")


def test_a_lora_changes_the_features(comfy, clip, text):
    key = "lora_te1_encoder_block_0_layer_0_SelfAttention_q"
    lora = {f"{key}.lora_up.weight": torch.ones(64, 2), f"{key}.lora_down.weight": torch.ones(2, 64)}
    _, changed = comfy.sd.load_lora_for_models(None, clip, lora, 0.0, 1.0)
    before = text.encode_prompt(clip, PROMPT)[0][0]
    after = text.encode_prompt(changed, PROMPT)[0][0]
    assert (after - before).abs().max() > 1e-2
    assert torch.equal(text.encode_prompt(clip, PROMPT)[0][0], before)


# --- tokens


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a (red:1.3) cat", [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]),
        ("(a) b", [("(a) b", 1.0)]),
        ("((a:1.2) b:1.5)", [("a", 1.2), (" b", 1.5)]),
        ("(a (b) c:0.8)", [("a (b) c", 0.8)]),
        ("(a:1.2", [("(a:1.2", 1.0)]),
        (")(a:1.2)", [(")", 1.0), ("a", 1.2)]),
        (r"\(a:1.2\)", [("(a:1.2)", 1.0)]),
        (r"(a\):1.2)", [("a)", 1.2)]),
        ("(:1.2) (a:x) ()", [("(:1.2) (a:x) ()", 1.0)]),
        ("(a: -.5)", [("a", -0.5)]),
        ("(a:1) b", [("a b", 1.0)]),
        ("", []),
    ],
)
def test_prompts_are_split_by_weight(comfy, prompt, pieces):
    prompts = importlib.import_module("opensora_comfy.nodes.comfy.text.prompt")
    assert prompts.split_weights(prompt) == pieces


def test_cleaning_happens_piece_by_piece(clip):
    tokens = tokens_of(clip, "A [big] (RED (hot):1.3) Cat 1920x1080")
    assert tokens == [("▁", 1.0), ("a", 1.0), ("▁big", 1.0), ("▁red", 1.3), ("▁hot", 1.3), ("▁cat", 1.0)]


def test_without_cleaning_the_prompt_stays_as_typed(clip):
    words = [word for word, weight in tokens_of(clip, "A (Red) cat", clean=False) if weight == 1]
    assert "".join(words) == "▁A▁(Red)▁cat"


def test_a_literal_end_token_does_not_end_the_prompt(clip):
    (row,) = clip.tokenize("one</s><pad>two", clean=False)["t5xxl"]
    words = [clip.tokenizer.t5xxl.inv_vocab[token] for token, _ in row]
    assert words == ["▁one", "▁two", "</s>"] + ["<pad>"] * (MAX_LENGTH - 3)


def test_an_empty_prompt_is_the_end_token_alone(clip, text):
    ((features, extra),) = text.encode_prompt(clip, "  ")
    assert extra["attention_mask"].tolist() == [[1] + [0] * (MAX_LENGTH - 1)]
    assert features.isfinite().all()


def test_ten_thousand_words_are_cut_with_a_warning(clip, text, caplog):
    with caplog.at_level(logging.WARNING):
        ((features, extra),) = text.encode_prompt(clip, "word " * 10000)
    assert f"its last {10000 - MAX_LENGTH + 1} tokens were dropped" in caplog.text
    assert features.shape == (1, MAX_LENGTH, 64) and extra["attention_mask"].all()
    (row,) = clip.tokenize("word " * 10000)["t5xxl"]
    assert row[-1] == (1, 1.0)


# --- nodes


def test_text_encode_appends_scores(nodes, clip):
    def run(prompt, *scores):
        return nodes.OpenSoraTextEncode.execute(clip, prompt, *scores, True).result[0][0][0]

    said = run("a cat. aesthetic score: 6.5. motion score: 5.0. camera motion: pan left.", 0, 0, "none")
    assert torch.equal(run("a cat.", 6.5, 5, "pan left"), said)
    assert not torch.equal(run("a cat.", 0, 0, "none"), said)


def test_the_model_sets_the_length(nodes, clip, model):
    ((features, extra),) = nodes.OpenSoraTextEncode.execute(clip, "a cat", 0, 0, "none", True, model).result[0]
    assert features.shape == (1, 24, 64) and extra["attention_mask"].shape == (1, 24)


@pytest.mark.parametrize(
    ("version", "length", "said"),
    [
        ("1.0", 120, "a cat. aesthetic score: 6.2. motion score: 1.0. camera motion: zoom in."),
        ("1.1", 200, "a cat. aesthetic score: 6.2. motion score: 1.0. camera motion: zoom in."),
        ("1.2", 300, "a cat. aesthetic score: 6.2. motion score: 1.0. camera motion: zoom in."),
        ("1.3", 300, "a cat. The aesthetic score is very good. The motion strength is low. camera motion: zoom in."),
    ],
)
def test_every_generation_has_its_length_and_wording(nodes, clip, generation, version, length, said):
    run = nodes.OpenSoraTextEncode.execute
    ((features, extra),) = run(clip, "a cat.", 6.2, 1.0, "zoom in", True, generation(version, length)).result[0]
    ((wanted, mask),) = run(clip, said, 0, 0, "none", True, generation(version, length)).result[0]
    assert features.shape == (1, length, 64)
    assert torch.equal(features, wanted) and torch.equal(extra["attention_mask"], mask["attention_mask"])


def test_every_golden_caption_is_cleaned_before_it_is_tokenised(clip):
    """The same rules for all generations; tokens as T5's own tokenizer gives them for the cleaned caption."""
    cases = json.loads((Path(__file__).resolve().parents[1] / "data" / "captions.json").read_text("utf-8"))
    assert len(cases) > 20
    for case in cases:
        wanted = clip.tokenizer.t5xxl.tokenizer(case["out"])["input_ids"]
        assert [token for token, _ in clip.tokenize(case["in"], max_length=400)["t5xxl"][0] if token] == wanted, case


def test_the_switch_says_what_it_does(nodes):
    (tooltip,) = [
        item.tooltip for item in nodes.OpenSoraTextEncode.define_schema().inputs if item.id == "clean_caption"
    ]
    for word in ("lower case", "Chinese", "links", "brackets", "Off:"):
        assert word in tooltip


def test_null_prompt_keeps_the_mask(nodes, clip, model):
    (positive,) = nodes.OpenSoraTextEncode.execute(clip, "a cat", 0, 0, "none", True, model).result
    (null,) = nodes.OpenSoraNullPrompt.execute(model, positive).result
    assert torch.equal(null[0][0][0].float(), model.model.diffusion_model.null_caption.float())
    assert torch.equal(null[0][1]["attention_mask"], positive[0][1]["attention_mask"])


def test_default_length_is_that_of_open_sora_1_2(text, t5, save):
    clip = text.load_text_encoder(save("plain", weights_of(t5)))
    assert text.encode_prompt(clip, "a cat")[0][0].shape == (1, 300, 64)


def test_a_foreign_clip_or_model_is_refused(text, clip, model):
    with pytest.raises(ValueError, match="clip is not a text encoder for Open-Sora"):
        text.encode_prompt(None, "a cat")
    with pytest.raises(ValueError, match="model is .*not an Open-Sora transformer"):
        text.encode_prompt(clip, "a cat", model=object())


def test_an_encoder_of_another_width_is_refused_for_the_model(text, model, save):
    wide = text.load_text_encoder(save("wide", weights_of(random_t5(d_model=32))))
    with pytest.raises(ValueError, match="clip gives 32 channels a token, this model reads 64"):
        text.encode_prompt(wide, "a cat", model=model)


# --- files


def test_a_whole_t5_and_a_tied_table_load(text, t5, save, clip):
    weights = weights_of(t5)
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    weights["decoder.block.0.layer.0.SelfAttention.q.weight"] = torch.zeros(64, 64)
    weights["lm_head.weight"] = torch.zeros(32128, 64)
    whole = text.load_text_encoder(save("whole", weights, max_length=MAX_LENGTH))
    assert torch.equal(text.encode_prompt(whole, PROMPT)[0][0], text.encode_prompt(clip, PROMPT)[0][0])


def hugging_face_folder(path, weights, suffix):
    """Write `weights` as two shards with an index and a config, as DeepFloyd/t5-v1_1-xxl is laid out."""
    path.mkdir()
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = [f"{stem}-{part:05}-of-00002{suffix}" for part in (1, 2)]
    table = {key: names[index % 2] for index, key in enumerate(sorted(weights))}
    for name in names:
        shard = {key: weights[key].contiguous() for key in table if table[key] == name}
        if suffix == ".safetensors":
            save_file(shard, path / name)
        else:
            torch.save(shard, path / name)
    (path / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (path / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": SIZES["d_model"]}))
    return names, path / f"{stem}{suffix}.index.json"


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_hugging_face_shards_load(text, t5, clip, tmp_path, suffix):
    weights = weights_of(t5)
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()  # the .bin files have the table twice
    folder = tmp_path / "t5-v1_1-xxl"
    names, index = hugging_face_folder(folder, weights, suffix)
    wanted = text.encode_prompt(clip, PROMPT)[0][0]
    for path in (folder, index):
        ((features, extra),) = text.encode_prompt(text.load_text_encoder(str(path)), PROMPT)
        real = int(extra["attention_mask"].sum())
        assert features.shape == (1, 300, 64)
        assert (features[:, :real] - wanted[:, :real]).abs().max() <= 1e-5 * wanted.abs().max()
    (folder / names[1]).unlink()
    with pytest.raises(ValueError, match=f"text_encoder_name: .*misses {names[1]}"):
        text.load_text_encoder(str(folder))


def test_t5_xxl_is_recognised(comfy):
    sizes = importlib.import_module("opensora_comfy.model.checkpoints.t5")
    config = json.loads((Path(comfy.sd.__file__).parent / "text_encoders" / "t5_config_xxl.json").read_text())
    module = comfy.text_encoders.t5.T5(config, torch.float16, "meta", comfy.ops.manual_cast)
    weights = module.state_dict()
    found = sizes.config_of(weights)
    assert found == {key: config[key] for key in found}
    assert {key: tuple(value.shape) for key, value in weights.items()} == sizes.shapes_of(found)
    sizes.check_keys(weights, found)


def test_fp8_files_load(text, t5, save, clip):
    plain = {key: value.to(torch.float8_e4m3fn) for key, value in weights_of(t5).items()}
    rounded = random_t5()
    rounded.load_state_dict({key: value.float() for key, value in plain.items()}, strict=False)
    tokens = plain_ids(clip, "a cat")
    wanted = rounded(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    got = text.encode_prompt(text.load_text_encoder(save("fp8", plain, max_length=MAX_LENGTH)), "a cat")[0][0]
    real = tokens.attention_mask.bool()
    assert (got - wanted)[real].abs().max() <= 1e-5 * wanted.abs().max()


def test_scaled_fp8_files_load(text, t5, save, clip):
    weights, rounded = {}, {}
    for key, value in weights_of(t5).items():
        weights[key], rounded[key] = value.half(), value
        if value.ndim == 2 and "shared" not in key and "bias" not in key:
            scale = value.abs().max() / 448
            weights[key] = (value / scale).to(torch.float8_e4m3fn)
            weights[key.replace(".weight", ".scale_weight")] = scale
            rounded[key] = weights[key].float() * scale
    weights["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    reference = random_t5()
    reference.load_state_dict(rounded, strict=False)
    tokens = plain_ids(clip, "a red cat")
    wanted = reference(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    got = text.encode_prompt(text.load_text_encoder(save("scaled", weights, max_length=MAX_LENGTH)), "a red cat")[0][0]
    real = tokens.attention_mask.bool()
    assert (got - wanted)[real].abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder.block.1.layer.1.DenseReluDense.wo.weight"), "1 missing keys: encoder.block.1"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 unexpected keys: extra"),
        (lambda w: w.update({"encoder.final_layer_norm.weight": torch.ones(3)}), r"final_layer_norm.weight \(3,\)"),
        (lambda w: w.update({"shared.weight": torch.zeros(384, 64)}), "vocabulary of 384 tokens.*t5xxl_fp16"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(text, t5, save, change, message):
    weights = weights_of(t5)
    change(weights)
    with pytest.raises(ValueError, match=f"text_encoder_name: .*{message}"):
        text.load_text_encoder(save("misfit", weights))


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("text_model.encoder.layers.0.layer_norm1.weight", "a CLIP text encoder"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion checkpoint"),
        ("temporal_vae.encoder.conv_in.conv.weight", "an Open-Sora VAE 1.2; use Load Open-Sora VAE"),
        ("blocks.0.attn_temp.qkv.weight", "an Open-Sora 1.0 transformer .*; use Load Open-Sora Model"),
        ("some.other.weight", "its keys are some.other.weight"),
    ],
)
def test_other_files_are_refused_by_name(text, save, key, what):
    with pytest.raises(ValueError, match=f"text_encoder_name: .*{what}"):
        text.load_text_encoder(save("other", {key: torch.zeros(1)}))


def test_a_truncated_file_is_refused(text, path, tmp_path):
    broken = tmp_path / "broken.safetensors"
    with open(path, "rb") as file:
        broken.write_bytes(file.read(100_000))
    with pytest.raises(ValueError, match="text_encoder_name: .*not a readable safetensors file"):
        text.load_text_encoder(str(broken))


def test_comfyui_can_rebuild_the_patcher(clip):
    factory, arguments = clip.patcher.cached_patcher_init
    rebuilt = factory(*arguments, disable_dynamic=True)
    assert rebuilt is not clip.patcher and rebuilt.model.t5xxl.channels == 64
