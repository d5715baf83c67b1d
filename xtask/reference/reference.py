#!/usr/bin/env python3
"""Makes the reference that `mk` is compared with, by running a Qwen3 checkpoint through transformers.

    reference.py --model DIR_OR_HUB_ID --out FILE.npz
                 [--ids-file FILE | --prompt TEXT | --sequences 48 --positions 24 --seed 0]
                 [--greedy 16] [--no-logits] [--dtype-check] [--device cpu]

FILE.npz is an uncompressed NumPy archive with these arrays:

    ids                i32 [sequences, positions]         the token ids that were fed
    logits             f32 [sequences, positions, vocab]  next-token logits at every position
                                                          (left out with --no-logits)
    bf16_logits_err    f32 [sequences, positions]         |bf16 - f32| / |f32|, Euclidean norms over the
                                                          vocabulary: the error of transformers' own
                                                          bfloat16 run, a yardstick for ours
    greedy             i32 [n]                            what greedy decoding in float32 writes after the
                                                          first greedy_prompt_len ids of sequence 0
    greedy_prompt_len  i32 scalar

`logits` come from one float32 forward pass per sequence (eager attention, teacher-forced, no cache).
`greedy` comes from a KV cache and plain argmax (the lowest id wins a tie); it does not stop at an
end-of-sequence token.

The ids are, in order of preference: those of --ids-file (an .npz with an array `ids`, or .json with a list
of equally long lists or an object with such a list as `ids`); the tokens of --prompt, as one sequence; or
uniformly random ids over the whole vocabulary. Only --prompt needs the checkpoint to have a tokenizer.

Works with transformers 4.57 and 5.x, on the CPU or on what torch calls --device (cuda: long sequences of a large
model; float32 products are then not rounded to TF32). While it runs, the float32 logits lie in a temporary file beside
FILE.npz, so memory holds one copy of the model and the logits of one sequence.
"""

import argparse
import gc
import json
import os
import sys
import tempfile

import numpy as np
import torch
import transformers


class Failure(Exception):
    """Something the user can act on; its message is printed without a traceback."""


def parse_args():
    parser = argparse.ArgumentParser(description="Make a reference file from a Qwen3 checkpoint.")
    parser.add_argument("--model", required=True, help="checkpoint directory or hub id")
    parser.add_argument("--out", required=True, help="the .npz to write")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--ids-file", help=".npz or .json with the ids to feed")
    source.add_argument("--prompt", help="text to tokenize and feed as one sequence")
    parser.add_argument("--sequences", type=int, default=48, help="random sequences (default 48)")
    parser.add_argument("--positions", type=int, default=24, help="ids in each (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random ids (default 0)")
    parser.add_argument("--greedy", type=int, default=16, help="greedy tokens to decode (default 16)")
    parser.add_argument("--no-logits", action="store_true", help="leave the logits out of the file")
    parser.add_argument("--device", default="cpu", help="where torch computes (default cpu)")
    parser.add_argument("--dtype-check", action="store_true", help="print the precisions of each run")
    args = parser.parse_args()
    if not args.out.endswith(".npz"):
        parser.error("--out must end in .npz")
    if args.sequences < 1 or args.positions < 1 or args.greedy < 0 or args.seed < 0:
        parser.error("--sequences and --positions must be at least 1, --greedy and --seed at least 0")
    return args


def read_ids_file(path):
    if path.endswith(".npz"):
        with np.load(path) as archive:
            if "ids" not in archive:
                raise Failure(f"{path} has no array `ids`")
            return archive["ids"]
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    rows = data.get("ids") if isinstance(data, dict) else data
    try:
        return np.array(rows)
    except ValueError as error:  # rows of different lengths
        raise Failure(f"{path}: {error}") from error


def tokenize(model, prompt):
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    except Exception as error:  # the types differ between transformers 4 and 5
        raise Failure(f"--prompt needs a tokenizer, and the checkpoint's does not load: {error}") from error
    ids = tokenizer(prompt).input_ids
    # transformers 5 makes an empty tokenizer when the directory has no tokenizer files.
    if not ids or len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):
        raise Failure("--prompt became no tokens: is it empty, or has the checkpoint no tokenizer?")
    return np.array([ids])


def choose_ids(args, config):
    if args.ids_file is not None:
        ids = read_ids_file(args.ids_file)
    elif args.prompt is not None:
        ids = tokenize(args.model, args.prompt)
    else:
        random = np.random.default_rng(args.seed)
        ids = random.integers(0, config.vocab_size, size=(args.sequences, args.positions))
    if ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise Failure(f"the ids must be integers [sequences, positions], not {ids.dtype} {list(ids.shape)}")
    if ids.min() < 0 or ids.max() >= config.vocab_size:
        raise Failure(f"ids span {ids.min()}..={ids.max()} but the vocabulary has {config.vocab_size}")
    if ids.shape[1] + args.greedy > config.max_position_embeddings:
        raise Failure(f"{ids.shape[1]} positions and {args.greedy} greedy tokens exceed "
                      f"max_position_embeddings = {config.max_position_embeddings}")
    return ids.astype(np.int32)


