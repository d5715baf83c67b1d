"""What a user of the voice demo's page must be able to rely on, tried in headless Chromium.

The demo is the real one; the services are doubles that answer from a script, and the voice is a tone for each word.
The microphone is a file of speech. Run by `cargo xtask browser`.
"""

import argparse
import json
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import rig

# The sound of an answer, and what is as good as silence.
AUDIBLE = 0.02
SILENT = 0.002
# Milliseconds from the interruption's arrival at the page until nothing is heard.
SILENCE_WITHIN = 150

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
STORY = (
    "The sea covers most of the earth, and it is never still. Its waves are made by the wind, its tides by the moon. "
    "Far below there are mountains, plains and valleys that nobody has seen. Whales sing there, and fish make light. "
    "Nobody knows how many animals live in it, and every year some are found that had no name before."
)
REPLIES = [
    {"contains": "capital", "text": ANSWER, "first_token_ms": 80, "delta_ms": 20},
    {"contains": "sea", "text": STORY, "first_token_ms": 80, "delta_ms": 10},
    {"text": "Of course. What would you like to know?", "first_token_ms": 80, "delta_ms": 20},
]

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--demo", type=Path, required=True, help="the voice demo")
arguments.add_argument("--doubles", type=Path, required=True, help="the doubles of the services")
arguments.add_argument("--out", type=Path, required=True, help="where pictures and logs go")
arguments.add_argument("--only", default="", help="only the checks whose names contain this")
args = arguments.parse_args()
measured = {}


class Demo:
    """The demo, behind a line that can be cut, and its doubles."""

    def __init__(self, port, doubles):
        self.line = rig.Line(port)
        self.doubles = doubles

    @property
    def port(self):
        return self.line.port

    def record(self):
        """What the doubles have received. Ends them."""
        return json.loads(self.doubles.interrupt())


@contextmanager
def demo(name, transcripts, faults=()):
    """Starts everything; the user says the `transcripts` in turn, whatever is said."""
    folder = args.out / name
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {
        "listen": {"by": "energy", "transcripts": transcripts},
        "chat": {"replies": REPLIES},
        "faults": list(faults),
    }
    flags = []
    for flag, script in scripts.items():
        file = folder / f"{flag}.json"
        file.write_text(json.dumps(script, indent=1))
        flags += [f"--{flag}", file]
    keys = ["--deepgram-key", "dg-test", "--openai-key", "sk-test"]
    with rig.program([args.doubles, *flags, *keys], folder / "doubles.log") as doubles:
        urls = json.loads(doubles.printed(r"(\{.*\})\n"))
        with rig.program(
            [args.demo, "--bind", "127.0.0.1:0", "--tts", "tones"],
            folder / "demo.log",
            DEEPGRAM_API_KEY="dg-test",
            DEEPGRAM_BASE_URL=urls["deepgram_url"],
            OPENAI_API_KEY="sk-test",
            OPENAI_BASE_URL=urls["openai_url"],
            RUST_LOG="info",
        ) as voice:
            yield Demo(int(voice.printed(r"http://127\.0\.0\.1:(\d+)")), doubles)
            voice.interrupt()
            log = voice.log.read_text()
            assert "dg-test" not in log and "sk-test" not in log, "a key is in the log"
            assert "panicked" not in log, log


def said(who, text):
    """An expression of the page: this was said, and is over."""
    return f"mk.transcript.find((e) => e.who === '{who}' && e.done && e.text === {json.dumps(text)})"


def silent_after(page, at):
    """The moment, from `at` on (milliseconds of the page's clock), after which nothing was heard for half a second."""
    quiet = "heard.at(-1)[0] > {0} + 500 && heard.every(([t, out]) => t < {0} || out < {1})"
    for _ in range(200):
        loud = [t for t, out, _ in page.heard() if t >= at and out >= SILENT]
        last = max(loud, default=at)
        if page.page.evaluate(quiet.format(last + 0.001, SILENT)):
            return last
        time.sleep(0.1)
    raise AssertionError("it is not silent")


def first_event(page, since, *types):
    return page.until(
        f"mk.events.find((e) => e.at > {since} && {json.dumps(types)}.includes(e.type))", f"a {' or '.join(types)}"
    )


# === The checks ===


