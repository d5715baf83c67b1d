#!/usr/bin/env python3
"""Makes the references that `mk-tts` is compared with, by running a Qwen3-TTS checkpoint through qwen_tts.

    tts.py --model DIR --out FOLDER [--text TEXT] [--frames 8] [--every 1] [--modes A,B] [--codec-frames 48]
           [--samples-every 1]

FOLDER gets one compressed NumPy archive for every way to speak that the checkpoint knows:

    custom_voice   streaming, whole, dialect, instruct (not for models of size 0b6)
    voice_design   whole, streaming
    base           icl-streaming, icl-whole, x-vector, x-vector-whole

Each has, with P rows of the prompt, F frames, G codes a frame, H the talker's width:

    request           u8  JSON: text, language, speaker, instruct, ref_text, layout ("streaming" or "whole")
    text_ids          i32 of the wrapped text; also instruct_ids and ref_ids, empty where there are none
    prompt            f32 [P, H]            the talker's input before the first frame
    trailing          f32 [T, H]            what is added to the frames after it, then `pad` for ever
    pad               f32 [H]
    codes             i32 [F, G]            greedy, with the repetition penalty of generation_config.json
    ended             i32                   1 where the end of speech came before the limit of frames
    first_codes       i32 [F + 1]           the first codes chosen, the end or one more frame's included
    logits            f32 [F + 1, ids]      of the talker: before each frame and after the last
    hidden            f32 [F + 1, H]        the states that they come from
    predictor_logits  f32 [F, G - 1, codes]
    bf16_logits_err, bf16_hidden_err  f32 [F + 1], bf16_predictor_err  f32 [F, G - 1]
                      |bf16 - f32| / |f32| in Euclidean norms: the error of qwen_tts' own bfloat16 run along the same
                      codes, a yardstick for ours
    wav               f32 [samples]         of the codec's unchunked forward over the codes; a reference's part is cut
    every             i32                   logits hold only every so manieth id
    samples_every     i32                   and the waveform every so manieth sample

A base checkpoint also gets voice.npz: `wav` i16 (24 kHz), its codes `codes` i32 [frames, G], the nearest two entries'
distances at every code `margins` f32 [frames, G] (relative to the nearest), the speaker's vector `x_vector` f32 [H],
and `bf16_x_vector_err`. All types get codec.npz: random `codes` i32 [frames, G], and
`wav` and `samples_every` as above.

The package runs untouched: everything is read through hooks. The bfloat16 run is led along the f32 run's codes by a
hook that raises their logits. One thing is not as the package has it: it patches the tokenizer of a *directory* with
the splitting rule of another model (`fix_mistral_regex`), which it does not do to one from the hub; here the rule is
that of the hub.
"""

import argparse
import gc
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from qwen_tts import Qwen3TTSModel

TEXT = "Hello you, this is a test."
INSTRUCT = "Say it like a friend."
REF_TEXT = "Yes, here is a list of things."
RATE = 24000


class Failure(Exception):
    """Something the user can act on; its message is printed without a traceback."""


def parse_args():
    parser = argparse.ArgumentParser(description="Make reference files from a Qwen3-TTS checkpoint.")
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--frames", type=int, default=8, help="frames at most (default 8)")
    parser.add_argument("--every", type=int, default=1, help="keep every so manieth logit (default 1)")
    parser.add_argument("--modes", help="which ways to speak, with commas between; all if not given")
    parser.add_argument("--codec-frames", type=int, default=48, help="random frames for the codec (default 48)")
    parser.add_argument("--samples-every", type=int, default=1, help="keep every so manieth sample (default 1)")
    args = parser.parse_args()
    if min(args.frames, args.every, args.samples_every) < 1 or args.codec_frames < 0:
        parser.error("numbers of frames and steps must be at least 1")
    if not os.path.isdir(args.model):
        parser.error(f"there is no directory {args.model}")
    return args


def load(path, dtype):
    tts = Qwen3TTSModel.from_pretrained(path, device_map="cpu", dtype=dtype, attn_implementation="eager")
    tts.processor = transformers.AutoProcessor.from_pretrained(path)
    weights = {p.dtype for p in tts.model.parameters()}
    if weights != {dtype}:
        raise Failure(f"asked for {dtype}, got weights {weights}")
    return tts


