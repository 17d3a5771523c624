"""Nodes that load the transformer, the text encoder and the VAE."""

from .comfy import files
from .comfy.loading import DEVICES, WEIGHT_DTYPES, load_model, load_text_encoder, load_vae
from .comfy.schema import advanced, io, schema


def _file(name, folder, tooltip):
    return io.Combo.Input(name, options=files.choices(folder), default=files.BUNDLED, tooltip=tooltip)


class OpenSoraLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Loaders",
            node_id="OpenSoraLoadModel",
            display_name="Load Open-Sora Model",
            description="Loads an Open-Sora transformer (1.0, 1.1, 1.2 or 1.3) or a PixArt one, the part that turns "
            "noise into video latents. Works with stock samplers, LoRA loaders and model patches too.",
            search_aliases="stdit, open sora, text to video, diffusion model, pixart, checkpoint loader, unet loader",
            inputs=[
                _file(
                    "model_name",
                    "diffusion_models",
                    "The transformer's file or Hugging Face folder; the generation is told from the weights. "
                    "The bundled tiny model draws coloured shapes and runs anywhere; larger files (.safetensors, .pth) "
                    "and folders go into models/diffusion_models.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="auto",
                        tooltip="How exactly the weights are stored. auto lets ComfyUI choose for your hardware. Going "
                        "down the list takes less memory: fp32 is exact; bf16 and fp16 take half, and the picture "
                        "stays nearly the same; fp8_e4m3fn takes a quarter and costs some quality, in fine detail "
                        "first.",
                    )
                ),
            ],
            outputs=[io.Model.Output(tooltip="The transformer, for Open-Sora Sampler or any stock sampler.")],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        path = files.path_of(model_name, "diffusion_models", "transformer")
        return io.NodeOutput(load_model(path, weight_dtype))


class OpenSoraLoadTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Loaders",
            node_id="OpenSoraLoadTextEncoder",
            display_name="Load Open-Sora Text Encoder",
            description="Loads the T5 text encoder that reads prompts for Open-Sora. "
            "Stock CLIP Text Encode and LoRA loaders work with it too.",
            search_aliases="open sora, t5, t5xxl, clip loader, load clip",
            inputs=[
                _file(
                    "text_encoder_name",
                    "text_encoders",
                    "The T5 file or Hugging Face folder. It must be the one the transformer was trained with: "
                    "the bundled one for the bundled model; for every official model t5xxl (fp16, or fp8 to save "
                    "memory) from models/text_encoders.",
                ),
                advanced(
                    io.Combo.Input(
                        "device",
                        options=list(DEVICES),
                        default=DEVICES[0],
                        tooltip="Where prompts are encoded; the picture is the same. default lets ComfyUI choose; cpu "
                        "leaves the graphics card's memory to the transformer and takes longer.",
                    )
                ),
            ],
            outputs=[io.Clip.Output(tooltip="The text encoder, for Open-Sora Text Encode.")],
        )

    @classmethod
    def execute(cls, text_encoder_name: str, device: str) -> io.NodeOutput:
        path = files.path_of(text_encoder_name, "text_encoders", "text_encoder")
        return io.NodeOutput(load_text_encoder(path, device))


class OpenSoraLoadVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Loaders",
            node_id="OpenSoraLoadVAE",
            display_name="Load Open-Sora VAE",
            description="Loads the VAE of any Open-Sora (1.0 to 1.3), which turns video into latents and back. "
            "Stock VAE Encode, VAE Decode and VAE Decode (Tiled) work with it too.",
            search_aliases="open sora, video vae, vae loader",
            inputs=[
                _file(
                    "vae_name",
                    "vae",
                    "The VAE's file or Hugging Face folder. It must be the one the transformer was trained "
                    "with: the bundled VAE for the bundled model, OpenSora-VAE-v1.2 for 1.2, OpenSora-VAE-v1.3 for "
                    "1.3, sd-vae-ft-ema (diffusers layout) for 1.0 and 1.1; with another one colours and shapes come "
                    "out wrong. They go into models/vae.",
                )
            ],
            outputs=[
                io.Vae.Output(
                    tooltip="The VAE: 8 x 8 pixels become one latent; in time, 17 frames become 5 (1.2, 1.3), or every "
                    "frame one (1.0, 1.1)."
                )
            ],
        )

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_vae(files.path_of(vae_name, "vae", "vae")))
