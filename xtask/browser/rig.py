"""What the checks are made with: speech, programs, a line that can be cut, and a browser with a microphone."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import wave
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

RATE = 22_050  # of what espeak-ng writes
# The file begins when the page asks for the microphone: nothing is said before it listens.
LEAD_IN = 4.0

# Samples the loudness of both sides all the time, with the page's own clock.
LISTENER = """
() => {
  window.heard = [];
  setInterval(() => window.heard.push([performance.now(), mk.outputRms, mk.inputRms]), 5);
}
"""


def speech(path, parts):
    """Writes a WAV: a number is so many seconds of silence, a text is said. Gives the second at which each begins."""
    begins = []
    samples = bytearray()
    for part in parts:
        begins.append(len(samples) / 2 / RATE)
        if isinstance(part, str):
            samples += _said(part)
        else:
            samples += bytes(2 * int(part * RATE))
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(bytes(samples))
    return begins


def _said(text):
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", file.name, text], check=True)
        with wave.open(file.name) as spoken:
            assert spoken.getparams()[:3] == (1, 2, RATE), spoken.getparams()
            return spoken.readframes(spoken.getnframes()).rstrip(b"\0")


class Program:
    """A program that runs until it is interrupted, with what it prints."""

    def __init__(self, command, log, environment):
        self.log = Path(log)
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def printed(self, pattern):
        """Waits for what matches a pattern, and gives its first group."""
        deadline = time.monotonic() + 120
        while True:
            text = self.log.read_text(errors="replace")
            if found := re.search(pattern, text):
                return found[1]
            if self.process.poll() is not None:
                raise AssertionError(f"the program ended with {self.process.returncode}:\n{text}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the program did not print {pattern!r}:\n{text}")
            time.sleep(0.05)

    def interrupt(self):
        """Ends it as Ctrl-C does, and gives the last line that it printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the program does not end when it is interrupted") from None
        text = self.log.read_text(errors="replace")
        assert code == 0, f"the program ended with {code}:\n{text}"
        return text.rstrip().rpartition("\n")[2]


@contextmanager
def program(command, log, **environment):
    running = Program(command, log, environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


class Line:
    """A TCP relay to a server, which can be cut."""

    def __init__(self, port):
        self.target = port
        self.writers = set()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._relay, "127.0.0.1", 0), self.loop
        ).result()
        self.port = self.server.sockets[0].getsockname()[1]

    def cut(self):
        """Breaks all connections off; new ones are made as before."""
        self.loop.call_soon_threadsafe(self._cut)

    def _cut(self):
        for writer in self.writers:
            writer.transport.abort()

    async def _relay(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self.writers |= both
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self.writers -= both
            for end in both:
                end.close()


async def _pump(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


class Page:
    """The page in a browser, with what it complained about."""

    def __init__(self, page, folder):
        self.page = page
        self.folder = folder
        self.complaints = []
        page.on("console", lambda message: self._console(message))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message):
        # A connection that the test cut is a message too.
        if message.type == "error" and "WebSocket connection" not in message.text:
            self.complaints.append(message.text)

    def open(self, port):
        self.page.goto(f"http://127.0.0.1:{port}/")
        self.page.evaluate(LISTENER)

    def begin(self):
        self.page.get_by_role("button", name="Begin").click()
        self.until("mk.session.connection === 'open'", "the page connects")

    def mk(self, expression):
        return self.page.evaluate(f"mk.{expression}")

    def until(self, condition, what, seconds=60):
        """Waits until an expression of the page is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.page.evaluate(f"(() => ({condition}))()")):
            if time.monotonic() > deadline:
                shown = self.page.evaluate("({ ...mk.session, transcript: mk.transcript, events: mk.events.slice(-20) })")
                self.picture("failed")
                raise AssertionError(f"{what}: not within {seconds} s; the page has {shown}")
            time.sleep(0.02)
        return value

    def heard(self):
        """[milliseconds, output, input] since the page was opened."""
        return self.page.evaluate("heard")

    def picture(self, name):
        self.page.screenshot(path=str(self.folder / f"{name}.png"))


@contextmanager
def browser(folder, microphone=None, **context):
    """A page in a fresh headless Chromium whose microphone plays a WAV once; without one there is no microphone."""
    flags = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-sandbox",
        "--autoplay-policy=no-user-gesture-required",
    ]
    if microphone:
        flags += [
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={Path(microphone).absolute()}%noloop",
        ]
    profile = tempfile.mkdtemp(prefix="mk-browser-")
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch_persistent_context(
                profile,
                executable_path=shutil.which("chromium"),
                headless=True,
                args=flags,
                **{"viewport": {"width": 1280, "height": 800}, **context},
            )
            try:
                yield Page(chromium.pages[0], folder)
            finally:
                chromium.close()
    finally:
        shutil.rmtree(profile, ignore_errors=True)
