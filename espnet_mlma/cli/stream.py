"""`mlma stream`: live recognition of the standard input or the microphone."""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from espnet_mlma.cli import model
from espnet_mlma.cli.parser import (
    UsageError,
    add_command,
    add_model_options,
    add_speech_guard,
    binary_stdin,
    check_stdout,
)
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import natural, not_negative, positive

if TYPE_CHECKING:
    import numpy as np

    from espnet_mlma.decode.streaming import StreamingTranscriber, StreamUpdate

_BLOCK_SECONDS = 0.1
_CLEAR_LINE = "\r\x1b[K"


def add_to(commands) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "stream",
        run,
        "recognise live: bare samples from the standard input, or the microphone",
        "arecord -q -f S16_LE -r 16000 -c 1 | mlma stream\n"
        "  writes words as they become final, and on a terminal what may still change after them",
        {0: "all went well; a microphone is ended by Ctrl-C", 130: "stdin was ended by Ctrl-C"},
    )
    add_model_options(parser)
    add_speech_guard(parser)
    parser.add_argument(
        "--microphone", action="store_true", help="listen to it in place of the standard input"
    )
    parser.add_argument(
        "--rate",
        type=natural,
        default=16000,
        metavar="HZ",
        help="of the samples on stdin: 16-bit little-endian, one channel (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk",
        type=positive,
        default=0.64,
        metavar="S",
        help="seconds that a bidirectional model encodes at once (default: %(default)s)",
    )
    parser.add_argument(
        "--look-ahead",
        type=not_negative,
        default=0.64,
        metavar="S",
        help="seconds after them that it waits for (default: %(default)s)",
    )
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help="print a JSON object for each change: seconds heard, words now final, partial text",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print what is heard until the sound ends, then figures on the standard error."""
    check_stdout()
    if not arguments.microphone and binary_stdin().isatty():
        raise UsageError("stdin is a terminal; send samples through a pipe, or give --microphone")
    _, recogniser = model.load(arguments, {"speech_guard": arguments.speech_guard})

    import numpy as np

    from espnet_mlma.audio import SAMPLE_RATE, pcm_blocks
    from espnet_mlma.decode.streaming import StreamingTranscriber

    transcriber = StreamingTranscriber(recogniser, arguments.chunk, arguments.look_ahead)
    # The first of everything is slow, and would be the first words' latency.
    transcriber.push(np.zeros(2 * SAMPLE_RATE, np.float32))
    transcriber.reset()
    if arguments.microphone:
        blocks = microphone_blocks()
    else:
        blocks = pcm_blocks(binary_stdin(), arguments.rate, seconds=_BLOCK_SECONDS)
    printer = JsonPrinter() if arguments.jsonl else TextPrinter()
    figures = Figures()
    for update in figures.measure(transcriber, blocks):
        printer.show(update, figures.heard)
    printer.finish()
    print(figures.summary(), file=sys.stderr)


def microphone_blocks() -> Iterator[np.ndarray]:
    """Samples at 16 kHz as they are heard, until Ctrl-C.

    Raises:
        MlmaError: there is no sounddevice, no PortAudio or no microphone.
    """
    from espnet_mlma.audio import SAMPLE_RATE

    try:
        import sounddevice
    except ImportError:
        raise MlmaError(
            'the microphone needs sounddevice: pip install "espnet-mlma[mic]"'
        ) from None
    except OSError:
        raise MlmaError("the microphone needs PortAudio; install libportaudio2") from None
    heard: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
    # As an exception Ctrl-C could come between two halves of a block's recognition.
    before = signal.signal(signal.SIGINT, lambda *_: heard.put(None))
    try:
        with sounddevice.InputStream(
            samplerate=SAMPLE_RATE,
            blocksize=round(_BLOCK_SECONDS * SAMPLE_RATE),
            channels=1,
            dtype="float32",
            callback=lambda samples, *_: heard.put(samples[:, 0].copy()),
        ):
            print("listening; Ctrl-C ends", file=sys.stderr)
            while (block := heard.get()) is not None:
                yield block
    except sounddevice.PortAudioError as error:
        raise MlmaError(f"no microphone ({error.args[0]}); see python -m sounddevice") from None
    finally:
        signal.signal(signal.SIGINT, before)


class JsonPrinter:
    """A JSON object a line for each update that says something new."""

    def __init__(self):
        self._partial = ""

    def show(self, update: StreamUpdate, heard: float) -> None:
        """Print an update that came when `heard` seconds were heard."""
        if update.final or update.partial != self._partial:
            words = [
                {name: _rounded(value) for name, value in asdict(w).items()} for w in update.final
            ]
            line = {"heard": round(heard, 3), "final": words, "partial": update.partial}
            print(json.dumps(line, ensure_ascii=False), flush=True)
        self._partial = update.partial

    def finish(self) -> None:
        """The sound is over."""


def _rounded(value: str | float) -> str | float:
    return value if isinstance(value, str) else round(value, 3)


class TextPrinter:
    """Final words; on a terminal the partial text too, on a line that is written anew."""

    def __init__(self):
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        self._line = ""

    def show(self, update: StreamUpdate, heard: float) -> None:
        """Print an update."""
        for word in update.final:
            separator = " " if self._line else ""
            if not self._width:
                print(separator + word.text, end="", flush=True)
            elif len(self._line) + len(word.text) + 1 >= self._width:
                print(_CLEAR_LINE + self._line)
                separator, self._line = "", ""
            self._line += separator + word.text
        if self._width:
            shown = f"{self._line} {update.partial}".strip()[: self._width - 1]
            print(_CLEAR_LINE + shown, end="", flush=True)

    def finish(self) -> None:
        """The sound is over."""
        print(flush=True)


@dataclass
class Figures:
    """How late words came, how often a partial text was not kept, and the time it took.

    Attributes:
        heard: seconds of sound so far.
        delays: of each word the seconds from its end until it was final, computing included.
        spent: seconds of computing, of each block.
        partials: how many different partial texts were shown.
        revised: how many of them were not the beginning of what came in their place.
    """

    heard: float = 0.0
    delays: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    partials: int = 0
    revised: int = 0
    _partial: str = ""

    def measure(
        self, transcriber: StreamingTranscriber, blocks: Iterable[np.ndarray]
    ) -> Iterator[StreamUpdate]:
        """Push all blocks (time,) at 16 kHz, and finish; the updates pass on."""
        from espnet_mlma.audio import SAMPLE_RATE

        for block in blocks:
            self.heard += len(block) / SAMPLE_RATE
            yield self._timed(lambda block=block: transcriber.push(block))
        yield self._timed(transcriber.finish)

    def _timed(self, step: Callable[[], StreamUpdate]) -> StreamUpdate:
        start = time.perf_counter()
        update = step()
        self.spent.append(time.perf_counter() - start)
        self.delays += [self.heard - word.end + self.spent[-1] for word in update.final]
        text = " ".join([*(word.text for word in update.final), update.partial]).strip()
        self.revised += not text.startswith(self._partial)
        self.partials += bool(update.partial) and update.partial != self._partial
        self._partial = update.partial
        return update

    def summary(self) -> str:
        """One line."""
        computing = sum(self.spent)
        mean, most = 1000 * computing / len(self.spent), 1000 * max(self.spent)
        line = f"{self.heard:.1f} s of audio, {self.heard / computing:.0f} x real time"
        line += f", {mean:.1f} ms a block, {most:.1f} at most"
        if self.delays:
            delays = sorted(self.delays)
            line += (
                f"; a word final {statistics.median(delays):.2f} s after its end "
                f"(of 10 words 9 in {delays[int(0.9 * (len(delays) - 1))]:.2f})"
            )
        if self.partials:
            line += f"; {self.revised} of {self.partials} partial texts revised"
        return line
