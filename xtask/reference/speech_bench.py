#!/usr/bin/env python3
"""Times the qwen_tts package on a checkpoint, for `cargo xtask bench`.

    speech_bench.py --model DIR --frames N --text TEXT --threads N --repeats N [--dtype bfloat16|float32]

Speaks the text with the model's first voice (CustomVoice checkpoints only) for N frames at the most, once to warm up and
then `repeats` times, and prints one line of JSON: median seconds of the whole call, of making the codes and of
decoding them, and the frames that were made.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from qwen_tts import Qwen3TTSModel


def parse_args():
    parser = argparse.ArgumentParser(description="Time qwen_tts.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    return parser.parse_args()


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    tts = Qwen3TTSModel.from_pretrained(
        args.model, device_map="cpu", dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
    )
    voice = sorted(tts.get_supported_speakers())[0]
    laps = {}

    def timed(owner, name, key):
        inner = getattr(owner, name)

        def outer(*positional, **named):
            started = time.perf_counter()
            result = inner(*positional, **named)
            laps[key] = time.perf_counter() - started
            return result

        setattr(owner, name, outer)

    timed(tts.model, "generate", "codes")
    timed(tts.model.speech_tokenizer, "decode", "codec")
    runs = []
    for _ in range(args.repeats + 1):
        started = time.perf_counter()
        # The last code that is drawn gets no frame.
        waves, rate = tts.generate_custom_voice(
            text=args.text, speaker=voice, language="English", non_streaming_mode=False,
            max_new_tokens=args.frames + 1,
        )
        whole = time.perf_counter() - started
        runs.append((whole, laps["codes"], laps["codec"], len(waves[0]) / rate))
    # Runs differ in length where the model ends by itself: compare by the second of speech.
    per_second = [[run[i] / run[3] for run in runs[1:]] for i in range(3)]
    whole, codes, codec = map(statistics.median, per_second)
    print(json.dumps({
        "version": f"qwen-tts 0.1.1, torch {torch.__version__}, transformers {transformers.__version__}",
        "dtype": args.dtype, "rtf": whole, "codes_rtf": codes, "codec_rtf": codec,
        "seconds": runs[-1][3],
    }))


if __name__ == "__main__":
    main()