class Recorder:
    """Reads what passes through talker and predictor; with `lead`, makes them choose its codes."""

    def __init__(self, tts):
        self.tts = tts
        talker = tts.model.talker
        self.groups = talker.config.num_code_groups
        self.lead = None
        self.hooks = [
            talker.register_forward_hook(self.talker, with_kwargs=True),
            talker.code_predictor.register_forward_hook(self.predictor, with_kwargs=True),
        ]
        self.reset()

    def reset(self):
        self.first, self.logits, self.hidden, self.predictor_logits = {}, [], [], []

    def close(self):
        for hook in self.hooks:
            hook.remove()

    def talker(self, module, args, kwargs, output):
        step = len(self.logits)
        if step == 0:
            for name in ("inputs_embeds", "trailing_text_hidden", "tts_pad_embed"):
                self.first[name] = kwargs[name][0].float().numpy()
        self.logits.append(output.logits[0, -1].float().numpy().copy())
        self.hidden.append(output.past_hidden[0, -1].float().numpy().copy())
        if self.lead is not None:
            self.force(output, self.lead["first_codes"][step])

    def predictor(self, module, args, kwargs, output):
        step = len(self.predictor_logits)
        self.predictor_logits.append(output.logits[0, -1].float().numpy().copy())
        if self.lead is not None:
            frame, group = divmod(step, self.groups - 1)
            self.force(output, self.lead["codes"][frame, group + 1])

    @staticmethod
    def force(output, code):
        # Zero stays above the others whatever the processors do; a penalty multiplies.
        output.logits = torch.full_like(output.logits, -1e4)
        output.logits[..., int(code)] = 0.0


def run(tts, recorder, request, frames, voice):
    """One greedy generation: codes [F, G] and what the recorder has seen."""
    recorder.reset()
    chosen = {}
    generate, talker_generate = tts.model.generate, tts.model.talker.generate

    def keep_codes(*args, **kwargs):
        result = generate(*args, **kwargs)
        chosen["codes"] = result[0][0].numpy()
        return result

    def keep_first_codes(*args, **kwargs):
        result = talker_generate(*args, **kwargs)
        chosen["first_codes"] = result.sequences[0].numpy()
        return result

    # On the instance only, and passing everything on.
    tts.model.generate, tts.model.talker.generate = keep_codes, keep_first_codes
    # The codec would run in chunks; its part is checked apart.
    decode = tts.model.speech_tokenizer.decode
    tts.model.speech_tokenizer.decode = lambda items: ([np.zeros(1, np.float32) for _ in items], RATE)
    # The last code drawn never becomes a frame.
    options = dict(do_sample=False, subtalker_dosample=False, max_new_tokens=frames + 1,
                   language=request["language"], non_streaming_mode=request["layout"] == "whole")
    try:
        if voice is not None:
            prompt = voice["icl" if request["ref_text"] else "x_vector"]
            tts.generate_voice_clone(request["text"], voice_clone_prompt=prompt, **options)
        elif request["speaker"]:
            tts.generate_custom_voice(request["text"], speaker=request["speaker"], instruct=request["instruct"] or None,
                                      **options)
        else:
            tts.generate_voice_design(request["text"], request["instruct"], **options)
    finally:
        tts.model.generate, tts.model.talker.generate = generate, talker_generate
        tts.model.speech_tokenizer.decode = decode
    codes = chosen["codes"].astype(np.int32)
    count = len(codes)
    recorded = dict(
        codes=codes,
        first_codes=chosen["first_codes"][:count + 1].astype(np.int32),
        prompt=recorder.first["inputs_embeds"],
        trailing=recorder.first["trailing_text_hidden"],
        pad=recorder.first["tts_pad_embed"].reshape(-1),
        logits=np.stack(recorder.logits)[:count + 1],
        hidden=np.stack(recorder.hidden)[:count + 1],
        predictor_logits=np.stack(recorder.predictor_logits[:count * (recorder.groups - 1)])
        .reshape(count, recorder.groups - 1, -1),
    )
    end = tts.model.config.talker_config.codec_eos_token_id
    recorded["ended"] = np.int32(recorded["first_codes"][count] == end)
    return recorded


