"""SpecAugment with masks of each clip: ESPnet's `specaug: clip_specaug`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from espnet2.asr.specaug.specaug import SpecAug
from torch import Tensor, nn

from espnet_mlma.scan.rows import valid_frames


class ClipMask(nn.Module):
    """Replace ranges of frames or bins of each clip by the clip's mean.

    Args:
        axis: `time` or `freq`.
        width_range: lowest width, and the width below which all lie; frames or bins.
        count: masks for each clip.
        is_ratio: widths are shares of the clip's length.
    """

    def __init__(self, axis: str, width_range: Sequence[float], count: int, is_ratio: bool = False):
        super().__init__()
        self.axis, self.count, self.is_ratio = axis, count, is_ratio
        self.low, self.high = width_range

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mask features (batch, time, bins) with lengths (batch,) in frames; return both."""
        batch, time, bins = features.shape
        is_time = self.axis == "time"
        size = lengths[:, None] if is_time else lengths.new_full((batch, 1), bins)
        drawn = torch.rand(2, batch, self.count, device=features.device)
        width = self.low + drawn[0] * (self.high - self.low)
        width = (width * size if self.is_ratio else width).long().minimum(size)
        start = (drawn[1] * (size - width + 1)).long()
        place = torch.arange(time if is_time else bins, device=features.device)
        hidden = (place >= start[..., None]) & (place < (start + width)[..., None])
        hidden = hidden.any(1).unsqueeze(2 if is_time else 1)
        valid = valid_frames(lengths, batch, time, features.device)[..., None]
        mean = features.where(valid, 0).sum(1) / lengths[:, None]
        return torch.where(hidden, mean[:, None], features), lengths


class ClipSpecAug(SpecAug):
    """Apply SpecAugment with masks sized and placed by each clip, not by its batch.

    ESPnet sizes and places time masks by the longest clip of the batch. A short clip is then masked
    whole or not at all. ESPnet also fills masks with 0 before the features are normalised. The
    features are logarithms of energies below 1, so 0 is louder than nearly all speech. Here a ratio
    refers to the clip itself, and a mask holds the clip's mean of each bin.

    Args:
        apply_freq_mask, apply_time_mask: whether to mask bins, and frames.
        freq_mask_width_range: bins, from the first to below the second; one number is the second.
        num_freq_mask: for each clip; 0 masks none.
        time_mask_width_ratio_range: shares of the clip's frames, likewise.
        time_mask_width_range: frames, likewise, in place of a ratio.
        num_time_mask: for each clip; 0 masks none.
        apply_time_warp, time_warp_window, time_warp_mode: ESPnet's.

    Raises:
        ValueError: no warp and no mask is applied, or time masks have both kinds of widths or none.

    Source: Park et al., SpecAugment, arXiv 1904.08779; ratios: arXiv 1912.05533; means: lhotse.
    """

    def __init__(
        self,
        freq_mask_width_range: int | Sequence[int] = (0, 27),
        num_freq_mask: int = 2,
        time_mask_width_ratio_range: float | Sequence[float] | None = None,
        time_mask_width_range: int | Sequence[int] | None = None,
        num_time_mask: int = 2,
        apply_freq_mask: bool = True,
        apply_time_mask: bool = True,
        apply_time_warp: bool = False,
        time_warp_window: int = 5,
        time_warp_mode: str = "bicubic",
    ):
        super().__init__(
            apply_time_warp,
            time_warp_window,
            time_warp_mode,
            apply_freq_mask=apply_freq_mask and num_freq_mask > 0,
            freq_mask_width_range=freq_mask_width_range,
            num_freq_mask=num_freq_mask,
            apply_time_mask=apply_time_mask and num_time_mask > 0,
            time_mask_width_range=time_mask_width_range,
            time_mask_width_ratio_range=time_mask_width_ratio_range,
            num_time_mask=num_time_mask,
        )
        if self.freq_mask is not None:
            self.freq_mask = ClipMask("freq", _widths(self.freq_mask), num_freq_mask)
        if self.time_mask is not None:
            is_ratio = time_mask_width_ratio_range is not None
            widths = _widths(self.time_mask, is_ratio)
            self.time_mask = ClipMask("time", widths, num_time_mask, is_ratio)


def _widths(mask: Any, is_ratio: bool = False) -> Sequence[float]:
    """Return the range of widths that one of ESPnet's masks has made of its option."""
    return mask.mask_width_ratio_range if is_ratio else mask.mask_width_range
