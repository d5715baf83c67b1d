"""The llama.cpp peer: times a Hugging Face Qwen3 checkpoint through llama-cpp-python's C API.

llama.cpp reads GGUF, so the checkpoint is first rewritten as one (bf16 matrices as they are, norms in
f32) and kept under .peers/gguf. Nothing is quantised: both sides multiply the same bf16 weights.
Prints one JSON object; README.md gives its fields.
"""

import argparse
import ctypes
import hashlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

CACHE = Path(__file__).resolve().parent.parent / ".peers" / "gguf"


# --- conversion -----------------------------------------------------------------------------------


def safetensors(path):
    """Yields (name, dtype, array) of a file, memory-mapped. By hand: numpy has no bfloat16, so the
    safetensors package refuses these tensors; here they come as uint16 bit patterns."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    header_len = int(raw[:8].view("<u8")[0])
    header = json.loads(raw[8 : 8 + header_len].tobytes())
    views = {"BF16": np.uint16, "F32": np.float32}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in views:
            sys.exit(f"{path}: {name} is {entry['dtype']}, expected BF16 or F32")
        begin, end = (8 + header_len + offset for offset in entry["data_offsets"])
        # Copying through bytes lifts the alignment that a view would ask of the offset.
        array = np.frombuffer(raw[begin:end].tobytes(), dtype=views[entry["dtype"]])
        yield name, entry["dtype"], array.reshape(entry["shape"])


def rope_theta(config):
    """transformers 4 writes rope_theta and rope_scaling, transformers 5 one rope_parameters."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        sys.exit(f"rope type {rope['rope_type']} is not supported")
    return float(config.get("rope_theta") or rope["rope_theta"])


