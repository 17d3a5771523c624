"""Time and size in latents: how the VAE of each generation counts frames and pixels. Nothing else counts them.

Open-Sora 1.0 and 1.1 make a latent of every frame; 1.2 makes 5 of each chunk of 17 frames, wherever the clip ends; in
1.3 chunks share a frame, so that 17 frames make 5 latents and every 16 more make 5 more.
"""

from dataclasses import dataclass

IMAGE_FPS = 120.0  # the original tells the model "120 frames per second" for a single image
DEFAULT_FPS = 24.0
PIXELS_PER_LATENT = 8


@dataclass(frozen=True)
class Counting:
    """How a VAE counts.

    A clip goes through in chunks of `chunk_frames`, each of which begins with the last `overlap` frames of the one
    before; `factor` frames of a chunk are a latent. What a chunk lacks of whole latents is padded in front, so its
    first latent is the short one. A `causal` VAE does not pad: the first frame of a chunk is a latent of its own, up
    to `factor` - 1 frames at the end are in none, and only whole chunks come back as they went in.
    """

    chunk_frames: int
    factor: int
    overlap: int = 0
    causal: bool = False

    @property
    def chunk_latents(self) -> int:
        """Latents of a full chunk."""
        return -(-self.chunk_frames // self.factor)

    @property
    def step(self) -> int:
        """Frames that each chunk behind the first adds to a clip."""
        return self.chunk_frames - self.overlap

    def chunks(self, num_frames: int) -> list[range]:
        """The frames of each chunk of a clip: a list of ranges."""
        starts = range(0, max(1, num_frames - self.overlap), self.step)
        return [range(start, min(start + self.chunk_frames, num_frames)) for start in starts]

    def groups(self, num_frames: int) -> list[range]:
        """The frames behind each latent of a clip: a list of ranges. A frame that chunks share is in one of each."""
        found = []
        for chunk in self.chunks(num_frames):
            first = 0 if self.causal else (len(chunk) - 1) % self.factor
            found += [range(max(chunk.start, last - self.factor + 1), last + 1) for last in chunk[first :: self.factor]]
        return found

    def latent_frames(self, num_frames: int) -> int:
        """Latents of a clip of so many frames: every chunk fills its last latent on its own."""
        chunks, rest = divmod(max(0, num_frames - self.overlap), self.step)
        last = min(num_frames, rest + self.overlap) if rest or not chunks else 0
        return chunks * self.chunk_latents + -(-last // self.factor)

    def video_frames(self, num_latents: int) -> int:
        """Frames that so many latents decode to, the most that encode to them; a single latent is an image."""
        if num_latents == 1:
            return 1
        chunks, rest = divmod(num_latents, self.chunk_latents)
        if not self.causal:
            return chunks * self.chunk_frames + rest * self.factor
        chunks += rest > 0
        return self.factor * (num_latents - chunks) + chunks - self.overlap * (chunks - 1)

    def refuse_mismatch(self, num_frames: int, num_latents: int) -> None:
        """ValueError where so many latents cannot stand for so many frames."""
        if self.latent_frames(num_frames) != num_latents:
            raise ValueError(
                f"num_frames is {num_frames}, which makes {self.latent_frames(num_frames)} latents, but there are "
                f"{num_latents}; they decode to {self.video_frames(num_latents)} frames"
            )

    def nearest(self, num_frames: int) -> tuple[int, ...]:
        """The valid frame counts around `num_frames`: (num_frames,) where it is one, else the neighbours, low to high.

        Valid are 1 and, from a full chunk on, every count that fills its last latent; of a causal VAE, whole chunks.
        """
        if num_frames <= 1:
            return (1,)
        if num_frames < self.chunk_frames:
            return (1, self.chunk_frames)
        chunks, rest = divmod(num_frames - self.overlap, self.step)
        part = self.step if self.causal else self.factor
        low = num_frames - rest % part
        return (low,) if low == num_frames else (low, min(low + part, (chunks + 1) * self.step + self.overlap))

    def whole_chunks(self, num_frames: int) -> int | None:
        """How many whole chunks a clip of so many frames is; None where it is not made of whole ones."""
        chunks, rest = divmod(num_frames - self.overlap, self.step)
        return chunks if rest == 0 and chunks > 0 else None

    def nearest_chunks(self, num_frames: int) -> tuple[int, ...]:
        """The frame counts of whole chunks around `num_frames`, low to high; itself alone where it is one."""
        if self.whole_chunks(num_frames):
            return (num_frames,)
        low = max(0, (num_frames - self.overlap) // self.step)
        return tuple(chunks * self.step + self.overlap for chunks in (low, low + 1) if chunks > 0)

    def latent_side(self, pixels: int) -> int:
        """Latents along a side of so many pixels. A causal VAE's first halving rounds down, its other two round up."""
        return -(-(pixels // 2) // 4) if self.causal else pixels // PIXELS_PER_LATENT


EACH_FRAME = Counting(1, 1)  # of 1.0, 1.1 and images
CHUNKS = Counting(17, 4)  # of 1.2
OVERLAPPING = Counting(17, 4, overlap=1, causal=True)  # of 1.3


class Counts:
    """What a VAE says of its `counting`. Mixed into its class."""

    counting: Counting

    def latent_frames(self, num_frames: int) -> int:
        """Latents of a video of so many frames."""
        return self.counting.latent_frames(num_frames)

    def nearest_frames(self, num_frames: int) -> tuple[int, ...]:
        """The counts around `num_frames` that the VAE represents exactly, low to high; itself alone if it is one."""
        return self.counting.nearest(num_frames)
