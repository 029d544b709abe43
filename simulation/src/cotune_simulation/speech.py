"""`python -m cotune_simulation.speech FOLDER`: a small synthetic corpus for the simulated Whisper server.

Clips are tones, not speech: each carries its transcript as a comment, and `transcripts.json` maps file names to the
same texts. All clips are one second of 8 kHz 8-bit mono, 8 kB each, so that the corpus fits a ConfigMap.
"""

import argparse
import json
import math
from pathlib import Path

from cotune_simulation import announce
from cotune_simulation.clips import write_clip

_RATE = 8000

TRANSCRIPTS = {
    "synthetic-1.wav": "please turn on the lights in the kitchen and close the blinds before the sun gets too low",
    "synthetic-2.wav": "set a timer for twelve minutes and remind me to take the bread out of the oven when it rings",
    "synthetic-3.wav": "what will the weather be like tomorrow morning and do i need to take an umbrella to work",
    "synthetic-4.wav": "play some quiet music in the living room and lower the volume after ten in the evening",
    "synthetic-5.wav": "add two litres of milk a dozen eggs and a bag of brown rice to my shopping list for friday",
    "synthetic-6.wav": "call my sister on her mobile phone and ask whether she will come to dinner on sunday night",
}


def write_corpus(folder: Path) -> None:
    """Write the clips and `transcripts.json`; the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, transcript) in enumerate(TRANSCRIPTS.items()):
        (folder / name).write_bytes(write_clip(_tone(220.0 + 55.0 * number), _RATE, transcript))
    (folder / "transcripts.json").write_text(json.dumps(TRANSCRIPTS, indent=2) + "\n")


def _tone(frequency: float) -> bytes:
    """One second of a quiet tone, as 8-bit samples around 128."""
    return bytes(round(128 + 24 * math.sin(2 * math.pi * frequency * index / _RATE)) for index in range(_RATE))


def main() -> None:
    """Write the corpus into the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="cotune_simulation.speech", description="a synthetic corpus of clips")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    announce("speech corpus")
    write_corpus(options.folder)


if __name__ == "__main__":
    main()
