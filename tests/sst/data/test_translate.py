"""Tests of translation, and of resuming an interrupted stage."""

import json
import os
import shutil
import sys
import threading
from argparse import ArgumentParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from espnet_mlma.claims import claim
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data import synthesis, translate
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.shards import Shard, read_report, read_sentences, write_shard


def sentence(recording, number, text=None):
    return Sentence(
        id=f"{recording}-{number:03d}",
        recording=recording,
        audio="a.flac",
        offset=0.0,
        start=float(number),
        end=number + 1.0,
        speaker="s",
        text=text or f"text {number} of {recording}",
    )


class Server:
    """Serve HTTP like vLLM does, and stop answering after some requests."""

    def __init__(
        self,
        lives: int = 10**9,
        status: int | None = None,
        models: tuple[str, ...] = ("qwen",),
    ):
        self.asked: list[dict] = []
        self.answered = 0
        self.lives, self.status = lives, status
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._send(200, {"data": [{"id": name} for name in models]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.asked.append(body)
                    if outer.lives == 0:
                        self.connection.close()  # like a killed process
                        return
                    if outer.status is not None:
                        self._send(outer.status, {"error": "no such model"})
                        outer.status = None
                        return
                    outer.lives -= 1
                    outer.answered += 1
                self._send(200, outer.answer(body["messages"][1]["content"]))

            def _send(self, status, content):
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @staticmethod
    def answer(prompt: str) -> dict:
        text = prompt.split("|Sentence to Translate|\n")[1].split("\n|End")[0]
        reason = "length" if "endless" in text else "stop"
        content = "" if "mute" in text else f" Auf  Deutsch:\n{text} "
        return {"choices": [{"message": {"content": content}, "finish_reason": reason}]}

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve():
    servers = []

    pytest.importorskip("openai")

    def start(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Retry without pauses."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def run(tmp_path, *options, out="de.jsonl"):
    parser = ArgumentParser()
    translate.add_arguments(parser)
    needed = ["--sentences", tmp_path / "sentences.jsonl", "--out", tmp_path / out]
    args = parser.parse_args(list(map(str, [*needed, "--target", "de", *options])))
    translate.run(args)
    return read_sentences(tmp_path / out) if args.shard.count == 1 else None


@pytest.fixture
def forty(tmp_path):
    rows = [sentence(recording, i) for recording in ("a", "b") for i in range(20)]
    write_shard(tmp_path / "sentences.jsonl", rows, "recordings", "key", {}, 40.0)
    return rows


def test_prompt_equals_the_papers():
    system, user = translate.messages("Good morning.", ["One.", "Two."], "zh")
    assert system == {"role": "system", "content": "You are a professional translator."}
    assert user["role"] == "user"
    assert user["content"] == (
        "Given an English sentence along with its preceding sentences, translate the given "
        "sentence into Chinese. Do not include any other text.\n\n"
        "|Preceding Sentences|\nOne.\nTwo.\n|End of Preceding Sentences|\n\n"
        "|Sentence to Translate|\nGood morning.\n|End of Sentence to Translate|"
    )


def test_preceding_texts_are_up_to_three_of_the_same_recording():
    rows = [sentence("a", 0), sentence("b", 0), *(sentence("a", i) for i in range(1, 6))]
    before = translate.preceding_texts(rows)
    assert before["a-000"] == before["b-000"] == []
    assert before["a-002"] == ["text 0 of a", "text 1 of a"]
    assert before["a-005"] == [f"text {i} of a" for i in (2, 3, 4)]
    assert set(map(len, translate.preceding_texts(rows, 0).values())) == {0}


def test_server_translates_all_sentences(tmp_path, forty, serve):
    server = serve()
    found = run(tmp_path, "--server", server.url, "--batch_size", 8)
    assert [s.id for s in found] == [s.id for s in forty]
    assert [s.translation for s in found] == [f"Auf Deutsch: {s.text}" for s in forty]
    assert len(server.asked) == 40
    assert {body["model"] for body in server.asked} == {"qwen"}
    assert {body["temperature"] for body in server.asked} == {0}
    # A finished stage makes no requests.
    server.stop()
    assert run(tmp_path, "--server", server.url, "--batch_size", 8) == found


def test_stage_resumes_after_the_server_died(tmp_path, forty, serve):
    dying = serve(lives=17)
    with pytest.raises(MlmaError, match="no answer .* 3 times") as caught:
        run(tmp_path, "--server", dying.url, "--retries", 2, "--batch_size", 4, "--model", "qwen")
    assert "17 finished sentences" in str(caught.value)
    assert not (tmp_path / "de.jsonl").exists()
    # The server restarts elsewhere; the same command resumes.
    second = serve()
    found = run(
        tmp_path, "--server", second.url, "--retries", 2, "--batch_size", 4, "--model", "qwen"
    )
    assert [s.id for s in found] == [s.id for s in forty]
    assert all(s.translation == f"Auf Deutsch: {s.text}" for s in found)
    assert dying.answered + second.answered == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "de.jsonl",
        "de.report.json",
        "sentences.jsonl",
        "sentences.report.json",
    ]


def test_incomplete_line_of_the_journal_is_repeated(tmp_path, forty, serve, capsys):
    dying = serve(lives=10)
    with pytest.raises(MlmaError):
        run(tmp_path, "--server", dying.url, "--retries", 1, "--model", "m", "--batch_size", 1)
    journal = tmp_path / "de.journal"
    journal.write_text(journal.read_text()[:-25])
    server = serve()
    found = run(tmp_path, "--server", server.url, "--model", "m", "--batch_size", 1)
    assert [s.id for s in found] == [s.id for s in forty]
    assert server.answered == 31
    assert "1 broken lines" in capsys.readouterr().err


def test_changed_options_start_over(tmp_path, forty, serve):
    dying = serve(lives=10)
    with pytest.raises(MlmaError):
        run(tmp_path, "--server", dying.url, "--retries", 1, "--model", "m", "--batch_size", 1)
    server = serve()
    run(tmp_path, "--server", server.url, "--model", "another")
    assert server.answered == 40


def test_damaged_shard_is_translated_again(tmp_path, forty, serve):
    server = serve()
    found = run(tmp_path, "--server", server.url)
    (tmp_path / "de.jsonl").write_text("".join((tmp_path / "de.jsonl").read_text()[:500]))
    assert run(tmp_path, "--server", server.url) == found
    assert server.answered == 80


def test_only_temporary_errors_are_retried(tmp_path, forty, serve):
    busy = serve(status=503)
    assert len(run(tmp_path, "--server", busy.url, "--batch_size", 1)) == 40
    assert len(busy.asked) == 41
    wrong = serve(status=404)
    with pytest.raises(MlmaError, match=r"HTTP 404 at a-000: .*no such model"):
        run(tmp_path, "--server", wrong.url, "--batch_size", 1, "--model", "x", out="x.jsonl")
    assert len(wrong.asked) == 1


def test_long_and_empty_translations_are_counted(tmp_path, serve):
    rows = [sentence("a", i, text) for i, text in enumerate(("endless", "mute", "good"))]
    write_shard(tmp_path / "sentences.jsonl", rows, "recordings", "key", {}, 3.0)
    found = run(tmp_path, "--server", serve().url)
    assert [s.dropped for s in found] == ["translation_too_long", "empty_translation", None]
    report = read_report(tmp_path / "de.jsonl")
    assert report.dropped == {"translation_too_long": 1, "empty_translation": 1}
    assert report.seconds == 1.0


def test_shards_contain_all_sentences(tmp_path, serve):
    rows = [sentence(f"r{r}", i) for r in range(8) for i in range(3)]
    write_shard(tmp_path / "sentences.jsonl", rows, "recordings", "key", {}, 24.0)
    server = serve()
    for index in (1, 2, 3):
        run(tmp_path, "--server", server.url, "--shard", f"{index}/3")
        if index == 2:  # the next stage can start before the other shards
            parser = ArgumentParser()
            translate.add_arguments(parser)
            options = ["--sentences", tmp_path / "de.jsonl", "--out", tmp_path / "next.jsonl"]
            options += ["--target", "de", "--command", "cat", "--shard", "2/3"]
            translate.run(parser.parse_args(list(map(str, options))))
            ids = [s.id for s in read_sentences(tmp_path / "next.2of3.jsonl")]
            assert ids == [s.id for s in rows if Shard(2, 3).contains(s.recording)] != []
    found = read_sentences(tmp_path / "de.jsonl")
    assert sorted(s.id for s in found) == [s.id for s in rows]
    assert server.answered == 24


def test_two_processes_cannot_write_the_same_shard(tmp_path, forty):
    message = rf"de\.jsonl: process {os.getpid()} on .* writes this shard already"
    with (
        claim(tmp_path / "de.jsonl", "writes this shard"),
        pytest.raises(MlmaError, match=message),
    ):
        run(tmp_path, "--command", "cat")


def test_server_with_several_models_needs_a_name(tmp_path, forty, serve):
    with pytest.raises(MlmaError, match=r"2 models \(a b\); give --model"):
        run(tmp_path, "--server", serve(models=("a", "b")).url)


def test_table(tmp_path, forty):
    lines = [f"{s.id}\tauf Deutsch {s.id}\n" for s in forty[:-1]]
    (tmp_path / "de.tsv").write_text("".join(lines))
    found = run(tmp_path, "--table", tmp_path / "de.tsv")
    assert [s.translation for s in found[:-1]] == [f"auf Deutsch {s.id}" for s in forty[:-1]]
    assert found[-1].dropped == "not_in_table"


def test_command(tmp_path, forty):
    upper = f"{sys.executable} -c 'import sys; sys.stdout.write(sys.stdin.read().upper())'"
    found = run(tmp_path, "--command", upper, "--batch_size", 7)
    assert [s.translation for s in found] == [s.text.upper() for s in forty]
    for command, expected in (
        ("no-such-program", "No such file"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "exit status 3"),
        ("head -n 3", "3 lines for 7 sentences"),
    ):
        with pytest.raises(MlmaError, match=expected):
            run(tmp_path, "--command", command, "--batch_size", 7, out="bad.jsonl")


@pytest.mark.skipif(shutil.which("apertium") is None, reason="no apertium")
def test_apertium(tmp_path):
    rows = [sentence("a", 0, "the red house"), sentence("a", 1, "i read a book")]
    write_shard(tmp_path / "sentences.jsonl", rows, "recordings", "key", {}, 2.0)
    found = run(tmp_path, "--command", "apertium -f line -u eng-spa")
    assert found[0].translation.lower() == "la casa roja"
    assert "libro" in found[1].translation


def test_local_model(tmp_path, forty, make_model, make_tokenizer):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], template)
    tokenizer.eos_token = "<|im_end|>"
    model = make_model(eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"))
    tokenizer.save_pretrained(tmp_path / "llm")
    model.save_pretrained(tmp_path / "llm")
    options = ("--local", tmp_path / "llm", "--max_tokens", 4)
    alone = run(tmp_path, *options, "--batch_size", 1)
    together = run(tmp_path, *options, "--batch_size", 8, out="together.jsonl")
    # Padding in a batch has no effect.
    assert [(s.id, s.translation, s.dropped) for s in together] == [
        (s.id, s.translation, s.dropped) for s in alone
    ]
    assert all(s.translation or s.dropped for s in alone)


def test_key_depends_on_the_shard(tmp_path, forty):
    jobs = [
        synthesis.Job("s", tmp_path / "sentences.jsonl", tmp_path / "o.jsonl", shard, {})
        for shard in (Shard(1, 2), Shard(2, 2))
    ]
    assert jobs[0].key() != jobs[1].key()
    assert jobs[0].file.name == "o.1of2.jsonl"
