"""`preprocessor: non_speech`: silence and noise with empty texts in training."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.preprocessor import AbsPreprocessor

from espnet_mlma.data.corpora import non_speech
from espnet_mlma.decode.speech_guard import SpeechGuard
from espnet_mlma.errors import MlmaError

CONF = Path(__file__).resolve().parents[2] / "conf"
RATE = 16000
TOKENS = ["<blank>", "<unk>", "<it>", "<en>", "<space>", *"abc", "<sos/eos>"]


def preprocessor(train: bool = True, lang_tokens: bool = False, **options) -> AbsPreprocessor:
    """Build the preprocessor as the trainer does."""
    words = ["--output_dir", "unused", "--token_type", "char", "--preprocessor", "non_speech"]
    words += [w for item in options.items() for w in ("--preprocessor_conf", "{}={}".format(*item))]
    args = ASRTask.get_parser().parse_args(words)
    args.token_list = TOKENS
    args.non_linguistic_symbols = ["<it>", "<en>"] if lang_tokens else None
    return ASRTask.build_preprocess_fn(args, train)


def clip(text: str = "a b") -> dict:
    sound = 0.1 * np.sin(np.arange(RATE) / 20).astype(np.float32)
    return {"speech": sound, "text": text}


def test_the_options_set_the_shares():
    shares = {"quieter_prob": 0, "band_limited_prob": 0, "silence_prob": 0.5}
    read = preprocessor(non_speech_prob=0.2, **shares)
    plain = clip()["speech"]
    np.random.seed(0)
    clips = [read("a", clip()) for _ in range(400)]
    replaced = [one for one in clips if not len(one["text"])]
    assert 50 < len(replaced) < 110
    assert all(len(one["speech"]) == RATE and one["speech"].dtype == np.float32 for one in replaced)
    before = after = 0
    for one in clips:
        assert len(one["text"]) in (0, 3)
        if len(one["text"]):
            spoken = one["speech"]
            starts = np.flatnonzero(spoken == plain[1000]) - 1000
            place = next(i for i in starts if np.array_equal(spoken[i : i + RATE], plain))
            before += place > 0
            after += len(spoken) - place > RATE
            assert len(spoken) <= 3 * RATE
    assert 120 < before < 210 and 120 < after < 210


def test_some_clips_are_quieter():
    shares = {"non_speech_prob": 0, "band_limited_prob": 0, "silence_prob": 0}
    read = preprocessor(quieter_prob=0.4, quieter_decibels=20, **shares)
    np.random.seed(0)
    clips = [read("a", clip()) for _ in range(200)]
    gains = [20 * np.log10(np.abs(one["speech"]).max() / 0.1) for one in clips]
    assert all(len(one["text"]) == 3 and one["speech"].dtype == np.float32 for one in clips)
    assert -20 < min(gains) < -15 and max(gains) < 0.01
    assert 50 < sum(gain < -0.01 for gain in gains) < 110


def test_some_clips_lose_their_high_frequencies():
    read = preprocessor(non_speech_prob=0, quieter_prob=0, band_limited_prob=0.4, silence_prob=0)
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    np.random.seed(0)
    limited = 0
    for _ in range(200):
        sound = read("a", {"speech": noise, "text": "a b"})["speech"]
        assert len(sound) == RATE and sound.dtype == np.float32
        empty = np.flatnonzero(np.abs(np.fft.rfft(sound)) < 0.1)  # Hz: the clip lasts a second
        if len(empty) > 10:
            limited += 1
            assert empty[0] >= 3400 and len(empty) == RATE // 2 + 1 - empty[0]
    assert 50 < limited < 110


def test_a_clip_without_samples_is_unchanged():
    shares = {"non_speech_prob": 0, "quieter_prob": 1.0, "silence_prob": 0}
    read = preprocessor(band_limited_prob=1.0, **shares)
    assert len(read("a", {"speech": np.zeros(0, np.float32), "text": "a"})["speech"]) == 0


def test_the_same_seed_gives_the_same_clips():
    read = preprocessor(non_speech_prob=0.3, silence_prob=0.5)
    found = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        found.append(np.concatenate([read("a", clip())["speech"] for _ in range(20)]))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_validation_and_statistics_use_clips_unchanged():
    read = preprocessor(train=False, non_speech_prob=1.0, silence_prob=1.0)
    np.testing.assert_array_equal(read("a", clip())["speech"], clip()["speech"])
    assert len(read("a", clip())["text"]) == 3


def test_an_empty_text_has_no_language_token():
    read = preprocessor(lang_tokens=True, non_speech_prob=1.0)
    assert len(read("a", clip("<it> a b"))["text"]) == 0
    read = preprocessor(lang_tokens=True, non_speech_prob=0.0)
    assert TOKENS.index("<it>") in read("a", clip("<it> a b"))["text"]


@pytest.mark.parametrize(
    "option",
    [
        {"non_speech_prob": 1.5},
        {"silence_prob": -0.1},
        {"silence_seconds": -1},
        {"quieter_prob": 2},
        {"band_limited_prob": 2},
    ],
)
def test_an_option_out_of_range_is_named(option):
    with pytest.raises(MlmaError, match=f"preprocessor_conf: {next(iter(option))} is"):
        preprocessor(**option)


@pytest.mark.parametrize("path", sorted(CONF.glob("train_asr_*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_of_the_recipe_uses_it(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["preprocessor"] == "non_speech"


@pytest.mark.parametrize("samples", [0, 1, 79, 1000, 16000, 50_001])
def test_sounds_have_any_length_and_are_finite(samples):
    for seed in range(30):
        for make in (non_speech.draw, non_speech.background):
            sound = make(np.random.default_rng(seed), samples)
            assert sound.shape == (samples,) and sound.dtype == np.float32
            assert np.isfinite(sound).all() and np.abs(sound).max(initial=0) <= 1


def test_sounds_have_all_levels_and_some_change():
    sounds = [non_speech.draw(np.random.default_rng(seed), 2 * RATE) for seed in range(120)]
    levels = [20 * np.log10(np.sqrt(np.mean(sound**2)) + 1e-6) for sound in sounds]
    assert min(levels) < -90 and max(levels) > -20
    changing = sum(SpeechGuard.of(sound).has_speech(0.5, 1.5) for sound in sounds)
    assert 20 < changing < 100


def build(model: str, languages: bool = False, **conf) -> torch.nn.Module:
    words = ["--output_dir", "unused", "--token_type", "char", "--model", model]
    args = ASRTask.get_parser().parse_args(words)
    args.encoder, args.token_list = "conmamba", TOKENS if languages else [TOKENS[0], *TOKENS[4:]]
    args.encoder_conf = {"output_size": 16, "num_blocks": 2, "linear_units": 16}
    if conf.get("interctc_weight"):
        args.encoder_conf |= {"interctc_layer_idx": [1], "interctc_use_conditioning": True}
    args.model_conf = {"ctc_weight": 1.0} | conf
    args.frontend_conf = {"hop_length": 160, "center": False}
    args.specaug, args.specaug_conf = "clip_specaug", {}
    args.specaug_conf = {"time_mask_width_range": [0, 4], "freq_mask_width_range": [0, 4]}
    args.normalize = None
    torch.manual_seed(0)
    return ASRTask.build_model(args).train()


@pytest.mark.parametrize("lengths", [(3, 0, 2), (0, 0, 0)], ids=["some", "all"])
@pytest.mark.parametrize(
    ("model", "languages", "conf"),
    [
        ("espnet", False, {}),
        ("espnet", False, {"interctc_weight": 0.3}),
        ("mlma_ctc", False, {"cr_ctc_weight": 0.2}),
        ("mlma_ctc", True, {"interctc_weight": 0.3, "language_layers": [1]}),
        (
            "mlma_ctc",
            True,
            {"interctc_weight": 0.3, "language_layers": [1], "language_in_text": False},
        ),
    ],
)
def test_every_model_trains_on_a_batch_with_empty_texts(model, languages, conf, lengths):
    first = [TOKENS.index("<it>")] if languages else []
    texts = [np.array([*first, 2, 3, 2][:n] if n else [], dtype=np.int64) for n in lengths]
    rng = np.random.default_rng(0)
    data = [
        (str(i), {"speech": 0.1 * rng.standard_normal(RATE).astype(np.float32), "text": text})
        for i, text in enumerate(texts)
    ]
    _, batch = CommonCollateFn(int_pad_value=-1)(data)
    network = build(model, languages, **conf)
    loss, _, _ = network(**batch)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    if not any(lengths):
        # The blank becomes more probable, and all other symbols less.
        assert network.ctc.ctc_lo.bias.grad[0] < 0 < network.ctc.ctc_lo.bias.grad[2:].min()
    network.eval()
    with torch.no_grad():
        assert torch.isfinite(network(**batch)[0])
