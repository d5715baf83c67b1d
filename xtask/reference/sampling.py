#!/usr/bin/env python3
"""Writes sampling.json: what transformers' logits processors do, for the sampler's tests to reproduce.

    sampling.py --out sampling.json

The file is {"transformers": VERSION, "cases": [...]}; each case has

    name                what the case is about
    logits              the model's output; null stands for minus infinity
    history             ids seen so far (prompt and output), for the repetition penalty; may repeat
    repetition_penalty  1.0 is off
    suppress            ids that must not be chosen
    temperature         1.0 is off
    top_k               0 is off
    top_p               1.0 is off
    min_p               0.0 is off
    probs               expected: softmax of the processed logits; 0 for a removed id, and where float32
                        underflows

in the order in which `generate` applies them. Numbers are float32, printed as short as they round-trip.

Cases are chosen so that an honest implementation can agree: a set of kept ids that depends on the sorting
order of equal logits, or on the last bits of a threshold, is redrawn (see `is_robust`).
"""

import argparse
import json
import sys

import numpy as np
import torch
import transformers
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

OFF = dict(repetition_penalty=1.0, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
QWEN3 = dict(temperature=0.6, top_k=20, top_p=0.95)
TTS = dict(temperature=0.9, top_k=50, repetition_penalty=1.05)

# (name, vocabulary, the shape of the logits, settings that are on)
CASES = [
    ("plain", 40, {}, {}),
    ("one id left", 40, {"masked": 39}, {}),
    ("masked logits", 60, {"masked": 20}, {}),
    ("repetition penalty", 60, {"history": 12}, dict(repetition_penalty=1.3)),
    ("repetition penalty below one", 60, {"history": 12}, dict(repetition_penalty=0.8)),
    ("repetition penalty, repeated history", 40, {"history": 120}, dict(repetition_penalty=1.1)),
    ("repetition penalty, masked logits", 40, {"history": 30, "masked": 15}, dict(repetition_penalty=2.0)),
    ("repetition penalty, empty history", 40, {}, dict(repetition_penalty=1.5)),
    ("suppress", 60, {"suppress": 5}, {}),
    ("suppress the best", 60, {"suppress_best": 3}, {}),
    ("suppress all but one", 40, {"suppress": 39}, {}),
    ("temperature small", 60, {}, dict(temperature=0.05)),
    ("temperature tiny", 60, {"scale": 8.0}, dict(temperature=0.01)),
    ("temperature large", 60, {}, dict(temperature=50.0)),
    ("temperature, masked logits", 60, {"masked": 30}, dict(temperature=0.7)),
    ("top_k", 120, {}, dict(top_k=10)),
    ("top_k one", 60, {}, dict(top_k=1)),
    ("top_k one, two best are equal", 60, {"best_ties": 2}, dict(top_k=1)),
    ("top_k, ties at the boundary", 120, {"step": 1.0}, dict(top_k=20)),
    ("top_k, all equal", 40, {"scale": 0.0}, dict(top_k=5)),
    ("top_k is the vocabulary", 40, {}, dict(top_k=40)),
    ("top_k beyond the vocabulary", 40, {}, dict(top_k=1000)),
    ("top_k beyond the unmasked", 40, {"masked": 30}, dict(top_k=20)),
    ("top_p", 120, {}, dict(top_p=0.9)),
    ("top_p half", 120, {"scale": 1.2}, dict(top_p=0.5)),
    ("top_p tiny", 60, {}, dict(top_p=1e-6)),
    ("top_p almost one", 60, {"scale": 5.0}, dict(top_p=0.999)),
    ("top_p, one id has it all", 40, {"scale": 30.0}, dict(top_p=0.95)),
    ("top_p, ties inside", 120, {"scale": 1.2, "step": 0.5}, dict(top_p=0.8)),
    ("top_p, masked logits", 60, {"scale": 1.2, "masked": 30}, dict(top_p=0.9)),
    ("min_p", 120, {}, dict(min_p=0.1)),
    ("min_p one", 60, {"best_ties": 3}, dict(min_p=1.0)),
    ("min_p, masked logits", 60, {"masked": 20}, dict(min_p=0.02)),
    ("top_k and top_p", 150, {}, dict(top_k=30, top_p=0.8)),
    ("top_k with ties and top_p", 120, {"step": 0.5}, dict(top_k=25, top_p=0.9)),
    ("top_p and min_p", 150, {}, dict(top_p=0.95, min_p=0.05)),
    ("min_p after a large temperature", 120, {}, dict(temperature=3.0, min_p=0.3)),
    ("top_p after a small temperature", 120, {"scale": 1.0}, dict(temperature=0.3, top_p=0.9)),
    ("penalty and suppress the same ids", 80, {"history": 20, "suppress_best": 5}, dict(repetition_penalty=1.2)),
    ("Qwen3 thinking", 200, {}, QWEN3),
    ("Qwen3 with a penalty", 200, {"history": 60}, dict(QWEN3, repetition_penalty=1.1)),
    ("speech", 200, {"history": 40, "suppress": 20}, TTS),
    ("speech, ties", 200, {"history": 40, "suppress": 20, "step": 0.25}, TTS),
    ("everything", 200, {"history": 60, "suppress_best": 8, "masked": 30},
     dict(repetition_penalty=1.15, temperature=0.8, top_k=40, top_p=0.9, min_p=0.03)),
    ("everything, ties", 200, {"history": 60, "suppress_best": 8, "masked": 30, "step": 0.5},
     dict(repetition_penalty=1.5, temperature=1.3, top_k=60, top_p=0.85, min_p=0.05)),
]


def draw(rng, vocabulary, shape):
    """Random logits, history and suppressed ids. Decimals are few so that the file is small."""
    logits = (rng.standard_normal(vocabulary) * shape.get("scale", 2.5)).round(4)
    if "step" in shape:
        logits = (logits / shape["step"]).round() * shape["step"]
    best_first = np.argsort(-logits)
    if "best_ties" in shape:
        logits[best_first[: shape["best_ties"]]] = logits[best_first[0]]
    logits[rng.permutation(vocabulary)[: shape.get("masked", 0)]] = -np.inf
    history = rng.integers(0, vocabulary, shape.get("history", 0))
    if "suppress_best" in shape:
        suppress = best_first[: shape["suppress_best"]]
    else:
        suppress = rng.permutation(vocabulary)[: shape.get("suppress", 0)]
    return logits.astype(np.float32), history, suppress


def probabilities(logits, history, suppress, s):
    """Runs transformers' processors, in `generate`'s order and under its conditions."""
    processors = LogitsProcessorList()
    if s["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(s["repetition_penalty"]))
    if len(suppress):
        processors.append(SuppressTokensLogitsProcessor(suppress.tolist()))
    if s["temperature"] != 1.0:
        processors.append(TemperatureLogitsWarper(s["temperature"]))
    if s["top_k"] != 0:
        processors.append(TopKLogitsWarper(s["top_k"]))
    if s["top_p"] < 1.0:
        processors.append(TopPLogitsWarper(s["top_p"]))
    if s["min_p"] != 0.0:
        processors.append(MinPLogitsWarper(s["min_p"]))
    ids = torch.from_numpy(history).long().unsqueeze(0)
    scores = processors(ids, torch.from_numpy(logits).unsqueeze(0))
    return scores.softmax(-1)[0].numpy()


def is_robust(logits, history, suppress, settings):
    """Whether the kept ids are settled: no equal logits on both sides, no threshold that nearly moves them."""
    kept = probabilities(logits, history, suppress, settings) > 0
    unfiltered = probabilities(logits, history, suppress, dict(settings, top_k=0, top_p=1.0, min_p=0.0))
    if not kept.all() and 0 < unfiltered[~kept].max() >= unfiltered[kept].min():
        return False
    for name in ("top_p", "min_p"):
        if settings[name] != OFF[name]:
            for factor in (1 - 1e-4, 1 + 1e-4):
                moved = dict(settings, **{name: min(settings[name] * factor, 1.0)})
                if not np.array_equal(probabilities(logits, history, suppress, moved) > 0, kept):
                    return False
    return True


def number(value):
    """A float32 as the Python float whose printed form is the shortest that round-trips."""
    if value == -np.inf:
        return None
    short = float(str(np.float32(value)))
    assert np.float32(short) == value
    return short


def make_case(seed, name, vocabulary, shape, settings):
    settings = dict(OFF, **settings)
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        logits, history, suppress = draw(rng, vocabulary, shape)
        probs = probabilities(logits, history, suppress, settings)
        if np.isfinite(probs).all() and is_robust(logits, history, suppress, settings):
            return dict(name=name, logits=[number(x) for x in logits], history=history.tolist(),
                        suppress=suppress.tolist(), **settings, probs=[number(x) for x in probs])
    raise SystemExit(f"sampling.py: no robust draw for the case {name!r}")


def main():
    parser = argparse.ArgumentParser(description="Write goldens of transformers' logits processors.")
    parser.add_argument("--out", required=True, help="the .json to write")
    out = parser.parse_args().out
    cases = [make_case(seed, *case) for seed, case in enumerate(CASES)]
    # One case a line, so that a change shows up as the cases it touches.
    lines = ",\n".join(json.dumps(case, separators=(",", ":"), allow_nan=False) for case in cases)
    try:
        with open(out, "w", encoding="utf-8") as file:
            file.write(f'{{"transformers":"{transformers.__version__}","cases":[\n{lines}\n]}}\n')
    except OSError as error:
        print(f"sampling.py: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {len(cases)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
