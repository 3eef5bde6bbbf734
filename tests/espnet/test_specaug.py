"""Masks are sized by the clip, not by its batch, and filled with its mean."""

import numpy as np
import pytest
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.asr.specaug.specaug import SpecAug

from espnet_mlma.data.corpora.espeak import Espeak, SynthesisLine, finish
from espnet_mlma.espnet.masks import ClipSpecAug

BINS = 80
NO_FREQ = {"freq_mask_width_range": [0, 27], "num_freq_mask": 0}
RATIO = {"time_mask_width_ratio_range": [0.0, 0.1], "num_time_mask": 4}


def masked_share(specaug, frames: int, batch: int, draws: int = 200) -> torch.Tensor:
    """Return the masked share of a clip in each draw; its batch is padded to `batch` frames."""
    torch.manual_seed(0)
    clips = torch.randn(draws, batch, BINS)
    lengths = torch.full((draws,), frames)
    lengths[-1] = batch
    masked, _ = specaug(clips.clone(), lengths)
    return (masked != clips).all(2)[:-1, :frames].float().mean(1)


def test_a_short_clip_is_masked_alike_alone_and_beside_a_long_one():
    ours = ClipSpecAug(**NO_FREQ, **RATIO)
    alone, beside = (masked_share(ours, 100, batch) for batch in (100, 2000))
    assert alone.max() <= 0.4 and beside.max() <= 0.4
    assert beside.mean().item() == pytest.approx(alone.mean().item(), abs=0.02)
    assert 0.1 < beside.mean() < 0.2
    # Beside a long clip, ESPnet's masks hide most short clips not at all and some nearly whole.
    theirs = masked_share(SpecAug(apply_time_warp=False, apply_freq_mask=False, **RATIO), 100, 2000)
    assert theirs.median() == 0 and theirs.max() > 0.9


def test_masks_reach_every_frame_and_no_padding():
    torch.manual_seed(0)
    clips = torch.randn(4000, 30, BINS)
    lengths = torch.full((4000,), 20)
    masked, same = ClipSpecAug(**NO_FREQ, time_mask_width_range=[2, 4], num_time_mask=1)(
        clips.clone(), lengths
    )
    changed = (masked != clips).all(2).float()
    assert same is lengths and not changed[:, 20:].any()
    assert set(changed.sum(1).int().tolist()) == {2, 3}  # the upper limit is excluded
    assert changed[:, :20].mean(0).min() > 0.04


def test_bins_are_masked_in_all_frames():
    torch.manual_seed(0)
    clips = torch.randn(500, 40, BINS)
    masked, _ = ClipSpecAug(freq_mask_width_range=[0, 10], num_freq_mask=2, num_time_mask=0)(
        clips.clone(), torch.full((500,), 40)
    )
    changed = masked != clips
    assert torch.equal(changed.all(1), changed.any(1))
    assert 12 < changed.any(1).sum(1).max() <= 18


def test_a_mask_holds_the_mean_of_the_clip():
    torch.manual_seed(0)
    clips = torch.randn(3, 50, BINS) - 10
    lengths = torch.tensor([50, 30, 10])
    masked, _ = ClipSpecAug(**RATIO)(clips.clone(), lengths)
    for clip, before, length in zip(masked, clips, lengths, strict=True):
        mean = before[:length].mean(0).expand(50, -1)
        changed = clip != before
        assert changed[:length].any()
        torch.testing.assert_close(clip[changed], mean[changed], atol=1e-3, rtol=0)


def test_zero_is_louder_than_speech():
    """The reason to fill masks with the mean: energies of samples in -1..1 are below 1."""
    samples = Espeak().speak(
        SynthesisLine("u", "s", "la casa e il mare sono qui vicino", "it+m1", 150, 50, 30)
    )
    speech = torch.tensor(finish(samples, 30, np.random.default_rng(1)), dtype=torch.float32)
    frontend = DefaultFrontend(fs="16k", n_fft=512, win_length=400, hop_length=160, center=False)
    features, _ = frontend(speech[None], torch.tensor([len(speech)]))
    assert (features > 0).float().mean() < 0.05


def test_a_clip_shorter_than_a_mask_is_masked_whole():
    clips = torch.randn(1, 3, BINS)
    masked, _ = ClipSpecAug(**NO_FREQ, time_mask_width_range=[8, 9], num_time_mask=1)(
        clips.clone(), torch.tensor([3])
    )
    torch.testing.assert_close(masked, clips.mean(1, keepdim=True).expand_as(clips))


def test_options_are_espnets():
    options = {"apply_freq_mask": False, "apply_time_mask": True, "num_freq_mask": 2}
    found = ClipSpecAug(**options, time_mask_width_range=12)
    assert found.freq_mask is None
    assert (found.time_mask.low, found.time_mask.high) == (0, 12)
    found = ClipSpecAug(freq_mask_width_range=9, apply_time_mask=False)
    assert found.time_mask is None
    assert (found.freq_mask.low, found.freq_mask.high) == (0, 9)


@pytest.mark.parametrize(
    "options",
    [
        {**NO_FREQ, "num_time_mask": 0},
        {},
        {**RATIO, "time_mask_width_range": [0, 9]},
    ],
)
def test_invalid_options_are_errors(options):
    with pytest.raises(ValueError, match="time_mask"):
        ClipSpecAug(**options)
