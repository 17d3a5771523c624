"""ComfyUI's door to the pack: the extension that lists its nodes, and the folder of their help pages."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The pack's extension; ComfyUI asks for it once, when it loads the pack.

    ComfyUI and the nodes are imported only then: model/ and training/ are importable without ComfyUI.
    """
    from .nodes.comfy.schema import ComfyExtension

    class OpenSoraExtension(ComfyExtension):
        async def get_node_list(self):
            from .nodes import NODES
            from .nodes.comfy import foresight
            from .nodes.comfy.files import offer_example_images
            from .nodes.comfy.replacements import offer_replacements

            foresight.listen()
            offer_example_images()
            await offer_replacements()
            return NODES

    return OpenSoraExtension()
