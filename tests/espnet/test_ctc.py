"""`mlma_ctc`: ESPnet's model without its options, their definitions with them."""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from espnet2.asr.specaug.specaug import SpecAug
from espnet2.tasks.asr import ASRTask
from espnet2.text.build_tokenizer import build_tokenizer

import espnet_mlma
from espnet_mlma.data.tokens import write_tokens
from espnet_mlma.espnet.objectives import TwoViews, consistency_loss

TOKENS = ["<blank>", "<unk>", "<en>", "<it>", "<space>", *"abcdefgh", "<sos/eos>"]
SPECAUG = {
    "apply_time_warp": True,
    "time_warp_window": 5,
    "freq_mask_width_range": [0, 10],
    "num_freq_mask": 2,
    "time_mask_width_ratio_range": [0.0, 0.1],
    "num_time_mask": 3,
}
LENGTHS = torch.tensor([16000, 12345, 9000])
TEXT = torch.tensor([[2, 5, 6, 7, 4, 8], [3, 5, 5, 9, -1, -1], [2, 10, -1, -1, -1, -1]])
TEXT_LENGTHS = torch.tensor([6, 4, 2])


def build(
    model: str,
    encoder: str = "conmamba",
    specaug: bool = True,
    encoder_conf=(),
    token_list=TOKENS,
    **conf,
):
    arguments = vars(ASRTask.get_parser().parse_args(["--output_dir", "unused"]))
    sizes = {"output_size": 16, "num_blocks": 3, "linear_units": 32}
    torch.manual_seed(0)
    return ASRTask.build_model(
        Namespace(
            **arguments
            | {
                "model": model,
                "model_conf": {"ctc_weight": 1.0} | conf,
                "encoder": encoder,
                "encoder_conf": sizes | {"dropout_rate": 0.0} | dict(encoder_conf),
                "specaug": "specaug" if specaug else None,
                "specaug_conf": SPECAUG if specaug else {},
                "token_list": token_list,
                "token_type": "char",
                "frontend_conf": {"fs": "16k", "hop_length": 160, "center": False},
                "normalize": None,
            }
        )
    )


@pytest.fixture(scope="module")
def speech():
    torch.manual_seed(1)
    rows = torch.randn(3, int(LENGTHS.max())) * 0.1
    return rows.masked_fill(torch.arange(rows.size(1)) >= LENGTHS[:, None], 0)


def run(model, speech, seed=2):
    torch.manual_seed(seed)
    return model(speech, LENGTHS, TEXT.clone(), TEXT_LENGTHS)


WITH_HEADS = {"interctc_layer_idx": [1, 2], "interctc_use_conditioning": True}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("heads", [False, True])
def test_without_options_it_equals_espnets_model(speech, training, heads):
    options = {"encoder_conf": WITH_HEADS if heads else {}, "interctc_weight": 0.3 * heads}
    models = [build(name, **options).train(training) for name in ("espnet", "mlma_ctc")]
    (loss, stats, weight), (ours, our_stats, our_weight) = (run(m, speech) for m in models)
    torch.testing.assert_close(ours, loss)
    assert our_weight == weight
    for name, value in stats.items():
        if value is not None and name not in ("acc", "cer", "wer", "loss_att"):
            torch.testing.assert_close(our_stats[name], value)


def test_consistency_is_the_two_divergences():
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 7, 5).log_softmax(-1)
    lengths = torch.tensor([7, 4])
    expected = 0.0
    for row, n in enumerate(lengths):
        for one, other in ((a, b), (b, a)):
            target, log_probs = other[row, :n], one[row, :n]
            expected += F.kl_div(log_probs, target, reduction="sum", log_target=True) / 4
    found = consistency_loss(torch.cat([a, b]), lengths.repeat(2))
    torch.testing.assert_close(found, expected)
    assert consistency_loss(torch.cat([a, a]), lengths.repeat(2)) == 0


def test_the_target_of_each_view_is_fixed():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, requires_grad=True)
    lengths = torch.tensor([3, 2])
    lengths_of_pair = lengths[:1].repeat(2)
    consistency_loss(logits.log_softmax(-1), lengths_of_pair).backward()
    # The gradient of KL(target || softmax) is softmax - target, halved by the mean of two rows.
    probs = logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, (probs - probs.flip(0)) / 2)


