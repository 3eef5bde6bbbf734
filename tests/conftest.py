import signal
from pathlib import Path

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"


@pytest.fixture(scope="session")
def shared_corpora() -> Path:
    """The development corpora beside the checkout; tests that need them skip without."""
    if not SHARED_CORPORA.is_dir():
        pytest.skip(f"no development corpora at {SHARED_CORPORA}")
    return SHARED_CORPORA
