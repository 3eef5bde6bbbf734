"""The page's mechanics: models in, uploads read and deleted, results out as they come."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_mlma.demo import results
from espnet_mlma.errors import MlmaError

if TYPE_CHECKING:
    import gradio

    from espnet_mlma.decode import Recogniser

_HERE = Path(__file__).parent
# An upload that is never recognised, because its page was closed, is deleted after an hour.
_SWEEP_SECONDS, _FORGET_SECONDS = 60, 3600
# How many may wait while another's audio is recognised.
_QUEUE = 16
# Parts come faster than a browser can show them.
_REFRESH_SECONDS = 0.2
_WARM_UP_SECONDS = 30
# What page.css, which is for the transcripts alone, does not reach.
_CSS = ".html-container { padding: 0 !important; } .dark audio { color-scheme: dark; }"


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        minutes: longest audio.
        megabytes: largest file.
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


def build(recognisers: Mapping[str, Recogniser], limits: Limits | None = None) -> gradio.Blocks:
    """The page, not yet served.

    Args:
        recognisers: by the name to show; more than one are compared side by side.
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
            with _taken(Path(upload)) as sound:
                yield from _pages(recognisers, sound, limits)
        except MlmaError as error:
            yield results.message(str(error))

    delete_cache = (_SWEEP_SECONDS, _FORGET_SECONDS)
    with gradio.Blocks(
        title="espnet-mlma", analytics_enabled=False, delete_cache=delete_cache
    ) as page:
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
        sound.clear(
            lambda: "", None, shown, cancels=recognition, queue=False, api_visibility="private"
        )
    return page.queue(max_size=_QUEUE)


@contextmanager
def _taken(upload: Path) -> Iterator[Path]:
    """An upload, moved to where nobody else's of the same name and contents is, then deleted.

    Raises:
        MlmaError: it is gone; or what was raised meanwhile, with the name the user knows.
    """
    with tempfile.TemporaryDirectory(dir=upload.parent.parent) as folder:
        try:
            sound = upload.rename(Path(folder) / upload.name)
        except FileNotFoundError:
            raise MlmaError(f"{upload.name}: no longer there; upload it again") from None
        with suppress(OSError):
            upload.parent.rmdir()
        try:
            yield sound
        except MlmaError as error:
            raise MlmaError(str(error).replace(str(sound), sound.name)) from None


def _pages(recognisers: Mapping[str, Recogniser], sound: Path, limits: Limits) -> Iterator[str]:
    """The transcripts, again and again while the models go on.

    Raises:
        MlmaError: no audio, or too much of it.
    """
    yield results.waiting("Reading the audio …")
    duration = _measured(sound, limits.minutes)
    runs = [_Run(name, model, sound, duration) for name, model in recognisers.items()]
    due = 0.0
    while not all(run.is_finished for run in runs):
        if time.monotonic() >= due:
            yield results.transcripts([run.column for run in runs], sound.name)
            due = time.monotonic() + _REFRESH_SECONDS
        for run in runs:
            if not run.is_finished:
                run.advance()
    yield results.transcripts([run.column for run in runs], sound.name)


def _measured(sound: Path, most_minutes: float) -> float:
    """Seconds of audio, found by decoding it: a header may lie.

    Raises:
        MlmaError: no audio, or too much of it.
    """
    from espnet_mlma.audio import SAMPLE_RATE, audio_blocks

    samples = 0
    for block in audio_blocks(sound):
        samples += len(block)
        if samples > most_minutes * 60 * SAMPLE_RATE:
            raise MlmaError(
                f"{sound.name}: longer than {most_minutes:g} minutes; cut it, or start the page "
                "with a higher limit"
            )
    return samples / SAMPLE_RATE


class _Run:
    """One model at work on one sound."""

    def __init__(self, name: str, recogniser: Recogniser, sound: Path, duration: float):
        self.column = results.Column(name, (), duration, 0.0, False)
        self._parts = recogniser.iter_transcribe(sound)

    @property
    def is_finished(self) -> bool:
        return self.column.is_finished

    def advance(self) -> None:
        """Recognise one part more."""
        start = time.perf_counter()
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
) -> None:
    """Load models and serve the page until Ctrl-C or SIGTERM.

    Uploads lie in a temporary folder until they are read, and the folder goes with the server.

    Args:
        models: what `espnet_mlma.load` takes; more than one are compared side by side.
        host: address to listen on; 0.0.0.0 lets everyone in who can reach this machine.
        port: to listen on.
        max_minutes: longest audio.
        max_megabytes: largest file.

    Raises:
        MlmaError: Gradio is not installed, a model does not load, or the port is taken.
    """
    names = _short_names(models)
    limits = Limits(max_minutes, max_megabytes)
    with _sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(prefix="mlma-demo-") as folder:
        # Gradio asks for it when it is imported, and again when it makes components.
        os.environ["GRADIO_TEMP_DIR"] = folder
        _import_gradio()
        print(f"loading {', '.join(names)}", flush=True)
        page = build(_loaded(dict(zip(names, models, strict=True))), limits)
        try:
            _serve(page, host, port, limits)
        except KeyboardInterrupt:
            # A page left open holds a connection; it is cut, and nobody needs to read how.
            logging.getLogger("uvicorn.error").disabled = True
            page.server.force_exit = True
            page.close(verbose=False)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Without it, temporary folders would outlive the process."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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


def _serve(page: gradio.Blocks, host: str, port: int, limits: Limits) -> None:
    gradio = _import_gradio()
    # No fonts or scripts from elsewhere, nothing sent elsewhere, nothing kept in the browser.
    theme = gradio.themes.Default(
        primary_hue="sky",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=round(limits.megabytes * 2**20),
            theme=theme,
            css=_CSS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        raise MlmaError(
            f"cannot listen on {host}, port {port}; choose another with --port or --host"
        ) from None
    print(f"open {address} in a browser; Ctrl-C ends the server", flush=True)
    threading.Event().wait()


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
