"""The page's mechanics: models in, uploads read and deleted, results out as they come."""

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
# An upload that is never recognised, because its page was closed, is deleted after an hour; one
# that does not arrive whole within an hour is not waited for.
_SWEEP_SECONDS, _FORGET_SECONDS = 60, 3600
# How many may wait while another's audio is recognised.
_QUEUE = 32
# Gradio remembers what each page showed, for a link that we do not offer.
_SESSIONS = 100
# Parts come faster than a browser can show them.
_REFRESH_SECONDS = 0.2
_WARM_UP_SECONDS = 30


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        minutes: longest audio.
        megabytes: largest upload.
    """

    minutes: float = 10.0
    megabytes: float = 50.0


def _import_gradio():
    try:
        import gradio
    except ImportError:
        raise MlmaError(
            'the page is made with Gradio, which is not installed; pip install "espnet-mlma[demo]"'
        ) from None
    return gradio


def build(
    recognisers: Mapping[str, Recogniser], uploads: Uploads, limits: Limits | None = None
) -> gradio.Blocks:
    """The page, not yet served.

    Args:
        recognisers: by the name to show; more than one are compared side by side.
        uploads: where the audio lies.
        limits: on length and size.

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
            with uploads.taken(upload) as sound:
                yield from _pages(recognisers, sound, limits)
        except MlmaError as error:
            yield results.message(str(error))
        except Exception:
            # What it says may hold paths of this machine.
            logging.getLogger(__name__).exception("recognition failed")
            yield results.message("recognition failed; the server's log says why")

    with gradio.Blocks(title="espnet-mlma", analytics_enabled=False) as page:
        gradio.HTML(
            f"<h1>Speech recognition</h1><p>Up to {limits.minutes:g} minutes and "
            f"{limits.megabytes:g} MB. The server deletes audio when it has read it, and sends "
            "nothing elsewhere.</p>"
        )
        sound = gradio.Audio(
            label="Audio",
            type="filepath",
            elem_id="sound",
            buttons=[],
            # Without a waveform the player is an element that page.js can find.
            waveform_options=gradio.WaveformOptions(show_recording_waveform=False),
        )
        sound.async_move_resource_to_block_cache = _as_it_is
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


async def _as_it_is(path: str) -> str:
    """Leave a path as the client names it, where Gradio copies files and downloads addresses."""
    return path


def _pages(recognisers: Mapping[str, Recogniser], sound: Upload, limits: Limits) -> Iterator[str]:
    """The transcripts, again and again while the models go on; then what is wrong with the audio.

    Raises:
        MlmaError: no audio, or too much of it.
    """
    yield results.waiting("Reading the audio …")
    duration, damage = _measured(sound, limits.minutes)
    runs = [_Run(name, model, sound.path, duration) for name, model in recognisers.items()]
    due = 0.0
    while not all(run.is_finished for run in runs):
        if time.monotonic() >= due:
            yield results.transcripts([run.column for run in runs], sound.name)
            due = time.monotonic() + _REFRESH_SECONDS
        for run in runs:
            if not run.is_finished:
                run.advance()
    said = results.message(sound.renamed(str(damage))) if damage else ""
    yield said + results.transcripts([run.column for run in runs], sound.name)


def _measured(sound: Upload, most_minutes: float) -> tuple[float, DamagedAudio | None]:
    """Measure audio by decoding it: a header may lie.

    Returns:
        Seconds, and the damage that ends it.

    Raises:
        MlmaError: no audio, or too much of it.
    """
    from espnet_mlma.audio import SAMPLE_RATE, UntilDamage, audio_blocks

    samples, blocks = 0, UntilDamage(audio_blocks(sound.path))
    for block in blocks:
        samples += len(block)
        if samples > most_minutes * 60 * SAMPLE_RATE:
            raise MlmaError(
                f"{sound.name}: longer than {most_minutes:g} minutes; cut it, or start the page "
                "with a higher limit"
            )
    return samples / SAMPLE_RATE, blocks.damage


class _Run:
    """One model at work on one sound."""

    def __init__(self, name: str, recogniser: Recogniser, sound: Path, duration: float):
        self.column = results.Column(name, (), duration, 0.0, False)
        self._parts = recogniser.iter_transcribe(sound)

    @property
    def is_finished(self) -> bool:
        return self.column.is_finished

    def advance(self) -> None:
        """Recognise one part more; damage ends the audio."""
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

    Uploads lie in a temporary folder until they are read, and the folder goes with the server.

    Args:
        models: what `espnet_mlma.load` takes; more than one are compared side by side.
        host: address to listen on; 0.0.0.0 lets everyone in who can reach this machine.
        port: to listen on.
        max_minutes: longest audio.
        max_megabytes: largest upload.
        other_hosts: names beside `host` and this machine's own under which browsers reach the page,
            as of a reverse proxy.

    Raises:
        MlmaError: Gradio is not installed, a model does not load, the port is taken, or one of
            `other_hosts` is no name.
    """
    names, hosts = _short_names(models), Hosts(host, other_hosts)
    limits = Limits(max_minutes, max_megabytes)
    with _signals_as_ctrl_c(), _folder() as folder:
        _import_gradio()
        print(f"loading {', '.join(names)}", flush=True)
        recognisers = _loaded(dict(zip(names, models, strict=True)))
        upload_bytes = max(1, round(max_megabytes * 2**20))
        uploads = Uploads(folder, upload_bytes, _FORGET_SECONDS)
        page = build(recognisers, uploads, limits)
        sockets = listen(host, port)
        with uploads.swept(_SWEEP_SECONDS), suppress(KeyboardInterrupt):
            serve(page, uploads, upload_bytes, hosts, sockets)


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder that Gradio takes uploads from, for this process and its user alone."""
    variable = "GRADIO_TEMP_DIR"
    previous = os.environ.get(variable)
    with tempfile.TemporaryDirectory(prefix="mlma-demo-") as folder:
        # Gradio asks for it when it is imported, and again when it makes components.
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
def _signals_as_ctrl_c() -> Iterator[None]:
    """Without it, temporary folders would outlive the process."""
    # What nohup ignores stays ignored.
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


def _loaded(models: Mapping[str, str]) -> dict[str, Recogniser]:
    """Models by name, called once: the first call is slow, and would look so on the page."""
    import numpy as np

    import espnet_mlma
    from espnet_mlma.audio import SAMPLE_RATE
    from espnet_mlma.decode.language import guess_language

    recognisers = {name: espnet_mlma.load(path) for name, path in models.items()}
    for recogniser in recognisers.values():
        recogniser.transcribe(np.zeros(_WARM_UP_SECONDS * SAMPLE_RATE, np.float32))
    guess_language("silence gives no text to guess from")
    return recognisers


def _short_names(models: Sequence[str]) -> list[str]:
    """The last parts of the models' paths, as many as tell them apart.

    Raises:
        MlmaError: a model is named twice.
    """
    paths = [Path(model).absolute().parts for model in models]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    raise MlmaError(f"{', '.join(models)}: the same model twice; give each once")
