"""What a cache has saved, in the log and on the node that asked for it."""

import logging

from comfy_execution.utils import get_executing_context

from .transformer.caching import Saved
from .versions import running_server


class Report:
    """Tells of the runs of a cache: of each in the log, of all in one execution of the graph on its node."""

    def __init__(self) -> None:
        context = get_executing_context()
        self.node = None if context is None else context.node_id
        self.prompt, self.runs, self.sum = None, 0, Saved()

    def __call__(self, saved: Saved) -> None:
        """A run has ended."""
        if not saved.calls:
            return
        logging.info("Open-Sora Cache: %s", words(saved))
        context = get_executing_context()
        if context is None or context.prompt_id != self.prompt:
            self.prompt, self.runs, self.sum = context and context.prompt_id, 0, Saved()
        self.runs += 1
        self.sum += saved
        if self.node is None:
            return
        server = running_server()
        if server is not None:
            text = words(self.sum) + (f" In {self.runs} runs." if self.runs > 1 else "")
            server.send_progress_text(text, self.node)


def words(saved: Saved) -> str:
    """What was saved, in a sentence."""
    layers = saved.layers - saved.computed_layers
    return (
        f"{layers} of {saved.layers} block calls saved ({layers / saved.layers:.0%}); the network was computed in "
        f"{saved.computed_calls} of {saved.calls} calls."
    )
