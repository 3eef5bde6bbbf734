import pytest
import torch

from espnet_mlma.errors import MlmaError

pytest.importorskip("transformers")

from transformers import EncoderNoRepeatNGramLogitsProcessor

from espnet_mlma.sst.config import TurnDecoding
from espnet_mlma.sst.llm.cache import SlidingCache
from espnet_mlma.sst.llm.dialogue import NO_TARGET, Dialogue, Tokens
from espnet_mlma.sst.llm.generate import BeamTree, Conversation, Penalties, clean, search
from espnet_mlma.sst.llm.model import LanguageModel

HIDDEN = 32
END = 2


@pytest.fixture(scope="module")
def llm(make_model, chatml_tokenizer) -> LanguageModel:
    """Make an untrained model that often ends a turn, sometimes at once."""
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[END] = model.lm_head.weight[5:40].mean(0) * 8
    return LanguageModel(model, chatml_tokenizer)


@pytest.fixture(scope="module")
def dialogue(chatml_tokenizer) -> Dialogue:
    return Dialogue(chatml_tokenizer)


def speech(turns: int, seed: int = 0, chunks: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(0.5 * torch.randn(turns, 12 * chunks, HIDDEN, generator=generator))


def searched(llm, prompt: list[int], recent: list[int], decoding: TurnDecoding, limit: int):
    """Return the tokens that our search finds after a prompt of text."""
    cache = SlidingCache(llm.rotation, 1, 2)
    with torch.no_grad():
        logits = llm.model(input_ids=torch.tensor([prompt]), past_key_values=cache).logits[:, -1]
        penalties = Penalties(decoding, prompt, recent, END)
        return search(BeamTree(llm, cache), logits, penalties, decoding, END, limit).ids


@pytest.mark.parametrize(
    "options",
    [
        {"beams": 4},
        {"beams": 4, "repetition_penalty": 1.0, "no_repeat_ngram": 0},
        {"beams": 3, "no_repeat_ngram": 2, "length_penalty": 0.5},
        {"beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram": 2},
    ],
)
@pytest.mark.slow
def test_search_equals_transformers(llm, options):
    decoding = TurnDecoding(**options)
    size = decoding.no_repeat_ngram
    lengths = set()
    for seed in range(12):
        torch.manual_seed(seed)
        prompt, recent = torch.randint(3, 400, (8,)).tolist(), torch.randint(3, 400, (60,))
        # Most likely tokens are among the recent ones.
        recent = (recent % 20 + 3).tolist()
        expected = llm.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, 8),
            do_sample=False,
            num_beams=decoding.beams,
            repetition_penalty=decoding.repetition_penalty,
            no_repeat_ngram_size=size,
            length_penalty=decoding.length_penalty,
            max_new_tokens=20,
            eos_token_id=END,
            pad_token_id=0,
            logits_processor=[EncoderNoRepeatNGramLogitsProcessor(size, torch.tensor([recent]))]
            if size
            else [],
        )[0, 8:].tolist()
        found = searched(llm, prompt, recent, decoding, 20)
        assert found == expected
        lengths.add(len(found))
    assert len(lengths) > 2


