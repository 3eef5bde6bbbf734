"""`mlma stream`: recognise the standard input or the microphone live."""

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
    Parser,
    UsageError,
    add_model_options,
    add_speech_guard,
    binary_stdin,
    check_stdout,
    describe,
)
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import natural, not_negative, positive

if TYPE_CHECKING:
    import numpy as np

    from espnet_mlma.decode.streaming import StreamingTranscriber, StreamUpdate

_BLOCK_SECONDS = 0.1
_CLEAR_LINE = "\r\x1b[K"


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "arecord -q -f S16_LE -r 16000 -c 1 | mlma stream\n"
        "  writes words as they become final; a terminal also shows the text that may still change",
        {0: "success; Ctrl-C ends a microphone", 130: "Ctrl-C while reading stdin"},
    )
    add_model_options(parser)
    add_speech_guard(parser)
    parser.add_argument(
        "--microphone", action="store_true", help="read the microphone, not the standard input"
    )
    parser.add_argument(
        "--rate",
        type=natural,
        default=16000,
        metavar="HZ",
        help="sampling rate of stdin: 16-bit little-endian, one channel (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk",
        type=positive,
        default=0.64,
        metavar="S",
        help="audio that a bidirectional model encodes at once (default: %(default)s)",
    )
    parser.add_argument(
        "--lookahead",
        type=not_negative,
        default=0.64,
        metavar="S",
        help="audio after the chunk that it waits for (default: %(default)s)",
    )
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help="print a JSON object for each change: seconds heard, new final words, partial text",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print words until the sound ends, then speed and delays on the standard error."""
    check_stdout()
    if not arguments.microphone and binary_stdin().isatty():
        raise UsageError("stdin is a terminal; send samples through a pipe, or give --microphone")
    _, recogniser = model.load(arguments, {"speech_guard": arguments.speech_guard})

    import numpy as np

    from espnet_mlma.audio import SAMPLE_RATE, pcm_blocks
    from espnet_mlma.decode.streaming import StreamingTranscriber

    transcriber = StreamingTranscriber(recogniser, arguments.chunk, arguments.lookahead)
    # The first chunk is slow; its time would count as latency of the first words.
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
    """Yield the microphone's samples at 16 kHz until Ctrl-C.

    Raises:
        MlmaError: sounddevice, PortAudio or a microphone is missing.
    """
    from espnet_mlma.audio import SAMPLE_RATE

    try:
        import sounddevice  # pyright: ignore[reportMissingImports]  # in the extra mic alone
    except ImportError:
        raise MlmaError(
            'the microphone needs sounddevice: pip install "espnet-mlma[mic]"'
        ) from None
    except OSError:
        raise MlmaError("the microphone needs PortAudio; install libportaudio2") from None
    heard: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
    # KeyboardInterrupt could stop the recognition of a block halfway.
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
    """Print each update with new words or text as a line of JSON."""

    def __init__(self):
        self._partial = ""

    def show(self, update: StreamUpdate, heard: float) -> None:
        """Print an update.

        Args:
            update: of the transcriber.
            heard: seconds of audio so far.
        """
        if update.final or update.partial != self._partial:
            words = [
                {name: _rounded(value) for name, value in asdict(w).items()} for w in update.final
            ]
            line = {"heard": round(heard, 3), "final": words, "partial": update.partial}
            print(json.dumps(line, ensure_ascii=False), flush=True)
        self._partial = update.partial

    def finish(self) -> None:
        """End the output."""


def _rounded(value: str | float) -> str | float:
    return value if isinstance(value, str) else round(value, 3)


class TextPrinter:
    """Print final words; on a terminal redraw the last line with the partial text."""

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
        """End the output."""
        print(flush=True)


@dataclass
class Figures:
    """Delays of words, revisions of partial texts, and computing time.

    Attributes:
        heard: seconds of audio so far.
        delays: seconds from each word's end until it was final, computing included.
        spent: seconds of computing for each block.
        partials: number of different partial texts.
        revised: number of partial texts that were not a prefix of the text that replaced them.
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
        """Push blocks (time,) at 16 kHz into a transcriber; yield its updates and measure them."""
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
        """Return all figures in one line."""
        computing = sum(self.spent)
        mean, most = 1000 * computing / len(self.spent), 1000 * max(self.spent)
        line = f"{self.heard:.1f} s of audio, {self.heard / computing:.0f} x real time"
        line += f", {mean:.1f} ms a block, {most:.1f} at most"
        if self.delays:
            delays = sorted(self.delays)
            line += (
                f"; words final {statistics.median(delays):.2f} s after their end (median), "
                f"{delays[int(0.9 * (len(delays) - 1))]:.2f} s (p90)"
            )
        if self.partials:
            line += f"; {self.revised} of {self.partials} partial texts revised"
        return line
