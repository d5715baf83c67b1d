"""Runs Deepgram's and OpenAI's own SDKs against running doubles: check.py DEEPGRAM_URL OPENAI_URL.

The doubles play listen.json and chat.json of this folder, have the keys dg-test and sk-test, and refuse the first
request of a chat as faults.json says. Ends with an error at the first thing that is not as the services do it.
"""

import faulthandler
import json
import sys

import openai
import pydantic
from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from websockets.exceptions import InvalidStatus

RATE = 16_000
CHUNK = bytes(RATE * 2 * 80 // 1000)
SECONDS = 3.2


def expect(condition, what):
    """An assertion that is there at every level of optimisation."""
    if not condition:
        raise SystemExit(f"not as the service does it: {what}")


def strict(message, known=()):
    """The SDKs build their objects without looking; this looks: every field there, of its type, and no other."""
    expect(isinstance(message, pydantic.BaseModel), f"a message that the SDK does not know: {message!r}")
    try:
        checked = type(message).model_validate(json.loads(message.model_dump_json()))
    except pydantic.ValidationError as error:
        raise SystemExit(f"{type(message).__name__}: {error}") from error
    extra = extras(checked, type(message).__name__) - set(known)
    expect(not extra, f"fields that the SDK does not know: {sorted(extra)}")
    return message


def extras(value, path):
    """The paths of fields that no model has."""
    if isinstance(value, list):
        return set().union(*(extras(item, path) for item in value))
    if not isinstance(value, pydantic.BaseModel):
        return set()
    found = {f"{path}.{name}" for name in value.model_extra or {}}
    for name in type(value).model_fields:
        found |= extras(getattr(value, name), f"{path}.{name}")
    return found


def deepgram(url, key="dg-test"):
    socket = url.replace("http", "ws", 1)
    environment = DeepgramClientEnvironment(base=url, production=socket, agent=socket, agent_rest=url)
    return DeepgramClient(api_key=key, environment=environment)


def send_audio(connection):
    for _ in range(round(SECONDS / 0.08)):
        connection.send_media(CHUNK)


def flux(url):
    client = deepgram(url)
    query = {"model": "flux-general-en", "encoding": "linear16", "sample_rate": RATE}
    query |= {"eot_threshold": 0.8, "eager_eot_threshold": 0.5, "keyterm": ["kelp", "krill"]}
    with client.listen.v2.connect(**query) as connection:
        connected = strict(connection.recv())
        expect(connected.type == "Connected" and connected.sequence_id == 0, connected)
        connection.send_configure({"type": "Configure", "thresholds": {"eot_timeout_ms": 3000}, "keyterms": ["kelp"]})
        success = strict(connection.recv())
        expect(success.type == "ConfigureSuccess" and success.keyterms == ["kelp"], success)
        expect(success.thresholds.eot_timeout_ms == 3000 and success.thresholds.eot_threshold == 0.8, success)
        connection.send_configure({"type": "Configure", "thresholds": {"eot_threshold": 7}})
        failure = strict(connection.recv())
        expect(failure.type == "ConfigureFailure" and failure.sequence_id == 2, failure)
        send_audio(connection)
        connection.send_force_end_turn()
        connection.send_close_stream()
        turns = [strict(message) for message in connection]
    check_turns(turns)
    events = [(turn.event, turn.turn_index, turn.transcript, turn.trigger) for turn in turns if turn.event != "Update"]
    expected = [
        ("StartOfTurn", 0, "Tell", None),
        ("EagerEndOfTurn", 0, "Tell me", None),
        ("TurnResumed", 0, "Tell me more", None),
        ("EagerEndOfTurn", 0, "Tell me more, señor.", None),
        ("EndOfTurn", 0, "Tell me more, señor.", "model"),
        ("StartOfTurn", 1, "And", None),
        ("EndOfTurn", 1, "And then", "manual"),
    ]
    expect(events == expected, events)


def check_turns(turns):
    """The rules that Deepgram gives for Flux."""
    index, eager, clock = 0, None, 0.0
    for sequence, turn in enumerate(turns, start=3):
        expect(turn.type == "TurnInfo" and turn.sequence_id == sequence, turn)
        expect(turn.turn_index == index, turn)
        expect(turn.audio_window_start <= turn.audio_window_end, turn)
        expect(0 <= turn.audio_window_end - clock <= 0.26, turn)
        clock = turn.audio_window_end
        expect(turn.transcript == " ".join(word.word for word in turn.words), turn)
        if turn.event == "EagerEndOfTurn":
            expect(turn.transcript and eager is None, turn)
            eager = turn.transcript
        elif turn.event == "TurnResumed":
            expect(eager is not None, turn)
            eager = None
        elif turn.event == "EndOfTurn":
            expect(eager in (None, turn.transcript), turn)
            eager, index = None, index + 1
        elif eager is not None:
            expect(turn.event == "Update" and turn.transcript == eager, turn)
    expect(turns[-1].event == "Update", "the last message is no Update")


def nova(url):
    query = {"model": "nova-3", "language": "en", "encoding": "linear16", "sample_rate": RATE, "channels": 1}
    query |= {"interim_results": True, "punctuate": True, "endpointing": 300, "utterance_end_ms": 1000, "vad_events": True}
    with deepgram(url).listen.v1.connect(**query) as connection:
        send_audio(connection)
        connection.send_keep_alive()
        connection.send_finalize()
        connection.send_close_stream()
        messages = [strict(message) for message in connection]
    kinds = [message.type for message in messages]
    expect(kinds.count("SpeechStarted") == 2 and kinds.count("UtteranceEnd") == 1, kinds)
    expect(kinds[-1] == "Metadata" and messages[-1].duration == SECONDS, messages[-1])
    results = [message for message in messages if message.type == "Results"]
    finals = [result for result in results if result.is_final]
    said = [result.channel.alternatives[0].transcript for result in finals]
    expect(said == ["Tell me more, señor.", "And then"], said)
    expect([result.speech_final for result in finals] == [True, True], finals)
    expect([result.from_finalize for result in finals] == [False, True], finals)
    expect(any(not result.is_final and result.channel.alternatives[0].words for result in results), "no interim words")
    end = 0.0
    for result in finals:
        expect(result.start == end, result)
        end = round(result.start + result.duration, 3)


def refused(url):
    for key, query, status in [
        ("dg-other", {"model": "flux-general-en", "encoding": "linear16", "sample_rate": RATE}, 401),
        ("dg-test", {"model": "flux-general-en", "encoding": "linear16"}, 400),
        ("dg-test", {"model": "nova-3", "encoding": "linear16", "sample_rate": RATE}, 400),
    ]:
        try:
            with deepgram(url, key).listen.v2.connect(**query):
                raise SystemExit(f"not refused: {key}, {query}")
        except InvalidStatus as error:
            # This SDK looks for the exception of older versions of websockets, and so does not make its own of it.
            response = error.response
            expect(response.status_code == status, error)
            body = json.loads(response.body)
            expect(set(body) == {"err_code", "err_msg", "request_id"}, body)
            expect(response.headers["dg-error"] == body["err_msg"], response.headers)
            expect(response.headers["dg-request-id"] == body["request_id"], response.headers)


def chat(url):
    client = openai.OpenAI(base_url=url, api_key="sk-test")
    expect(strict(client.models.list().data[0]).object == "model", "the models")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    # The first request is refused with 429; the SDK tries again.
    whole = strict(client.chat.completions.create(model="gpt-4o-mini", messages=asked))
    expect(whole.choices[0].message.content == "Paris, où tout commence.", whole)
    expect(whole.usage.total_tokens == 27, whole)

    options = {"include_usage": True}
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=asked, stream=True, stream_options=options)
    chunks = [strict(chunk, ["ChatCompletionChunk.obfuscation"]) for chunk in stream]
    expect(chunks[0].choices[0].delta.role == "assistant", chunks[0])
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    expect(len(said) == 5 and "".join(said) == "Paris, où tout commence.", said)
    expect(chunks[-2].choices[0].finish_reason == "stop" and chunks[-2].usage is None, chunks[-2])
    expect(chunks[-1].choices == [] and chunks[-1].usage.prompt_tokens == 21, chunks[-1])
    tools(client)

    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=asked)
    for name in ["x-request-id", "openai-processing-ms", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests"]:
        expect(raw.headers.get(name), f"no header {name}")
    for key, arguments, kind, code in [
        ("sk-other", {"messages": asked}, openai.AuthenticationError, "invalid_api_key"),
        ("sk-test", {"messages": []}, openai.BadRequestError, None),
        ("sk-test", {"messages": asked, "extra_body": {"nonsense": 1}}, openai.BadRequestError, None),
    ]:
        try:
            openai.OpenAI(base_url=url, api_key=key).chat.completions.create(model="gpt-4o-mini", **arguments)
            raise SystemExit(f"not refused: {key}, {arguments}")
        except openai.APIStatusError as error:
            expect(type(error) is kind and error.code == code, repr(error))
            expect(error.type == "invalid_request_error" and error.request_id, repr(error))


def tools(client):
    """The SDK's own accumulator puts the calls together; their results go back."""
    asked = [{"role": "user", "content": "How is the weather?"}]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    with client.chat.completions.stream(model="gpt-4o-mini", messages=asked, tools=[tool]) as stream:
        completion = stream.get_final_completion()
    message = completion.choices[0].message
    called = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    expect(called == [("weather", {"city": "Zürich"}), ("clock", {})], called)
    expect(message.content is None and completion.choices[0].finish_reason == "tool_calls", completion)
    calls = [call.model_dump(include={"id": True, "type": True, "function": {"name", "arguments"}}) for call in message.tool_calls]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "4 °C"} for call in message.tool_calls]
    messages = [*asked, {"role": "assistant", "tool_calls": calls}, *results]
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    expect(answer.choices[0].message.content == "Something else.", answer)


def main():
    # A double that falls silent is wrong too.
    faulthandler.dump_traceback_later(120, exit=True)
    deepgram_url, openai_url = sys.argv[1:]
    for check, url in [(flux, deepgram_url), (nova, deepgram_url), (refused, deepgram_url), (chat, openai_url)]:
        check(url)
        print(f"{check.__name__}: as the SDK expects it")


main()