def a_question_is_answered():
    """The user's words are shown, the answer is shown and heard, its latency is drawn."""
    folder = args.out / "turn"
    with demo("turn", [QUESTION]) as voice:
        microphone = folder / "microphone.wav"
        _, begins, ends = rig.speech(microphone, [rig.LEAD_IN, QUESTION, 60])
        with rig.browser(folder, microphone) as page:
            page.open(voice.port)
            page.begin()
            page.until(said("user", QUESTION), "the question is shown")
            page.until(f"mk.outputRms > {AUDIBLE}", "the answer is heard")
            page.picture("speaking")
            page.until(said("assistant", ANSWER), "the answer is shown")
            entry = page.page.evaluate(said("assistant", ANSWER))
            assert entry["spoken"] == len(ANSWER) and not entry["interrupted"], entry
            page.until("mk.turns.length === 1", "the turn is reported")
            [turn] = page.mk("turns")
            stages = turn["stages"]
            assert all(stages[name] is not None for name in stages), stages
            assert page.page.locator("#latency svg rect").count() >= 4, "the latency is not drawn"
            page.page.locator("#percentiles tbody tr").nth(5).wait_for()
            assert page.page.locator("#notice").inner_text(), "the page does not say that doubles answer"
            page.picture("answered")

            # From the end of the speech in the file to the sound of the answer at the page's output.
            first_in = next(t for t, _, into in page.heard() if into > AUDIBLE)
            first_out = next(t for t, out, _ in page.heard() if out > AUDIBLE)
            waited = first_out - first_in - 1000 * (ends - begins)
            measured["end of speech to first sound (ms)"] = waited
            measured["the same, as reported by the loop (ms)"] = stages["first_played"]
            assert abs(waited - stages["first_played"]) < 300, (waited, stages)
            measured["underruns"] = page.mk("counters.underruns")
            assert page.complaints == [], page.complaints
        [listen] = voice.record()["listens"]
        assert listen["violations"] == [], listen


def speaking_over_it_silences_it():
    """The user speaks into the answer: it stops at once, and the model is told only what was heard."""
    folder = args.out / "barge-in"
    with demo("barge-in", ["Tell me about the sea.", QUESTION]) as voice:
        microphone = folder / "microphone.wav"
        rig.speech(microphone, [rig.LEAD_IN, "Tell me about the sea.", 4.0, QUESTION, 60])
        with rig.browser(folder, microphone) as page:
            page.open(voice.port)
            page.begin()
            page.until(f"mk.outputRms > {AUDIBLE}", "the story is heard")
            order = first_event(page, 0, "pause", "flush")
            page.picture("interrupted")
            flush = first_event(page, 0, "flush")
            page.until("mk.events.some((e) => e.type === 'speaker flushed')", "the player flushed")
            page.until(said("assistant", ANSWER), "the second answer is shown")
            told = page.page.evaluate("mk.transcript.find((e) => e.who === 'assistant' && e.interrupted)")
            page.until("mk.turns.length === 2", "the second turn is reported")
            stages = page.mk("turns[1].stages")
            assert 0 <= stages["transcript"] <= stages["first_played"] < 4000, stages
            page.picture("answered")

            # What was loud between the order and the next answer, whose sound begins with another epoch.
            heard = page.heard()
            stop = [t for t, out, _ in heard if order["at"] <= t < order["at"] + 500 and out >= SILENT]
            silence = max(stop, default=order["at"]) - order["at"]
            first_out = next(t for t, out, _ in heard if out > AUDIBLE)
            spoke_over = next(t for t, _, into in heard if t > first_out and into > SILENT)
            measured["interruption's arrival to silence (ms)"] = silence
            measured["start of the user's speech to silence (ms)"] = order["at"] + silence - spoke_over
            measured["interruption's arrival to flush (ms)"] = flush["at"] - order["at"]
            assert silence <= SILENCE_WITHIN, f"silent {silence:.0f} ms after the interruption"
            assert page.complaints == [], page.complaints

        first, second = voice.record()["chats"]
        assert [m["content"] for m in first["request"]["messages"][1:]] == ["Tell me about the sea."], first
        [_, before, answer, now] = second["request"]["messages"]
        assert (before["content"], now["content"]) == ("Tell me about the sea.", QUESTION), second
        assert answer["role"] == "assistant", second
        spoken = answer["content"]
        measured["words of the story that were heard"] = len(spoken.split())
        assert spoken and STORY.startswith(spoken) and spoken != STORY, f"the model is told {spoken!r}"
        assert told["text"] == spoken, f"the page shows {told['text']!r}, the model is told {spoken!r}"


def a_key_silences_it_and_a_text_is_as_good_as_speech():
    """Without a microphone the user types, and interrupts with Escape."""
    folder = args.out / "typing"
    with demo("typing", ["unheard"]) as voice:
        with rig.browser(folder, color_scheme="dark", viewport={"width": 420, "height": 860}) as page:
            page.open(voice.port)
            page.begin()
            page.page.get_by_text("You can type").wait_for()
            box = page.page.get_by_label("Type instead of speaking")
            box.fill("Tell me about the sea.")
            box.press("Enter")
            page.until(f"mk.outputRms > {AUDIBLE}", "the story is heard")
            page.page.wait_for_timeout(1500)
            page.picture("speaking")
            box.press("Escape")
            order = first_event(page, 0, "flush")
            silence = silent_after(page, order["at"]) - order["at"]
            measured["Escape's flush to silence (ms)"] = silence
            assert silence <= SILENCE_WITHIN, f"silent {silence:.0f} ms after the flush"
            page.until("mk.transcript.some((e) => e.who === 'assistant' && e.done && e.interrupted)", "it is marked")
            box.fill(QUESTION)
            box.press("Enter")
            page.until(said("assistant", ANSWER), "the second answer is shown")
            page.picture("answered")
            assert page.complaints == [], page.complaints
        *_, last = voice.record()["chats"]
        spoken = last["request"]["messages"][2]["content"]
        assert spoken and STORY.startswith(spoken) and spoken != STORY, f"the model is told {spoken!r}"