def test_views_share_the_warp_but_not_the_masks():
    torch.manual_seed(0)
    features = torch.rand(2, 60, 80) + 1
    views, _ = TwoViews(SpecAug(**SPECAUG))(features.repeat(2, 1, 1), torch.full((4,), 60))
    assert views.shape == (4, 60, 80)
    first, second = views[:2], views[2:]
    seen = (first != 0) & (second != 0)
    assert seen.any() and torch.equal(first[seen], second[seen])
    assert ((first == 0) != (second == 0)).any()
    assert not torch.equal(first[seen], features[seen])


@pytest.mark.parametrize("heads", [False, True])
def test_loss_is_the_sum_of_its_parts(speech, heads):
    options = {"encoder_conf": WITH_HEADS if heads else {}, "interctc_weight": 0.3 * heads}
    model = build("mlma_ctc", cr_ctc_weight=0.2, **options).train()
    loss, stats, weight = run(model, speech)
    inner = [stats[f"loss_interctc_layer{n}"] for n in (1, 2) if heads]
    ctc = stats["loss_ctc"]
    if heads:
        ctc = 0.7 * ctc + 0.3 * torch.stack(inner).mean()
    torch.testing.assert_close(loss, ctc + 0.2 * stats["loss_cr"])
    assert weight == 3 and stats["loss_cr"] > 0
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_evaluation_has_one_view(speech):
    model, plain = build("mlma_ctc", cr_ctc_weight=0.2).eval(), build("espnet").eval()
    loss, stats, _ = run(model, speech)
    torch.testing.assert_close(loss, run(plain, speech)[0])
    assert "loss_cr" not in stats