def write_gguf(model, config, out):
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(out, "qwen3")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_vocab_size(config["vocab_size"])
    # Only ids go in and only logits come out, so the file needs no tokenizer.
    writer.add_tokenizer_model("no_vocab")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    for shard in sorted(model.glob("*.safetensors")):
        for name, dtype, array in safetensors(shard):
            # A tied head may still be stored; llama.cpp uses the embedding when output is absent.
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if target is None:
                sys.exit(f"{shard}: no GGUF name for {name}")
            if array.ndim == 1 and dtype == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
            bf16 = array.dtype == np.uint16
            kind = gguf.GGMLQuantizationType.BF16 if bf16 else None
            writer.add_tensor(target, array, raw_dtype=kind)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def converted(model):
    """The checkpoint's GGUF, written on first use; a changed checkpoint gets a new one."""
    config_text = (model / "config.json").read_text()
    key = hashlib.sha256(config_text.encode())
    shards = sorted(model.glob("*.safetensors"))
    if not shards:
        sys.exit(f"{model}: no safetensors")
    for shard in shards:
        stat = shard.stat()
        key.update(f"{shard.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    out = CACHE / f"{model.resolve().name}-{key.hexdigest()[:12]}.gguf"
    if not out.exists():
        print(f"converting {model} to {out}", file=sys.stderr)
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial")
        write_gguf(model, json.loads(config_text), partial)
        partial.rename(out)
    return out


# --- llama.cpp ------------------------------------------------------------------------------------


class Context:
    """A llama context of one sequence, fed token ids and read for the last one's logits."""

    def __init__(self, model, size, threads, flash):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = size
        # One call may carry a whole prompt; llama.cpp itself cuts it into n_ubatch (512) pieces.
        params.n_batch = size
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(flash)
        self.handle = llama_cpp.llama_init_from_model(model, params)
        if not self.handle:
            sys.exit("llama.cpp could not make a context")
        self.memory = llama_cpp.llama_get_memory(self.handle)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def close(self):
        llama_cpp.llama_free(self.handle)

    def keep(self, tokens):
        """Drops all but the first `tokens` cached positions."""
        llama_cpp.llama_memory_seq_rm(self.memory, 0, tokens, -1)

    def feed(self, ids):
        """Appends `ids` to the sequence in one call; the logits after the last of them."""
        # The batch only points at the ids, which must therefore outlive it here. get_one numbers
        # positions on from the cache and asks for the last token's logits only.
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        batch = llama_cpp.llama_batch_get_one(tokens, len(ids))
        if llama_cpp.llama_decode(self.handle, batch) != 0:
            sys.exit("llama_decode failed")
        logits = llama_cpp.llama_get_logits_ith(self.handle, -1)
        return np.ctypeslib.as_array(logits, (self.vocab,)).copy()


def token(position, vocab):
    """An arbitrary valid id, the same in every peer."""
    return (position * 7919 + 13) % vocab


def timed_ms(run):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def decode_ms(ctx, position, steps, repeats):
    ctx.keep(0)
    if position:
        ctx.feed([token(i, ctx.vocab) for i in range(position)])
    medians = []
    for _ in range(repeats):
        ctx.keep(position)
        times = [
            timed_ms(lambda: ctx.feed([token(i, ctx.vocab)]))
            for i in range(position, position + steps)
        ]
        medians.append(statistics.median(times))
    return statistics.median(medians)


def prefill_ms(ctx, tokens, repeats):
    ids = [token(i, ctx.vocab) for i in range(tokens)]
    times = []
    for _ in range(repeats):
        ctx.keep(0)
        times.append(timed_ms(lambda: ctx.feed(ids)))
    return statistics.median(times)


def measure(model, args, flash):
    """All rows asked for, under one setting of flash attention."""
    size = max([p + args.tokens for p in args.positions] + args.prefill + [16])
    ctx = Context(model, size, args.threads, flash)
    ctx.feed([token(i, ctx.vocab) for i in range(8)])  # pages the weights in
    setting = {"flash_attn": flash}
    decode, prefill = [], []
    for position in args.positions:
        ms = decode_ms(ctx, position, args.tokens, args.repeats)
        row = {"position": position, "tok_s": round(1e3 / ms, 3), "ms_per_tok": round(ms, 3)}
        decode.append(row | setting)
    for tokens in args.prefill:
        ms = prefill_ms(ctx, tokens, args.repeats)
        row = {"tokens": tokens, "tok_s": round(tokens * 1e3 / ms, 3), "ms": round(ms, 3)}
        prefill.append(row | setting)
    ctx.close()
    return setting | {"decode": decode, "prefill": prefill}


def fastest(variants, kind):
    """Row by row the best of the variants, so that no setting is held against the peer."""
    return [max(rows, key=lambda row: row["tok_s"]) for rows in zip(*(v[kind] for v in variants))]


def check(model, ids):
    """What a reference needs to confirm the conversion: the last position's logits, in brief."""
    ctx = Context(model, max(len(ids), 16), 1, flash=False)
    logits = ctx.feed(ids)
    ctx.close()
    first = [round(float(x), 5) for x in logits[:8]]
    return {"ids": ids, "argmax": int(logits.argmax()), "logits": first}


def numbers(text):
    return [int(n) for n in text.split(",") if n]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--positions", type=numbers, default=[0, 512, 2048])
    parser.add_argument("--prefill", type=numbers, default=[64, 512])
    parser.add_argument("--tokens", type=int, default=16, help="steps timed at each position")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", type=numbers, help="print these ids' last logits instead")
    args = parser.parse_args()

    # llama.cpp logs freely; only what goes wrong is of interest.
    error = 4  # enum ggml_log_level, which the bindings do not name
    @llama_cpp.llama_log_callback
    def log(level, text, _):
        if level == error:
            sys.stderr.write(text.decode(errors="replace"))

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    path = converted(args.model)
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        sys.exit(f"llama.cpp could not load {path}")

    if args.check:
        print(json.dumps(check(model, args.check)))
        return

    variants = [measure(model, args, flash) for flash in (False, True)]
    system = llama_cpp.llama_print_system_info().decode().strip(" |")
    report = {
        "peer": "llama.cpp",
        "version": f"{llama_cpp.llama_version().decode()} (llama-cpp-python {llama_cpp.__version__})",
        "dtype": "bf16",
        "threads": args.threads,
        "decode": fastest(variants, "decode"),
        "prefill": fastest(variants, "prefill"),
        "notes": "each row is the faster of flash attention on and off; KV cache f16; mmap on; "
        + system,
        "variants": variants,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