def requests(tts, text):
    """Every way to speak that the model knows, by name."""
    config = tts.model.config.talker_config
    base = dict(text=text, language="english", speaker="", instruct="", ref_text="", layout="streaming")
    kind = tts.model.tts_model_type
    if kind == "base":
        return {
            "icl-streaming": dict(base, ref_text=REF_TEXT),
            "icl-whole": dict(base, ref_text=REF_TEXT, layout="whole"),
            "x-vector": dict(base),
            "x-vector-whole": dict(base, language="auto", layout="whole"),
        }
    if kind == "voice_design":
        return {
            "whole": dict(base, instruct=INSTRUCT, layout="whole"),
            "streaming": dict(base, instruct=INSTRUCT, language="auto"),
        }
    plain = next(name for name, dialect in config.spk_is_dialect.items() if not dialect)
    modes = {
        "streaming": dict(base, speaker=plain),
        "whole": dict(base, speaker=plain, layout="whole"),
    }
    dialect = next((name for name, dialect in config.spk_is_dialect.items() if dialect), None)
    if dialect:
        modes["dialect"] = dict(base, speaker=dialect, language="auto")
    if tts.model.tts_model_size not in "0b6":
        modes["instruct"] = dict(base, speaker=plain, instruct=INSTRUCT, layout="whole")
    return modes


def text_ids(tts, request):
    def ids(text):
        return tts._tokenize_texts([text])[0][0].numpy().astype(np.int32)

    none = np.zeros(0, np.int32)
    return dict(
        text_ids=ids(tts._build_assistant_text(request["text"])),
        instruct_ids=ids(tts._build_instruct_text(request["instruct"])) if request["instruct"] else none,
        ref_ids=ids(tts._build_ref_text(request["ref_text"])) if request["ref_text"] else none,
    )


def recording():
    """1.3 s of a voice-like sound, exact in 16 bits: a harmonic series that glides, in syllables, over some noise."""
    time = np.arange(int(1.3 * RATE)) / RATE
    phase = 2 * np.pi * (140 * time + 25 * time**2)
    voiced = sum(np.sin(phase * k) / k for k in range(1, 12))
    sound = 0.12 * voiced * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * time))
    sound += 0.01 * np.random.default_rng(0).standard_normal(len(time))
    return np.round(sound * 32767).clip(-32768, 32767).astype(np.int16)


def clone(tts):
    """The voice of `recording`, and what voice.npz says of it."""
    wav = recording()
    margins = []

    def watch(codebook):
        quantize = codebook.quantize

        def watched(hidden):
            distances = torch.cdist(hidden[None].float(), codebook.embed[None].float())[0]
            nearest = distances.topk(2, largest=False).values
            margins.append(((nearest[:, 1] - nearest[:, 0]) / nearest[:, 0]).numpy())
            return quantize(hidden)

        codebook.quantize = watched

    quantizer = tts.model.speech_tokenizer.model.encoder.quantizer
    for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
        for layer in part.layers:
            watch(layer.codebook)
    sound = (wav.astype(np.float32) / 32768, RATE)
    icl = tts.create_voice_clone_prompt(sound, ref_text=REF_TEXT)
    codes = icl[0].ref_code.numpy().astype(np.int32)
    frames, groups = codes.shape
    facts = dict(
        wav=wav, codes=codes, x_vector=icl[0].ref_spk_embedding.float().numpy(),
        margins=np.stack([m[:frames] for m in margins[:groups]], axis=1).astype(np.float32),
    )
    x_vector = tts.create_voice_clone_prompt(sound, x_vector_only_mode=True)
    return dict(icl=icl, x_vector=x_vector), facts


def waveform(tts, codes, cut):
    """The codec's unchunked forward, without the samples of the first `cut` frames."""
    codec = tts.model.speech_tokenizer.model
    wav = codec.decoder(torch.from_numpy(codes.astype(np.int64)).T[None])[0, 0].float().numpy()
    return wav[cut * codec.decode_upsample_rate:]


def relative_error(found, expected):
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    difference = np.linalg.norm(found - expected, axis=-1)
    return (difference / np.linalg.norm(expected, axis=-1)).astype(np.float32)


