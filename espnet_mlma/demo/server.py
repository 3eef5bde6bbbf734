"""Serve the page: sockets, routes, shutdown on Ctrl-C."""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING

from espnet_mlma.demo.guard import FILE, UPLOAD, Guard, Hosts
from espnet_mlma.demo.uploads import Uploads
from espnet_mlma.errors import MlmaError

if TYPE_CHECKING:
    import gradio

# Styles outside the transcripts; page.css applies inside only.
_CSS = ".html-container { padding: 0 !important; } .dark audio { color-scheme: dark; }"
# An open page holds a connection; it is closed after this time.
_SHUTDOWN_SECONDS = 1
_JOIN_SECONDS = 5


def listen(host: str, port: int) -> list[socket.socket]:
    """Open the port on every address of a host.

    Raises:
        MlmaError: the port is taken, or the host is not this machine's.
    """
    try:
        if not host:
            raise OSError  # to create_server the empty name means every address
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
        return [socket.create_server(address, family=family) for family, address in addresses]
    except OSError:
        raise MlmaError(
            f"cannot listen on {host or 'an empty host'}, port {port}; choose another with "
            "--port or --host"
        ) from None


def serve(
    page: gradio.Blocks,
    uploads: Uploads,
    upload_bytes: int,
    hosts: Hosts,
    sockets: list[socket.socket],
) -> None:
    """Serve a page until Ctrl-C.

    Args:
        page: from `build`.
        uploads: those of the page.
        upload_bytes: maximum size of an upload, in bytes.
        hosts: names under which the page is served.
        sockets: from `listen`.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
        MlmaError: the server stopped by itself.
    """
    import uvicorn

    app = Guard(_routes(page, uploads, upload_bytes), hosts, upload_bytes)
    config = uvicorn.Config(
        app, log_level="warning", ws="none", timeout_graceful_shutdown=_SHUTDOWN_SECONDS
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    print(f"open {_address(sockets[0])} in a browser; Ctrl-C ends the server", flush=True)
    try:
        thread.join()
    except KeyboardInterrupt:
        # Hide uvicorn's errors about the connections that it closes.
        logging.getLogger("uvicorn.error").disabled = True
        server.should_exit = server.force_exit = True
        page.close(verbose=False)
        thread.join(_JOIN_SECONDS)
        raise
    raise MlmaError("the server stopped; the lines above say why")


def _routes(page: gradio.Blocks, uploads: Uploads, upload_bytes: int):
    """Build Gradio's application, with our own routes for uploads."""
    import fastapi
    import gradio
    from gradio.themes import Default
    from starlette.routing import BaseRoute, Route

    own: list[BaseRoute] = [
        Route(UPLOAD, uploads.receive, methods=["POST"]),
        Route(FILE + "{path:path}", uploads.send, methods=["GET"]),
    ]
    # No fonts or scripts of other servers, no requests to them, no history in the browser.
    theme = Default(
        primary_hue="sky",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return gradio.mount_gradio_app(
        fastapi.FastAPI(routes=own, openapi_url=None),
        page,
        path="/",
        max_file_size=upload_bytes,
        theme=theme,
        css=_CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
    )


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
