import os
import socket
import subprocess
import sys

import pytest

from espnet_mlma.demo import launch
from espnet_mlma.errors import MlmaError


def test_without_gradio_the_error_names_the_extra(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/mine")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MlmaError, match=r'pip install "espnet-mlma\[demo\]"'):
        launch(["model"])
    assert os.environ["GRADIO_TEMP_DIR"] == "/mine"


def test_import_loads_neither_torch_nor_gradio():
    code = "import sys, espnet_mlma.demo; print({'torch', 'gradio', 'espnet2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_taken_port_and_a_model_given_twice_are_errors(experiment):
    pytest.importorskip("gradio")
    with pytest.raises(MlmaError, match="the same model twice"):
        launch([str(experiment), str(experiment)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MlmaError, match=f"cannot listen on 127.0.0.1, port {port}"):
            launch([str(experiment)], port=port)