def save(out, name, **arrays):
    # Written aside and renamed, so that an interrupted run leaves no half of a file.
    partial = os.path.join(out, f".{name}.npz")
    # Row by row, as the readers expect it, whatever torch made of a transposed tensor.
    np.savez_compressed(partial, **{key: np.asarray(array, order="C") for key, array in arrays.items()})
    os.replace(partial, os.path.join(out, f"{name}.npz"))


@torch.inference_mode()
def make_references(args):
    os.makedirs(args.out, exist_ok=True)
    tts = load(args.model, torch.float32)
    modes = requests(tts, args.text)
    if args.modes:
        wanted = args.modes.split(",")
        unknown = [name for name in wanted if name not in modes]
        if unknown:
            raise Failure(f"this model cannot speak {unknown}; it can {list(modes)}")
        modes = {name: modes[name] for name in wanted}

    voice, facts = (None, None)
    if tts.model.tts_model_type == "base":
        voice, facts = clone(tts)
    recorder = Recorder(tts)
    runs = {}
    for name, request in modes.items():
        record = run(tts, recorder, request, args.frames, voice)
        if not all(np.isfinite(record[part]).all() for part in ("prompt", "logits", "hidden", "predictor_logits")):
            raise Failure(f"{name}: not everything is finite")
        cloned = facts["codes"] if request["ref_text"] else np.zeros((0, recorder.groups), np.int32)
        record["wav"] = waveform(tts, np.concatenate([cloned, record["codes"]]), len(cloned))
        record.update(text_ids(tts, request))
        runs[name] = record
    recorder.close()
    if args.codec_frames:
        decoder = tts.model.speech_tokenizer.model.config.decoder_config
        shape = (args.codec_frames, decoder.num_quantizers)
        codes = np.random.default_rng(1).integers(0, decoder.codebook_size, shape).astype(np.int32)
        wav = waveform(tts, codes, 0)
        save(args.out, "codec", codes=codes, wav=wav[::args.samples_every],
             samples_every=np.int32(args.samples_every))
        print(f"codec: {len(wav)} samples, root mean square {np.sqrt((wav**2).mean()):.4f}, peak {np.abs(wav).max():.4f}")
    del tts, recorder  # before the second copy is loaded
    gc.collect()

    tts = load(args.model, torch.bfloat16)
    if facts is not None:
        # As the package does it: the recording's vector in bfloat16, its codes by a codec in bfloat16. The codes are
        # replaced by those of the f32 run, so that both runs say the same.
        sound = (facts["wav"].astype(np.float32) / 32768, RATE)
        vector = tts.create_voice_clone_prompt(sound, x_vector_only_mode=True)[0].ref_spk_embedding
        facts["bf16_x_vector_err"] = relative_error(vector.float().numpy(), facts["x_vector"])
        save(args.out, "voice", **facts)
    recorder = Recorder(tts)
    for name, request in modes.items():
        record = runs[name]
        recorder.lead = record
        led = run(tts, recorder, request, args.frames, voice)
        if not np.array_equal(led["codes"], record["codes"]):
            raise Failure(f"{name}: the bfloat16 run left the codes that it was led along")
        record.update(
            bf16_logits_err=relative_error(led["logits"], record["logits"]),
            bf16_hidden_err=relative_error(led["hidden"], record["hidden"]),
            bf16_predictor_err=relative_error(led["predictor_logits"], record["predictor_logits"]),
        )
        record["logits"] = record["logits"][..., ::args.every]
        record["predictor_logits"] = record["predictor_logits"][..., ::args.every]
        said = np.frombuffer(json.dumps(request).encode(), np.uint8)
        record["wav"] = record["wav"][::args.samples_every]
        save(args.out, name, request=said, every=np.int32(args.every), samples_every=np.int32(args.samples_every), **record)
        print(f"{name}: {len(record['prompt'])} rows, {len(record['codes'])} frames"
              f"{', then the end' if record['ended'] else ''}; bf16 error of logits up to "
              f"{record['bf16_logits_err'].max():.1e}, of the predictor's {record['bf16_predictor_err'].max():.1e}")


def main():
    args = parse_args()
    transformers.logging.set_verbosity_error()
    try:
        make_references(args)
    except Failure as error:
        print(f"tts.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
