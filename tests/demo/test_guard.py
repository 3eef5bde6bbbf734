import socket

import pytest

from espnet_mlma.demo.guard import Hosts
from espnet_mlma.errors import MlmaError


@pytest.mark.parametrize(
    ("listening", "host", "is_own"),
    [
        ("127.0.0.1", "127.0.0.2:80", True),
        ("::1", "[::1]:7860", True),
        ("::1", "[::2]:7860", False),
        ("192.168.1.5", "192.168.1.5:7860", True),
        ("192.168.1.5", "localhost", True),
        ("192.168.1.5", "192.168.1.6", False),
        ("192.168.1.5", "evil.example", False),
        ("192.168.1.5", socket.gethostname(), True),
        ("Box", "box:7860", True),
        ("0.0.0.0", "203.0.113.7:7860", True),
        ("0.0.0.0", "[2001:db8::7]:7860", True),
        ("0.0.0.0", f"{socket.gethostname().upper()}:7860", True),
        ("0.0.0.0", "evil.example:7860", False),
        ("0.0.0.0", "203.0.113.7.evil.example", False),
        ("::", "203.0.113.7", True),
        ("127.0.0.1", "203.0.113.7", False),
        ("127.0.0.1", "Demo.Example", True),
        ("127.0.0.1", "demo.example.evil.example", False),
        ("127.0.0.1", "[demo.example]", False),
        ("127.0.0.1", "demo.example:x", False),
        ("127.0.0.1", "demo.example\n", False),
    ],
)
def test_host_names_of_a_server(listening, host, is_own):
    assert (host in Hosts(listening, ["demo.example"])) is is_own


@pytest.mark.parametrize("name", ["https://demo.example", "demo.example:443", "", "a/b"])
def test_only_host_names_can_be_allowed(name):
    with pytest.raises(MlmaError, match="is not a host name; give it without"):
        Hosts("127.0.0.1", [name])
