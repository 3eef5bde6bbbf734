"""Load models, build the page, and recognise each upload before it is deleted."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_mlma.demo import results
from espnet_mlma.demo.guard import Hosts
from espnet_mlma.demo.server import listen, serve
from espnet_mlma.demo.uploads import Upload, Uploads
from espnet_mlma.errors import MlmaError

if TYPE_CHECKING:
    import gradio

    from espnet_mlma.audio import DamagedAudio
    from espnet_mlma.decode import Recogniser

_HERE = Path(__file__).parent
# An upload whose page was closed before recognition is deleted after an hour. One that takes longer
# than an hour to arrive is refused.
_SWEEP_SECONDS, _FORGET_SECONDS = 60, 3600
# Most requests that wait for recognition.
_QUEUE = 32
# Pages whose last result Gradio keeps in memory; the link that would need it is not offered.
_SESSIONS = 100
# Transcripts come faster than a browser can show them.
_REFRESH_SECONDS = 0.2
_WARM_UP_SECONDS = 30


@dataclass(frozen=True)
class Limits:
    """Limits of an upload.

    Attributes:
        minutes: maximum length of audio.
        megabytes: maximum size.
    """

    minutes: float = 10.0
    megabytes: float = 50.0


def _import_gradio():
    try:
        import gradio
    except ImportError:
        raise MlmaError(
            'the page needs Gradio, which is not installed; pip install "espnet-mlma[demo]"'
        ) from None
    return gradio


def build(
    recognisers: Mapping[str, Recogniser], uploads: Uploads, limits: Limits | None = None
) -> gradio.Blocks:
    """Build the page; `serve` serves it.

    Args:
        recognisers: models by the name to show; two or more are shown side by side.
        uploads: the uploads that wait for recognition.
        limits: None: the default ones.

    Raises:
        MlmaError: Gradio is not installed.
    """
    gradio = _import_gradio()
    limits = limits or Limits()

    def recognise(upload: str | None) -> Iterator[str]:
        if upload is None:
            yield ""
            return
        try:
            with uploads.take(upload) as sound:
                yield from _pages(recognisers, sound, limits)
        except MlmaError as error:
            yield results.message(str(error))
        except Exception:
            # The message may contain paths of this machine.
            logging.getLogger(__name__).exception("recognition failed")
            yield results.message("recognition failed; the server's log has the reason")

    with gradio.Blocks(title="espnet-mlma", analytics_enabled=False) as page:
        gradio.HTML(
            f"<h1>Speech recognition</h1><p>Up to {limits.minutes:g} minutes and "
            f"{limits.megabytes:g} MB. The server deletes the audio after recognition and sends "
            "nothing to other servers.</p>"
        )
        sound = gradio.Audio(
            label="Audio",
            type="filepath",
            elem_id="sound",
            buttons=[],
            # The player with a waveform is no <audio> element, which page.js needs.
            waveform_options=gradio.WaveformOptions(show_recording_waveform=False),
        )
        sound.async_move_resource_to_block_cache = _unchanged
        shown = gradio.HTML(
            elem_id="transcripts",
            css_template=(_HERE / "page.css").read_text(encoding="utf-8"),
            js_on_load=(_HERE / "page.js").read_text(encoding="utf-8"),
        )
        recognition = sound.input(
            recognise,
            sound,
            shown,
            js="async (sound) => { await window.mlmaKeepCopy(sound); return [sound]; }",
            show_progress="hidden",
            trigger_mode="multiple",
            api_visibility="private",
        )
        sound.clear(None, None, shown, js="() => ''", cancels=recognition)
    page.state_session_capacity = _SESSIONS
    return page.queue(max_size=_QUEUE, api_open=False)


async def _unchanged(url_or_file_path: str | Path | None) -> str | None:
    """Return the client's path; Gradio's own method would copy the file or download an address."""
    return None if url_or_file_path is None else str(url_or_file_path)


def _pages(recognisers: Mapping[str, Recogniser], sound: Upload, limits: Limits) -> Iterator[str]:
    """Yield the page's content repeatedly while the models run; last, with any damage of the audio.

    Raises:
        MlmaError: the file is no audio, or is too long.
    """
    yield results.waiting("Reading the audio …")
    duration, damage = _measure(sound, limits.minutes)
    runs = [_Run(name, model, sound.path, duration) for name, model in recognisers.items()]
    due = 0.0
    while not all(run.is_finished for run in runs):
        if time.monotonic() >= due:
            yield results.transcripts([run.column for run in runs], sound.name)
            due = time.monotonic() + _REFRESH_SECONDS
        for run in runs:
            if not run.is_finished:
                run.advance()
    warning = results.message(sound.renamed(str(damage))) if damage else ""
    yield warning + results.transcripts([run.column for run in runs], sound.name)


def _measure(sound: Upload, max_minutes: float) -> tuple[float, DamagedAudio | None]:
    """Measure audio by decoding it; the length in its header may be wrong.

    Returns:
        Seconds, and the damage at which the audio ends, if any.

    Raises:
        MlmaError: the file is no audio, or is too long.
    """
    from espnet_mlma.audio import SAMPLE_RATE, UntilDamage, audio_blocks

    samples, blocks = 0, UntilDamage(audio_blocks(sound.path))
    for block in blocks:
        samples += len(block)
        if samples > max_minutes * 60 * SAMPLE_RATE:
            raise MlmaError(
                f"{sound.name}: longer than {max_minutes:g} minutes; cut it, or start the page "
                "with a higher limit"
            )
    return samples / SAMPLE_RATE, blocks.damage


class _Run:
    """Recognition of one sound by one model."""

    def __init__(self, name: str, recogniser: Recogniser, sound: Path, duration: float):
        self.column = results.Column(name, (), duration, 0.0, False)
        self._parts = recogniser.iter_transcribe(sound)

    @property
    def is_finished(self) -> bool:
        return self.column.is_finished

    def advance(self) -> None:
        """Recognise the next part; damage ends the audio."""
        from espnet_mlma.audio import DamagedAudio

        start, part = time.perf_counter(), None
        with suppress(DamagedAudio):
            part = next(self._parts, None)
        spent = self.column.spent + time.perf_counter() - start
        parts = self.column.parts if part is None else (*self.column.parts, part)
        self.column = replace(self.column, parts=parts, spent=spent, is_finished=part is None)


def launch(
    models: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 7860,
    max_minutes: float = Limits.minutes,
    max_megabytes: float = Limits.megabytes,
    other_hosts: Sequence[str] = (),
) -> None:
    """Load models and serve the page until Ctrl-C, SIGTERM or SIGHUP.

    Uploads are kept in a temporary folder until they are recognised. The folder is deleted at the
    end.

    Args:
        models: paths or ids, see `espnet_mlma.load`; two or more are shown side by side.
        host: address to listen on; 0.0.0.0 admits everyone who can reach this machine.
        port: to listen on.
        max_minutes: maximum length of audio.
        max_megabytes: maximum size of an upload.
        other_hosts: more names under which browsers reach the page, such as a reverse proxy's;
            `host` and this machine's names are known.

    Raises:
        MlmaError: Gradio is not installed, a model does not load, the port is taken, or one of
            `other_hosts` is not a host name.
    """
    names, hosts = _short_names(models), Hosts(host, other_hosts)
    limits = Limits(max_minutes, max_megabytes)
    with _signals_as_interrupt(), _folder() as folder:
        _import_gradio()
        print(f"loading {', '.join(names)}", flush=True)
        recognisers = _load(dict(zip(names, models, strict=True)))
        upload_bytes = max(1, round(max_megabytes * 2**20))
        uploads = Uploads(folder, upload_bytes, _FORGET_SECONDS)
        page = build(recognisers, uploads, limits)
        sockets = listen(host, port)
        with uploads.sweep_every(_SWEEP_SECONDS), suppress(KeyboardInterrupt):
            serve(page, uploads, upload_bytes, hosts, sockets)


@contextmanager
def _folder() -> Iterator[Path]:
    """Make Gradio's temporary folder, readable by this user only; yield its folder of uploads."""
    variable = "GRADIO_TEMP_DIR"
    previous = os.environ.get(variable)
    with tempfile.TemporaryDirectory(prefix="mlma-demo-") as folder:
        # Gradio reads the variable at its import, and again when it makes components.
        os.environ[variable] = folder
        try:
            uploads = Path(folder) / "uploads"
            uploads.mkdir()
            yield uploads
        finally:
            os.environ.pop(variable)
            if previous is not None:
                os.environ[variable] = previous


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that the temporary folder is deleted."""
    # A signal that is ignored, as under nohup, stays ignored.
    signals = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _load(models: Mapping[str, str]) -> dict[str, Recogniser]:
    """Load models and run each once, because the first run is slow."""
    import numpy as np

    import espnet_mlma
    from espnet_mlma.audio import SAMPLE_RATE
    from espnet_mlma.decode.language import guess_language

    recognisers = {name: espnet_mlma.load(path) for name, path in models.items()}
    for recogniser in recognisers.values():
        recogniser.transcribe(np.zeros(_WARM_UP_SECONDS * SAMPLE_RATE, np.float32))
    guess_language("a text, because silence gives none")
    return recognisers


def _short_names(models: Sequence[str]) -> list[str]:
    """Shorten the models' paths to their last parts, as many as make the names differ.

    Raises:
        MlmaError: a model is named twice.
    """
    paths = [Path(model).absolute().parts for model in models]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    raise MlmaError(f"{', '.join(models)}: the same model twice; name each model once")