def a_page_that_was_cut_off_comes_back():
    """The connection breaks while it speaks: the page connects again, keeps what was said, and goes on."""
    folder = args.out / "page-reconnects"
    with demo("page-reconnects", ["unheard"]) as voice:
        with rig.browser(folder) as page:
            page.open(voice.port)
            page.begin()
            box = page.page.get_by_label("Type instead of speaking")
            box.fill("Tell me about the sea.")
            box.press("Enter")
            page.until(f"mk.outputRms > {AUDIBLE}", "the story is heard")
            cut = page.page.evaluate("performance.now()")
            voice.line.cut()
            page.until("mk.session.connection === 'waiting'", "the page notices")
            page.picture("cut")
            silent_after(page, cut)
            page.until("mk.session.connection === 'open'", "the page connects again")
            back = page.page.evaluate("performance.now()")
            measured["page cut off to connected again (ms)"] = back - cut
            box.fill(QUESTION)
            box.press("Enter")
            page.until(said("assistant", ANSWER), "the answer is shown")
            page.until(f"heard.some(([t, out]) => t > {back} && out > {AUDIBLE})", "the answer is heard")
            assert page.mk("counters.connections") == 2, page.mk("counters")
            shown = page.page.locator("#turns").inner_text()
            assert "Tell me about the sea." in shown, "what was said before is gone"
            page.picture("back")
            assert page.complaints == [], page.complaints


def a_recogniser_that_drops_the_line_loses_nothing():
    """The connection to the recogniser breaks in the middle of the user's words: the turn is completed all the same."""
    folder = args.out / "recogniser-reconnects"
    # Its greeting, the start of the turn and a word or two are sent before.
    fault = {"on": "listen", "kind": {"close": {"after_events": 4, "code": 1011, "reason": "a test"}}}
    with demo("recogniser-reconnects", [QUESTION], [fault]) as voice:
        microphone = folder / "microphone.wav"
        rig.speech(microphone, [rig.LEAD_IN, QUESTION, 60])
        with rig.browser(folder, microphone) as page:
            page.open(voice.port)
            page.begin()
            page.until(said("user", QUESTION), "the question is shown")
            page.until(said("assistant", ANSWER), "the answer is shown")
            page.picture("answered")
            assert page.complaints == [], page.complaints
        listens = voice.record()["listens"]
        assert len(listens) >= 2, "the recogniser was not connected again"
        assert listens[0]["faults"], "the fault did not happen"


def what_the_page_reckons_is_right():
    """Bytes and letters; stages and bars."""
    folder = args.out / "reckoning"
    with demo("reckoning", ["unheard"]) as voice:
        with rig.browser(folder) as page:
            page.open(voice.port)
            for text in ["plain", "Grüße, 世界!", "👩‍🚀 in space", "e\u0301"]:
                for index in range(len(text) + 1):
                    spoken = len(text[:index].encode())
                    units = len(text[:index].encode("utf-16-le")) // 2
                    got = page.page.evaluate("([text, byte]) => mk.indexOfByte(text, byte)", [text, spoken])
                    assert got == units, f"{spoken} bytes of {text!r} are {units} units, not {got}"
            within = page.page.evaluate("mk.indexOfByte('ü', 1)")
            assert within == 0, "a letter is cut"
            early = page.page.evaluate("mk.segments({ transcript: 300, first_token: 200, first_clause: null, first_audio: 500 })")
            spans = [(part["name"], part["from"], part["to"]) for part in early]
            assert spans == [("transcript", 0, 300), ("first_token", 300, 300), ("first_audio", 300, 500)], spans


CHECKS = [
    what_the_page_reckons_is_right,
    a_question_is_answered,
    speaking_over_it_silences_it,
    a_key_silences_it_and_a_text_is_as_good_as_speech,
    a_page_that_was_cut_off_comes_back,
    a_recogniser_that_drops_the_line_loses_nothing,
]


def main():
    failed = []
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        if args.only not in name:
            continue
        started = time.monotonic()
        try:
            check()
        except Exception:
            traceback.print_exc()
            failed.append(name)
        verdict = "FAIL" if name in failed else "pass"
        print(f"{verdict}  {name} ({time.monotonic() - started:.0f} s)", flush=True)
    for what, value in measured.items():
        print(f"      {what}: {value:.0f}")
    (args.out / "measured.json").write_text(json.dumps(measured, indent=1))
    if failed:
        raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}; see {args.out}")


main()
