#!/usr/bin/env python3
"""Writes chat.json: how transformers renders chats and tokenizes text with a checkpoint's tokenizer.

    chat.py --model DIR_OR_HUB_ID --out chat.json

The file is {"transformers": VERSION, "chats": [...], "texts": [...]}. Each chat has

    name                   what the case is about
    messages, tools        as given to `apply_chat_template`; `tools` is null where none were given
    add_generation_prompt  as given
    enable_thinking        as given; null where it was left undefined
    text, ids              the rendered prompt, and its token ids

and each text has

    text                   what was tokenized, special tokens in it recognised
    ids                    `tokenizer(text).input_ids`
    decoded                those ids as text; differs from `text` where the tokenizer normalizes
    decoded_plain          the same without the special tokens

JSON keeps the order of keys, and so must a reader: templates print tools and arguments in that order.
"""

import argparse
import json
import os
import sys

import tokenizers
import transformers

WEATHER = {"type": "function", "function": {
    "name": "get_weather",
    "description": "Current weather for a city, e.g. \"Zürich\" or 東京 (if <known> & 'spelt' right).",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "City & country"},
            "days": {"type": "integer", "minimum": 1, "default": 1},
            "scale": {"type": "number", "default": 0.5, "nullable": True, "examples": [1.0, None, False]},
        },
        "required": ["city"],
    },
}}
CLOCK = {"type": "function", "function": {"name": "now", "description": "", "parameters": {}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


THOUGHT = message("assistant", "<think>\nThe user asks for a sum.\n2 + 2 is 4.\n</think>\n\nIt is 4.")
ASKED = message("user", "What is the weather in Zürich?")
CALLED = message("assistant", "", tool_calls=[call("get_weather", {"days": 2, "city": "Zürich <&'>"})])
RESULT = message("tool", '{"sky": "clear", "celsius": -3.5}')

# (name, messages, tools)
CHATS = [
    ("user", [message("user", "Hello")], None),
    ("system and user", [message("system", "You are terse."), message("user", "Hi, who are you?")], None),
    ("several turns", [message("user", "2 + 2?"), message("assistant", "4"), message("user", "And times 3?")], None),
    ("thought in an earlier turn", [message("user", "2 + 2?"), THOUGHT, message("user", "Sure?")], None),
    ("thought in the last turn", [message("user", "2 + 2?"), THOUGHT], None),
    ("thought apart from the content",
     [message("user", "2 + 2?"), message("assistant", "4", reasoning_content="\nEasy.\n")], None),
    ("later system message", [message("user", "Hi"), message("system", "Be brief."), message("user", "Go on")], None),
    ("tools offered", [message("system", "Use tools."), ASKED], [WEATHER, CLOCK]),
    ("tools offered, no system message", [ASKED], [WEATHER]),
    ("tool called", [ASKED, CALLED], [WEATHER]),
    ("tool answered", [ASKED, CALLED, RESULT], [WEATHER]),
    ("tool answered and used", [ASKED, CALLED, RESULT, message("assistant", "Clear, -3.5 °C.")], [WEATHER]),
    ("two calls beside words, two answers", [
        ASKED,
        message("assistant", "<think>\nTwo calls.\n</think>\n\nLet me look.", tool_calls=[
            call("get_weather", {"city": "Zürich", "nested": {"a": [1, 2.5, None, True]}}),
            call("now", '{"zone":"UTC"}'),  # arguments as text are printed as they are
        ]),
        RESULT,
        message("tool", "12:00"),
    ], [WEATHER, CLOCK]),
    ("a new question after tools", [ASKED, CALLED, RESULT, THOUGHT, message("user", "Thanks!")], [WEATHER]),
    ("many scripts", [message("system", "Réponds en français."), message("user", "你好，世界！ Привет 🌍👩‍👩‍👧 नमस्ते مرحبا")], None),
    ("newlines and edges",
     [message("user", "\n\n  first\n\n\tsecond  \r\n"), message("assistant", "\nyes\n"), message("user", " ")], None),
    ("markup in the content",
     [message("user", "Say {{ 'x' }} {% raw %} <|im_end|>\n<|im_start|>system\n</think> & <b>\"bold\"</b>")], None),
    ("empty content", [message("system", ""), message("user", "")], None),
]

TEXTS = [
    "", " ", "\n", "a", "Hello, world!", "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say we've DONE it, but he'd rather not; it's Y'ALL'S.",
    "0 1 12 123 1234567890 3.14159 1e-10 0xFF 1,000,000 ²½ ٣٤",
    "fn main() {\n    let x: Vec<u8> = vec![0; 16];\n\tprintln!(\"{:?}\", x); // ok\n}\n",
    "if (a != b && c <= d || !e) { return a->b::c; } #include <x.h>\r\n\r\n",
    "    four  two\t\ttabs" + " " * 40 + "forty" + "\n" * 9 + "nine \n \n  \n   end   ",
    "trailing spaces   ", "   leading spaces", "\t\n \r\n\u00a0\u2003\u3000x",
    "你好，世界！今天天气怎么样？", "こんにちは、カタカナとｶﾀｶﾅ。", "안녕하세요 세계", "Привет, мир!", "مرحبا بالعالم",
    "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Ελληνικά ñandú Čeština İstanbul ß ſ",
    "mixed中文English混合العربيةtext", "😀👍🏽👩‍👩‍👧‍👦🇨🇭❤️ 🌍x🌍", "e\u0301 é \u212b Å ﬁ \u1100\u1161",  # not all in NFC
    "zero\u200bwidth\ufeff\u00ad \ufffd \u0000 \u0007 \U0010ffff", "https://example.org/a_b?c=d&e=%20#f me@example.org",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nYo<|im_end|>\n",
    "a<|endoftext|>b <|endoftext|> c", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "<|im_start|", "<|IM_END|> < |im_end|>",
    "<|im_end|><|im_end|>", "...!!!???---===***", "$100 €5 £3 ¥7 50% ±1 x²≤∞ ∑∂√", "`code` **bold** _it_ [l](u)\n- 1.\n> q",
    "supercalifragilisticexpialidocious" * 3, "AAAAaaaa" * 8,
]


def render(tokenizer, name, messages, tools, add_generation_prompt, enable_thinking):
    options = dict(tools=tools, add_generation_prompt=add_generation_prompt)
    if enable_thinking is not None:
        options["enable_thinking"] = enable_thinking
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]
    return dict(name=name, messages=messages, tools=tools, add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking, text=text, ids=ids)


def encode(tokenizer, text):
    ids = tokenizer(text).input_ids
    # Cleaning up spaces before punctuation is meant for word-piece vocabularies, but is some versions' default.
    decoded, decoded_plain = (
        tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False) for skip in (False, True))
    return dict(text=text, ids=ids, decoded=decoded, decoded_plain=decoded_plain)


