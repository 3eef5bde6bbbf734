import pytest

from espnet_mlma.errors import MlmaError

pytest.importorskip("transformers")

from espnet_mlma.sst.llm.dialogue import NO_TARGET, Dialogue, system_prompt

TEXTS = ["Guten Morgen,", "", "meine Damen und Herren.", "", "", "Schön"]
VECTORS = 24


@pytest.fixture(params=["chatml", "llama3", "smollm2"])
def tokenizer(request):
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2").tokenizer
    return request.getfixturevalue(f"{request.param}_tokenizer")


def template_ids(tokenizer, texts) -> list[int]:
    """Return the dialogue by the tokenizer's chat template, without speech."""
    messages = [{"role": "system", "content": system_prompt("English", "German")}]
    for text in texts:
        messages.append({"role": "user", "content": ""})
        messages.append({"role": "assistant", "content": text})
    written = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer(written, add_special_tokens=False).input_ids


def test_example_equals_the_chat_template(tokenizer):
    dialogue = Dialogue(tokenizer)
    example = dialogue.example(TEXTS, VECTORS)
    after_last = dialogue.closing_ids[1:]
    assert example.ids[~example.is_speech].tolist() + after_last == template_ids(tokenizer, TEXTS)
    assert int(example.is_speech.sum()) == VECTORS * len(TEXTS)


def test_user_messages_consist_of_speech(tokenizer):
    dialogue = Dialogue(tokenizer)
    for tokens in (dialogue.first_turn(VECTORS), dialogue.next_turn(VECTORS)):
        places = tokens.is_speech.nonzero().flatten().tolist()
        assert places == list(range(places[0], places[0] + VECTORS))
        before = tokenizer.decode(tokens.ids[: places[0]])
        after = tokenizer.decode(tokens.ids[places[-1] + 1 :])
        assert before.rstrip("\n").endswith(("<|im_start|>user", "user<|end_header_id|>"))
        assert after.startswith(tokenizer.decode(dialogue.closing_ids))


def test_targets_are_texts_and_end_tokens(tokenizer):
    dialogue = Dialogue(tokenizer)
    example = dialogue.example(TEXTS, VECTORS)
    is_target = example.labels != NO_TARGET
    wanted = []
    for text in TEXTS:
        wanted += tokenizer(text, add_special_tokens=False).input_ids + [dialogue.end_id]
    assert example.labels[is_target].tolist() == wanted
    assert (example.labels == example.ids)[is_target].all()
    assert not (is_target & example.is_speech).any()


def test_turns_and_answers_equal_the_example(tokenizer):
    dialogue = Dialogue(tokenizer)
    ids = dialogue.first_turn(VECTORS).ids.tolist()
    for number, text in enumerate(TEXTS):
        ids += dialogue.next_turn(VECTORS).ids.tolist() if number else []
        ids += tokenizer(text, add_special_tokens=False).input_ids
    ids.append(dialogue.end_id)
    assert ids == dialogue.example(TEXTS, VECTORS).ids.tolist()


def test_overhead_of_a_turn_is_ten_tokens(chatml_tokenizer):
    # "user" and "assistant" are one token each, as in Qwen's vocabulary.
    assert len(Dialogue(chatml_tokenizer).next_turn(12).ids) == 22
    assert len(Dialogue(chatml_tokenizer).next_turn(36).ids) == 46


def test_special_tokens_in_texts_are_plain_text(tokenizer):
    dialogue = Dialogue(tokenizer)
    mark = tokenizer.decode([dialogue.end_id])
    example = dialogue.example([f"a {mark} b"], 12)
    assert (example.labels == dialogue.end_id).sum() == 1


def test_surrounding_spaces_are_removed(chatml_tokenizer):
    dialogue = Dialogue(chatml_tokenizer)
    plain, spaced = dialogue.example(["", "ein Tag"], 12), dialogue.example([" ", "ein Tag "], 12)
    assert plain.ids.equal(spaced.ids)


def test_prompt_of_infinisst_states_the_multiplier(chatml_tokenizer):
    dialogue = Dialogue(chatml_tokenizer, "English", "Chinese", multiplier=3)
    written = chatml_tokenizer.decode(dialogue.prompt_ids)
    assert "from English to Chinese with latency <latency_3>." in written
    chatml_tokenizer.add_tokens(["<latency_4>"], special_tokens=True)
    ids = Dialogue(chatml_tokenizer, multiplier=4).prompt_ids
    assert chatml_tokenizer.convert_tokens_to_ids("<latency_4>") in ids


def test_tokenizer_of_another_format_is_refused(make_tokenizer):
    with pytest.raises(MlmaError, match="neither the special tokens of ChatML"):
        Dialogue(make_tokenizer(["<|im_start|>"], ""))