def test_one_beam_equals_greedy_search(llm, dialogue):
    """Compare with a loop without cache and beams, and with its own penalties."""
    decoding = TurnDecoding(beams=1, no_repeat_ngram=2, lookback=10)
    conversation = Conversation(llm, dialogue, decoding)
    fed, earlier_turns, places = [], [], []
    for number, vectors in enumerate(speech(12)):
        found = conversation.translate(vectors)
        new = dialogue.next_turn(12) if number else dialogue.first_turn(12)
        fed += new.ids.tolist()
        places += new.is_speech.tolist()
        turn_start, text = len(fed) - len(new.ids), []
        vectors_so_far = torch.cat(speech(12)[: number + 1])
        while len(text) < 10:
            is_speech = torch.tensor(places + [False] * len(text))
            tokens = Tokens(torch.tensor(fed + text), is_speech)
            with torch.no_grad():
                embedded = llm.embed(tokens, vectors_so_far)[None]
                scores = llm.model(inputs_embeds=embedded).logits[0, -1].log_softmax(0)
            visible = [
                token
                for token, is_vector in zip(fed[turn_start:], places[turn_start:], strict=True)
                if not is_vector
            ]
            for token in set(visible + text):
                scores[token] *= 1.2
            for earlier in (visible[-1:] + text, earlier_turns[-10:]):
                for before, after in zip(earlier, earlier[1:], strict=False):
                    if before == (visible + text)[-1]:
                        scores[after] = -torch.inf
            token = int(scores.argmax())
            if token == END:
                break
            text.append(token)
        assert list(found.ids) == text
        assert found.is_complete == (len(text) < 10)
        fed += text
        places += [False] * len(text)
        earlier_turns += text


