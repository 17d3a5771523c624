"""What a node shows of the mask it built: groups of frames, keyframes and where they landed, and both in words."""

from collections.abc import Sequence

from .comfy.latent import Sizes, latent_mask, sizes_of
from .comfy.vae.network import HostedVAE
from .pinning import frames_words, place_words, records
from .said import Said, chained, said, words_of

GENERATED = said("generated")


def report(latent: dict, network: HostedVAE, notes: Sequence[str] = ()) -> dict:
    """Everything the page needs to draw a LATENT's mask; plain numbers and words.

    Args:
        latent: samples [B, C, T, h, w].
        network: the VAE's, as `nodes.comfy.vae.network_of` gives it.
        notes: lines that the node has to say beside.

    Returns:
        {"frames", "fps", "width", "height": of the clip, "vae": the VAE's family, which groups other lengths alike,
        "groups": [[first frame, last frame, mask], …] one a latent, mask 0 = kept … 1 = generated, the mean over space,
        "keyframes": [{"name", "frame", "count": its images, "landed": [first frame, last frame], "strength"}, …] in the
        order they came,
        "lines": words, ready to show, "words": the same as [template, values], for a page in another language}
    """
    sizes = sizes_of(latent, counting=network.counting)
    groups, mask, known = network.counting.groups(sizes.frames), latent_mask(latent), records(latent)
    space = (0, 1, 3, 4)
    low, high, mean, changed = (
        [round(value, 4) for value in values.tolist()]
        for values in (mask.amin(space), mask.amax(space), mask.mean(space), (mask > 0).float().mean(space))
    )
    words = Words([_state(*values) for values in zip(low, high, changed)], groups, sizes)
    lines = [*words.of_keyframes(known), *words.of_the_rest(known), *notes]
    return {
        "frames": sizes.frames,
        "fps": sizes.fps,
        "width": sizes.width,
        "height": sizes.height,
        "vae": network.family,
        "groups": [[group[0], group[-1], value] for group, value in zip(groups, mean)],
        "keyframes": [_landing(record, groups) for record in known],
        "lines": lines,
        "words": [words_of(line) for line in lines],
    }


def _landing(record, groups):
    return {
        "name": record["name"],
        "frame": record["frame"],
        "count": record["count"],
        "landed": [min(groups[i][0] for i in record["latents"]), max(groups[i][-1] for i in record["latents"])],
        "strength": record["strength"],
    }


def _state(low, high, changed):
    """What a latent's mask means: its smallest and largest value, and the part of it that is not 0."""
    if low != high and (low, high) != (0, 1):
        return said("held with strengths from {low} to {high}, by place", low=f"{1 - high:.3g}", high=f"{1 - low:.3g}")
    if low != high:
        percent = f"{100 * changed:.0f}"
        return said("a region generated ({percent} % of the picture), the rest kept", percent=percent)
    if 0 < high < 1:
        strength, percent = f"{1 - high:.3g}", f"{100 * high:.3g}"
        return said("partly kept (strength {strength}: wakes at noise {percent} %)", strength=strength, percent=percent)
    return GENERATED if high else said("kept")


class Words:
    """A clip in words: `states` and `groups` of frames, one a latent, and its `latent.Sizes`."""

    def __init__(self, states: list[Said], groups: list[range], sizes: Sizes) -> None:
        self.states, self.groups, self.sizes = states, groups, sizes

    def of_keyframes(self, known: list[dict]) -> list[Said]:
        """A line for each keyframe: what it holds, in which state, and what later ones took from it."""
        lines = []
        for at, record in enumerate(known):
            line = said("{keyframe}: {held}", keyframe=place_words(record), held=self._held(record))
            lines.append(chained("{one}; {other}", [line, *self._taken(record, known[at + 1 :])]))
        return lines

    def of_the_rest(self, known: list[dict]) -> list[Said]:
        """A line for each state in which frames are that no keyframe holds; those that are generated come last."""
        held = {index for record in known for index in record["latents"]}
        lines = []
        for state, latents in self._by_state(range(len(self.groups))):
            if state == GENERATED:
                continue
            latents = [index for index in latents if index not in held]
            if latents:
                lines.append(said("{state}: {frames}", state=state, frames=self._timed(latents)))
        generated = [index for index, state in enumerate(self.states) if state == GENERATED]
        if len(generated) == len(self.states):
            lines.append(said("{frames}: {state}", frames=self._timed(generated), state=GENERATED))
        elif generated:
            frames = {frame for index in generated for frame in self.groups[index]}
            fps = self.sizes.fps
            lines.append(
                said(
                    "generated: {frames} ({seconds} s of {whole} s)",
                    frames=frames_words(generated, self.groups),
                    seconds=f"{len(frames) / fps:.2f}",
                    whole=f"{self.sizes.frames / fps:.2f}",
                )
            )
        return lines

    def _held(self, record):
        parts = []
        for state, latents in self._by_state(record["latents"]):
            if state == GENERATED and record["strength"] == 0:
                state = said("generated (strength 0 holds nothing)")
            parts.append(said("{frames}, {state}", frames=self._timed(latents), state=state))
        return chained("{one}; {other}", parts)

    def _taken(self, record, later):
        """Which of its latents each later keyframe took."""
        wanted = set(record["laid"])
        for other in later:
            taken = sorted(wanted.intersection(other["latents"]))
            if taken:
                yield said(
                    "{keyframe} took {frames}", keyframe=place_words(other), frames=frames_words(taken, self.groups)
                )

    def _by_state(self, latents):
        """[(state, its latents), …] in the order the states appear."""
        found = {}
        for index in latents:
            found.setdefault(self.states[index], []).append(index)
        return list(found.items())

    def _timed(self, latents):
        """The frames of these latents, each run of neighbours with its seconds."""
        runs = []
        for index in latents:
            if runs and index == runs[-1][-1] + 1:
                runs[-1].append(index)
            else:
                runs.append([index])
        return chained("{one} and {other}", [self._with_seconds(run) for run in runs])

    def _with_seconds(self, latents):
        """Frames that are neighbours, from the beginning of the first one to the end of the last one."""
        first, last = self.groups[latents[0]][0], self.groups[latents[-1]][-1]
        return said(
            "{frames} ({first}–{last} s)",
            frames=frames_words(latents, self.groups),
            first=f"{first / self.sizes.fps:.2f}",
            last=f"{(last + 1) / self.sizes.fps:.2f}",
        )