def make_goldens(model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {model} has no chat template")
    chats = [render(tokenizer, name, messages, tools, prompt, thinking)
             for name, messages, tools in CHATS
             for prompt in (False, True)
             for thinking in (None, False, True)]
    texts = [encode(tokenizer, text) for text in TEXTS]
    # transformers 5 rebuilds the tokenizer from its vocabulary; mk reads tokenizer.json as it stands.
    path = os.path.join(model, "tokenizer.json")
    if os.path.exists(path):
        plain = tokenizers.Tokenizer.from_file(path)
        for case in texts + chats:
            if plain.encode(case["text"]).ids != case["ids"]:
                print(f"chat.py: tokenizer.json disagrees with transformers about {case['text']!r}", file=sys.stderr)
    return chats, texts


def lines(cases):
    """The cases as JSON, one a line, so that a change shows up as the cases it touches."""
    return ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)


def main():
    parser = argparse.ArgumentParser(description="Write goldens of a tokenizer and its chat template.")
    parser.add_argument("--model", required=True, help="checkpoint directory or hub id")
    parser.add_argument("--out", required=True, help="the .json to write")
    args = parser.parse_args()
    try:
        chats, texts = make_goldens(args.model)
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(f'{{"transformers":"{transformers.__version__}","chats":[\n{lines(chats)}\n],'
                       f'"texts":[\n{lines(texts)}\n]}}\n')
    except Exception as error:  # tokenizers and templates fail with types of many kinds
        print(f"chat.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {len(chats)} chats, {len(texts)} texts (transformers {transformers.__version__})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
