#!/usr/bin/env python3
"""Makes the reference that the speaker encoder and the codec encoder of mk-tts are compared with, by running the
qwen_tts package on a Base checkpoint, in float32 on the CPU.

    tts_analysis.py --model DIR --out FILE.npz [--samples 12000,48077,...] [--no-speaker]

The sound is made here and, from the same integers, by the tests. FILE.npz holds for each length N in `samples`:

    samples        i32 [lengths]             the lengths, in samples at 24 kHz
    mel            f32 [frames, mels]        log-mel spectrogram of the first length
    xvector_N      f32 [enc_dim]             what the speaker encoder makes of it
    codes_N        i32 [frames, groups]      what the codec's encoder makes of it
    margin_N       f32 [frames, groups]      how much farther the second nearest codebook entry is than the
                                             nearest, relative to the nearest: near 0, rounding decides

Works with qwen-tts 0.1.1 and transformers 4.57.3.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from qwen_tts.core.models import modeling_qwen3_tts as modeling
from qwen_tts.core.models.configuration_qwen3_tts import Qwen3TTSSpeakerEncoderConfig
from qwen_tts.inference.qwen3_tts_tokenizer import Qwen3TTSTokenizer
from safetensors import safe_open
from transformers.models.mimi import modeling_mimi

DEFAULT_SAMPLES = "12000,24001,48077,110400,480000"


def sound(samples):
    """A pitch that jumps, two steady tones, loudness that swells, and noise: all triangle waves from integers alone,
    so that the tests can make the same to the bit."""
    i = np.arange(samples, dtype=np.int64)

    def triangle(period, height):
        return np.abs(i % period * 2 - period) * height // period - height // 2

    pitch = 90 + i // 4000 * 37 % 130
    total = triangle(pitch, 16000) + triangle(53, 4000) + triangle(17, 3000)
    swell = np.abs(i % 9001 * 2 - 9001)
    # Knuth's multiplicative hash of the sample's number.
    noise = (i * 2654435761 % 2**32) >> 22
    return ((total * swell // 9001 + noise) / 32768).astype(np.float32)


def load_speaker_encoder(model):
    config = json.loads((model / "config.json").read_text())["speaker_encoder_config"]
    encoder = modeling.Qwen3TTSSpeakerEncoder(Qwen3TTSSpeakerEncoderConfig(**config))
    prefix = "speaker_encoder."
    with safe_open(model / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]
        weights = {name[len(prefix) :]: file.get_tensor(name).float() for name in names}
    encoder.load_state_dict(weights)
    return encoder.eval()


def mel_spectrogram(wav):
    """With the arguments of Qwen3TTSForConditionalGeneration.extract_speaker_embedding."""
    return modeling.mel_spectrogram(
        torch.from_numpy(wav).unsqueeze(0),
        n_fft=1024,
        num_mels=128,
        sampling_rate=24000,
        hop_size=256,
        win_size=1024,
        fmin=0,
        fmax=12000,
    ).transpose(1, 2)


def encode_with_margins(tokenizer, wav):
    """The codes [frames, groups], and the margin of each, taken from what each codebook is asked."""
    margins = []
    quantize = modeling_mimi.MimiEuclideanCodebook.quantize

    def spy(self, hidden_states):
        distances = torch.cdist(hidden_states.double(), self.embed.double())
        nearest, second = distances.topk(2, largest=False).values.T
        margins.append(((second - nearest) / nearest).float().numpy())
        return quantize(self, hidden_states)

    modeling_mimi.MimiEuclideanCodebook.quantize = spy
    try:
        codes = tokenizer.encode(wav, sr=24000).audio_codes[0].numpy()
    finally:
        modeling_mimi.MimiEuclideanCodebook.quantize = quantize
    groups = codes.shape[1]
    # The codes are a transposed view: stored as it is, the array would be column-major.
    return np.ascontiguousarray(codes, dtype=np.int32), np.stack(margins[:groups], axis=1)


def main():
    parser = argparse.ArgumentParser(description="Make the reference of the encoders.")
    parser.add_argument("--model", required=True, type=pathlib.Path, help="checkpoint directory")
    parser.add_argument("--out", required=True, help="the .npz to write")
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="lengths, separated by commas")
    parser.add_argument("--no-speaker", action="store_true", help="only the codec's encoder")
    args = parser.parse_args()
    lengths = [int(length) for length in args.samples.split(",")]
    arrays = {"samples": np.array(lengths, dtype=np.int32)}
    with torch.inference_mode():
        if not args.no_speaker:
            encoder = load_speaker_encoder(args.model)
            arrays["mel"] = mel_spectrogram(sound(lengths[0]))[0].contiguous().numpy()
            for length in lengths:
                xvector = encoder(mel_spectrogram(sound(length)))[0]
                arrays[f"xvector_{length}"] = xvector.numpy()
        tokenizer = Qwen3TTSTokenizer.from_pretrained(str(args.model / "speech_tokenizer"))
        for length in lengths:
            codes, margin = encode_with_margins(tokenizer, sound(length))
            arrays[f"codes_{length}"] = codes
            arrays[f"margin_{length}"] = margin
    np.savez(args.out, **arrays)


if __name__ == "__main__":
    main()
