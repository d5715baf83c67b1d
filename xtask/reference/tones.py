#!/usr/bin/env python3
"""Makes the small sound files that the reader of mk-tts is tested with: a tone in each container that soundfile writes.

    tones.py --out DIR

Every file holds 0.4 s of 440 Hz at an amplitude of 0.5 on the left and 0.25 on the right, 16 kHz: `tone.flac`,
`tone.ogg` (Vorbis), `tone.mp3`, `tone.aiff` and the μ-law `tone.wav`.
"""

import argparse
import pathlib

import numpy as np
import soundfile

RATE = 16_000
FILES = {
    "tone.flac": ("FLAC", "PCM_16"),
    "tone.ogg": ("OGG", "VORBIS"),
    "tone.mp3": ("MP3", "MPEG_LAYER_III"),
    "tone.aiff": ("AIFF", "PCM_24"),
    "tone.wav": ("WAV", "ULAW"),
}


def main():
    parser = argparse.ArgumentParser(description="Make the sound files for the tests.")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the folder to write into")
    out = parser.parse_args().out
    tone = np.sin(2 * np.pi * 440 * np.arange(int(0.4 * RATE)) / RATE)
    for name, (container, encoding) in FILES.items():
        channels = np.stack([0.5 * tone, 0.25 * tone], axis=1)
        soundfile.write(out / name, channels, RATE, format=container, subtype=encoding)


if __name__ == "__main__":
    main()
