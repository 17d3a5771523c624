"""ComfyUI's own caches, which Open-Sora Cache is compared with."""

from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode

KINDS = {"EasyCache": EasyCacheNode, "LazyCache": LazyCacheNode}


def cached(kind: str, model: ModelPatcher, threshold: float) -> ModelPatcher:
    """MODEL behind EasyCache or LazyCache with this reuse_threshold, the other inputs at the node's own values."""
    node = KINDS[kind]
    values = {each.id: each.default for each in node.define_schema().inputs if each.id != "model"}
    return node.execute(model=model, **{**values, "reuse_threshold": threshold}).args[0]