@pytest.mark.parametrize("beams", [1, 4])
def test_cache_holds_exactly_the_dialogue(llm, dialogue, beams):
    """The end-of-turn token is missing; turns may have reached their maximum length."""
    conversation = Conversation(llm, dialogue, TurnDecoding(beams=beams))
    turns = [conversation.translate(vectors) for vectors in speech(14)]
    assert {turn.is_complete for turn in turns} == {True, False}
    assert any(turn.is_complete and not turn.ids for turn in turns)
    assert all(len(turn.ids) == 10 for turn in turns if not turn.is_complete)
    ids, places = [], []
    for number, turn in enumerate(turns):
        new = dialogue.next_turn(12) if number else dialogue.first_turn(12)
        ids += new.ids.tolist() + list(turn.ids)
        places += new.is_speech.tolist() + [False] * len(turn.ids)
    whole = SlidingCache(llm.rotation, 1, 2)
    tokens = Tokens(torch.tensor(ids), torch.tensor(places))
    with torch.no_grad():
        embedded = llm.embed(tokens, torch.cat(speech(14)))[None]
        llm.model(inputs_embeds=embedded, past_key_values=whole)
    for ours, expected in zip(conversation.cache.layers, whole.layers, strict=True):
        # Rounding over 400 tokens reaches 2.4e-5 on some CPUs.
        torch.testing.assert_close(ours.keys, expected.keys, rtol=0, atol=4e-5)
        torch.testing.assert_close(ours.values, expected.values, rtol=0, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("style", ["chatml", "llama3"])
def test_turns_equal_one_pass_over_the_example(make_model, request, style):
    tokenizer = request.getfixturevalue(f"{style}_tokenizer")
    llm, dialogue = LanguageModel(make_model("Llama"), tokenizer), Dialogue(tokenizer)
    texts = ["Guten Morgen", "", "meine Damen", "", "", "Tag."]
    example = dialogue.example(texts, 24)
    embedded = llm.embed(example, torch.cat(speech(6, chunks=2)))[None]
    whole = llm.model(inputs_embeds=embedded).logits[0].log_softmax(-1)
    targets = example.labels != NO_TARGET
    expected = whole[targets.roll(-1)][: -0 or None]

    cache = SlidingCache(llm.rotation, len(dialogue.prompt_ids), len(dialogue.closing_ids))
    found = []
    for number, (text, vectors) in enumerate(zip(texts, speech(6, chunks=2), strict=True)):
        write = dialogue.next_turn if number else dialogue.first_turn
        answer = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids).long()
        turn = llm.model(
            inputs_embeds=llm.embed(write(24), vectors)[None], past_key_values=cache
        ).logits[0, -1:]
        found.append(turn)
        for token in answer:
            found.append(llm.model(token.view(1, 1), past_key_values=cache).logits[0])
        assert cache.end_turn() == 0
    found = torch.cat(found).log_softmax(-1)
    assert len(found) == int(targets.sum())
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_oldest_remaining_turn_follows_the_prompt(llm, dialogue):
    """The first layer's values depend only on their tokens, so they identify the tokens."""
    conversation = Conversation(llm, dialogue, TurnDecoding(max_tokens=150))
    turns = [conversation.translate(vectors) for vectors in speech(20)]
    assert sum(turn.evicted > 0 for turn in turns) > 5
    tail = dialogue.closing_ids
    for kept in range(1, len(turns)):
        ids, places = list(dialogue.prompt_ids), [False] * len(dialogue.prompt_ids)
        for number, turn in enumerate(turns[-kept:]):
            new = dialogue.next_turn(12)
            start = 0 if number else len(tail)
            ids += new.ids[start:].tolist() + list(turn.ids)
            places += new.is_speech[start:].tolist() + [False] * len(turn.ids)
        if len(ids) == conversation.cache.get_seq_length():
            break
    tokens = Tokens(torch.tensor(ids), torch.tensor(places))
    alone = SlidingCache(llm.rotation, 1, 2)
    with torch.no_grad():
        embedded = llm.embed(tokens, torch.cat(speech(20)[-kept:]))[None]
        llm.model(inputs_embeds=embedded, past_key_values=alone)
    torch.testing.assert_close(
        conversation.cache.layers[0].values, alone.layers[0].values, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("beams", [1, 4])
def test_repeated_talk_after_reset_is_the_same(llm, dialogue, beams):
    decoding = TurnDecoding(beams=beams, max_tokens=150, keep_tokens=100)
    conversation = Conversation(llm, dialogue, decoding)
    first = [conversation.translate(vectors) for vectors in speech(20)]
    assert any(turn.evicted for turn in first)
    conversation.reset()
    assert [conversation.translate(vectors) for vectors in speech(20)] == first
    assert [Conversation(llm, dialogue, decoding).translate(speech(1)[0])] == first[:1]


def test_memory_of_a_talk_is_constant(llm, dialogue):
    conversation = Conversation(llm, dialogue, TurnDecoding(max_tokens=200))
    sizes = []
    for vectors in speech(40):
        conversation.translate(vectors)
        sizes.append(conversation.cache.nbytes)
    assert len(set(sizes[20:])) == 1


def test_maximum_tokens_grow_with_the_speech(llm, dialogue):
    lengths = {}
    for chunks in (1, 3):
        turns = [Conversation(llm, dialogue).translate(v) for v in speech(8, 3, chunks)]
        lengths[chunks] = {len(turn.ids) for turn in turns if not turn.is_complete}
    assert lengths == {1: {10}, 3: {30}}


def test_penalties_by_hand(llm):
    log_probs = torch.log_softmax(torch.randn(2, 10), -1)
    fed, texts = [1, 2, -1, -1, 3], [[4, 5, 4], [6]]
    plain = TurnDecoding(repetition_penalty=1.2, no_repeat_ngram=2)
    found = Penalties(plain, fed, [6, 7], END)(log_probs, texts)
    expected = log_probs.clone()
    expected[0, [1, 2, 3, 4, 5]] *= 1.2
    expected[1, [1, 2, 3, 6]] *= 1.2
    expected[0, 5] = -torch.inf  # repeats 4 5 of this turn
    expected[1, 7] = -torch.inf  # repeats 6 7 of an earlier turn
    assert found.equal(expected)
    spared = Penalties(TurnDecoding(no_repeat_ngram=2, penalize_eos=False), fed, [6, 7], END)
    expected[:, END] = log_probs[:, END]
    assert spared(log_probs, texts).equal(expected)


def test_clean_removes_brackets_and_double_quotes():
    assert clean(' „Guten“ (lacht) “Tag”（笑）"! \ufffd') == "„Guten lacht Tag笑!"


@pytest.mark.parametrize("vectors", [0, 13])
def test_partial_chunks_are_refused(llm, dialogue, vectors):
    with pytest.raises(MlmaError, match=f"{vectors} vectors"):
        Conversation(llm, dialogue).translate(torch.zeros(vectors, HIDDEN))
