"""The model: holds its memory and transcribes one clip at a time, on the card or silently on the CPU."""

import asyncio

from cotune_simulation.card.client import CardClient
from cotune_simulation.clips import Clip
from cotune_simulation.whisper.figures import SizeFigures
from cotune_simulation.whisper.hearing import heard


class Transcriber:
    """A loaded model.

    :param card: where it computes; None for the CPU.
    """

    def __init__(self, figures: SizeFigures, card: CardClient | None) -> None:
        self._figures = figures
        self._card = card
        self._turn = asyncio.Lock()
        self._known_lengths: set[int] = set()

    async def transcribe(self, clip: Clip) -> str:
        """The clip's text; other clips wait meanwhile, as openai-whisper's model serves one at a time."""
        async with self._turn:
            if self._card is None:
                await asyncio.sleep(self._figures.on_cpu_ms / 1000)
            else:
                await asyncio.sleep((self._figures.cpu_ms + self._first_clip_ms(clip)) / 1000)
                await self._card.run(self._figures.kernel_ms, self._figures.launches, self._figures.gap_ms)
        return heard(clip.transcript, self._figures.word_error_rate)

    def _first_clip_ms(self, clip: Clip) -> float:
        tenths = round(clip.seconds * 10)
        if tenths in self._known_lengths:
            return 0.0
        self._known_lengths.add(tenths)
        return self._figures.first_clip_ms