def load_model(args, dtype):
    # Loading in the wanted precision, rather than converting afterwards, is what users do; it also keeps
    # the rotary frequencies in float32, which `.to(torch.bfloat16)` would round.
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    # transformers only warns about these, and fills in random weights.
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(problem):
            raise Failure(f"the checkpoint does not fit the model, {problem}: {list(info[problem])[:4]}")
    weights = {str(p.dtype) for p in model.parameters()}
    rotary = {str(b.dtype) for name, b in model.named_buffers() if name.endswith("inv_freq")}
    if args.dtype_check:
        print(f"{dtype} run: weights {weights}, rotary frequencies {rotary}, "
              f"attention {model.config._attn_implementation}", file=sys.stderr)
    if weights != {str(dtype)} or not rotary <= {"torch.float32"}:
        raise Failure(f"asked for {dtype}, got weights {weights}, rotary frequencies {rotary}")
    return model.eval().to(args.device)


def sequence_logits(model, ids):
    batch = torch.from_numpy(ids).long().unsqueeze(0).to(model.device)
    return model(input_ids=batch, use_cache=False).logits[0].float().cpu().numpy()


def relative_errors(found, expected):
    # In pieces: the logits of a long sequence are gigabytes.
    err = np.empty(len(expected), np.float32)
    for start in range(0, len(expected), 256):
        piece = slice(start, start + 256)
        difference = np.linalg.norm(found[piece] - expected[piece], axis=-1)
        err[piece] = difference / np.linalg.norm(expected[piece], axis=-1)
    return err


def greedy_decode(model, prompt, count):
    tokens, cache = [], None
    step = torch.from_numpy(prompt).long().unsqueeze(0).to(model.device)
    for _ in range(count):
        output = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        # NumPy's argmax is documented to take the first maximum; torch's is not.
        tokens.append(int(output.logits[0, -1].cpu().numpy().argmax()))
        step = torch.tensor([tokens[-1:]], device=model.device)
    return np.array(tokens, np.int32)


@torch.inference_mode()
def make_reference(args):
    if args.model.startswith(("/", ".", "~")) and not os.path.isdir(args.model):
        raise Failure(f"there is no directory {args.model}")
    torch.backends.cuda.matmul.allow_tf32 = False
    config = transformers.AutoConfig.from_pretrained(args.model)
    if config.model_type != "qwen3":
        raise Failure(f"model_type is {config.model_type!r}, not 'qwen3'")
    # transformers 4 passes over the `rope_parameters` that 5 writes, and would run with its default theta.
    theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta")
    if theta is not None and getattr(config, "rope_theta", theta) != theta:
        raise Failure(f"transformers {transformers.__version__} does not read this config's rope_parameters; "
                      "use transformers 5")
    ids = choose_ids(args, config)
    folder = os.path.dirname(os.path.abspath(args.out))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".reference-") as scratch:
        logits = np.lib.format.open_memmap(
            os.path.join(scratch, "logits.npy"), "w+", np.float32, (*ids.shape, config.vocab_size))
        model = load_model(args, torch.float32)
        for row, sequence in enumerate(ids):
            logits[row] = sequence_logits(model, sequence)
            if not np.isfinite(logits[row]).all():
                raise Failure(f"the logits of sequence {row} are not all finite")
        greedy = greedy_decode(model, ids[0], args.greedy)
        del model  # before the second copy is loaded
        gc.collect()

        model = load_model(args, torch.bfloat16)
        err = np.empty(ids.shape, np.float32)
        for row, sequence in enumerate(ids):
            err[row] = relative_errors(sequence_logits(model, sequence), logits[row])

        arrays = dict(ids=ids, bf16_logits_err=err, greedy=greedy,
                      greedy_prompt_len=np.int32(ids.shape[1]))
        if not args.no_logits:
            arrays["logits"] = logits
        # Written aside and renamed, so that an interrupted run leaves no half of a file.
        partial = os.path.join(scratch, "partial.npz")
        np.savez(partial, **arrays)
        os.replace(partial, args.out)
    print(f"{args.out}: ids {list(ids.shape)}, vocabulary {config.vocab_size}, {len(greedy)} greedy, bf16 "
          f"error median {np.median(err):.2e} max {err.max():.2e} (transformers {transformers.__version__})")


def main():
    args = parse_args()
    try:
        make_reference(args)
    except Failure as error:
        print(f"reference.py: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # the libraries below raise types of many kinds for files they cannot read
        print(f"reference.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