@pytest.mark.parametrize("encoder", ["conmamba", "conformer"])
def test_the_loss_falls_with_autocast_accumulation_and_skipped_blocks(speech, encoder):
    rates = {"stochastic_depth_rate": 0.1} | WITH_HEADS
    model = build(
        "mlma_ctc", encoder, encoder_conf=rates, interctc_weight=0.3, cr_ctc_weight=0.2
    ).train()
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(12):
        for half in (slice(0, 2), slice(2, 3)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, _, _ = model(
                    speech[half], LENGTHS[half], TEXT[half].clone(), TEXT_LENGTHS[half]
                )
            (loss / 2).backward()
            losses.append(loss.item())
        optimiser.step()
        optimiser.zero_grad()
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_language_layers_predict_only_the_language(speech):
    model = build(
        "mlma_ctc", encoder_conf=WITH_HEADS, interctc_weight=0.3, language_layers=[1]
    ).eval()
    _, stats, _ = run(model, speech)
    encoded, lengths = model.encode(speech, LENGTHS)
    (_, lower), (_, upper) = encoded[1]
    one = torch.ones(3, dtype=torch.long)
    lower = model.ctc(lower, lengths, TEXT[:, :1], one)
    upper = model.ctc(upper, lengths, TEXT, TEXT_LENGTHS)
    torch.testing.assert_close(stats["loss_interctc_layer1"][0], lower.detach())
    torch.testing.assert_close(stats["loss_interctc_layer2"][0], upper.detach())


def test_the_language_can_be_left_out_of_the_text(speech):
    model = build(
        "mlma_ctc",
        encoder_conf=WITH_HEADS,
        interctc_weight=0.3,
        language_layers=[1],
        language_in_text=False,
    ).eval()
    _, stats, _ = run(model, speech)
    encoded, lengths = model.encode(speech, LENGTHS)
    lower = model.ctc(encoded[1][0][1], lengths, TEXT[:, :1], torch.ones(3, dtype=torch.long))
    # The space after the language token is removed too.
    text = torch.tensor([[5, 6, 7, 4, 8], [5, 5, 9, -1, -1], [10, -1, -1, -1, -1]])
    top = model.ctc(encoded[0], lengths, text, torch.tensor([5, 3, 1]))
    torch.testing.assert_close(stats["loss_interctc_layer1"][0], lower.detach())
    torch.testing.assert_close(stats["loss_ctc"][0], top.detach())
    assert "acc_language" not in stats and "acc_language_layer1" in stats
    # Errors are counted on the words only, in short texts too.
    assert model._targets(TEXT, TEXT_LENGTHS)[1].tolist() == text.tolist()


def test_a_language_token_is_found_after_a_word_mark(tmp_path):
    """SentencePiece puts the mark there; ESPnet's tokeniser keeps it."""
    texts = [f"<{lang}> {text}" for lang in ("en", "it") for text in ("ciao mondo", "an old cab")]
    write_tokens(tmp_path / "bpe", texts * 5, "bpe", 24, "bpe")
    tokens = (tmp_path / "bpe" / "tokens.txt").read_text().split()
    written = build_tokenizer("bpe", bpemodel=tmp_path / "bpe" / "bpe.model").text2tokens(texts[2])
    assert written[:2] == ["▁", "<it>"]
    model = build(
        "mlma_ctc",
        encoder_conf=WITH_HEADS,
        token_list=tokens,
        interctc_weight=0.3,
        language_layers=[1],
        language_in_text=False,
    )
    ids = [tokens.index(token) for token in written]
    text = torch.tensor([ids + [-1], [*ids, ids[-1]]])
    language, rest, lengths = model._targets(text, torch.tensor([len(ids), len(ids) + 1]))
    assert language.tolist() == [[tokens.index("<it>")]] * 2
    assert lengths.tolist() == [len(ids) - 2, len(ids) - 1]
    assert rest.tolist() == [[*ids[2:], -1], [*ids[2:], ids[-1]]]


def test_language_accuracy_uses_the_best_frame(speech):
    model = build("mlma_ctc", encoder_conf=WITH_HEADS, interctc_weight=0.3, language_layers=[1])
    model.eval()
    for token, share in ((2, 2 / 3), (3, 1 / 3)):
        with torch.no_grad():
            model.ctc.ctc_lo.bias.zero_()
            model.ctc.ctc_lo.bias[token] = 100.0
        _, stats, _ = run(model, speech)
        for name in ("acc_language", "acc_language_layer1"):
            assert stats[name].item() == pytest.approx(share)


@pytest.mark.parametrize(
    "options, wrong",
    [
        ({"cr_ctc_weight": 0.2, "specaug": False}, "cr_ctc_weight"),
        ({"ctc_weight": 0.3}, "ctc_weight is 0.3"),
        ({"language_layers": [1]}, "interctc_layer_idx"),
        ({"language_layers": [1], "encoder_conf": WITH_HEADS}, "interctc_weight"),
        ({"aux_ctc": {"1": "x"}}, "aux_ctc"),
    ],
)
def test_contradicting_options_are_named(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        build("mlma_ctc", **options)


def test_trained_models_load(make_experiment):
    folder = make_experiment(
        ASRTask,
        model="mlma_ctc",
        model_conf={"ctc_weight": 1.0, "cr_ctc_weight": 0.2},
        specaug="specaug",
        specaug_conf=SPECAUG,
        encoder="conmamba",
        encoder_conf={"output_size": 16, "num_blocks": 2, "linear_units": 32},
        token_list=TOKENS,
        token_type="char",
        frontend_conf={"fs": "16k", "hop_length": 160, "center": False},
        normalize=None,
    )
    recogniser = espnet_mlma.load(folder, device="cpu")
    assert recogniser.transcribe(torch.zeros(16000)).duration == 1.0


def _train_one_step(rank: int, folder: str) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    encoder_conf = WITH_HEADS | {"stochastic_depth_rate": 0.5}
    model = build("mlma_ctc", encoder_conf=encoder_conf, interctc_weight=0.3, cr_ctc_weight=0.2)
    parallel = torch.nn.parallel.DistributedDataParallel(model.train())
    torch.manual_seed(rank)
    speech = torch.randn(3, int(LENGTHS.max())) * 0.1
    for _ in range(4):  # each batch skips other blocks
        parallel(speech, LENGTHS, TEXT.clone(), TEXT_LENGTHS)[0].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save(gradients, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_processes_share_their_gradients(tmp_path):
    torch.multiprocessing.spawn(_train_one_step, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(gradient is not None and gradient.isfinite().all() for gradient in first.values())
    torch.testing.assert_close(first, second)
    assert any(gradient.abs().max() > 0 for gradient in first.values())
