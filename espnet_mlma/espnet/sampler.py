"""Give ESPnet's trainer the batches of `data/balance.py` as `batch_type: balanced_length`.

ESPnet's `catpow_balance_dataset` draws the same mix, but its batches are not sorted by length, and
every rank repeats the draw in each epoch, from dictionaries of strings. A configuration names ours:

    iterator_type: category
    batch_type: balanced_length
    dataset_upsampling_factor: 0.5      # a of P(language) ~ hours^a
    category_upsampling_factor: 0.5     # b of P(corpus) ~ hours^b
    batch_bins: 13600000                # samples of a batch, padding included
    valid_iterator_type: sequence
    valid_batch_type: numel
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.category_iter_factory import worker_init_fn
from torch.utils.data import DataLoader

from espnet_mlma.data.balance import BalancedDraw, Options
from espnet_mlma.data.clips import MADE_BY, open_clips
from espnet_mlma.data.mapped import open_table
from espnet_mlma.errors import MlmaError

BATCH_TYPE = "balanced_length"


class BalancedIterFactory(AbsIterFactory):
    """Build the iterator of each epoch; registered as `batch_type: balanced_length`.

    Args:
        dataset: ESPnet's dataset, which takes ids.
        draw: draws the batches.
        rank: which part of each batch this process takes.
        ranks: number of processes.
        seed: of the loader's workers.
        options: further options of PyTorch's DataLoader.
    """

    def __init__(
        self, dataset, draw: BalancedDraw, rank: int = 0, ranks: int = 1, seed: int = 0, **options
    ):
        self.dataset, self.draw, self.rank, self.ranks = dataset, draw, rank, ranks
        self.seed, self.options = seed, options

    def build_iter(self, epoch: int, shuffle: bool | None = None, start: int = 0) -> DataLoader:
        """Build the iterator of an epoch.

        Args:
            epoch: number of the epoch, from 1.
            shuffle: ignored; batches are always shuffled.
            start: batches that an interrupted epoch has used already.

        Raises:
            MlmaError: the epoch has fewer batches, or a batch has fewer clips than processes.
        """
        batches = self.draw.epoch(epoch, rank=self.rank, ranks=self.ranks, start=start)
        seed = partial(worker_init_fn, base_seed=epoch + self.seed)
        return DataLoader(self.dataset, batch_sampler=batches, worker_init_fn=seed, **self.options)


def register(tasks: ModuleType) -> None:
    """Add `balanced_length` to the batch types of all ESPnet tasks; again, do nothing.

    Args:
        tasks: the module `espnet2.tasks.abs_task`.
    """
    if BATCH_TYPE in tasks.CATEGORY_BATCH_TYPES:
        return
    tasks.CATEGORY_BATCH_TYPES[BATCH_TYPE] = BalancedIterFactory
    others = tasks.AbsTask.build_category_iter_factory.__func__

    def build(cls, args, iter_options, mode: str) -> AbsIterFactory:
        if iter_options.batch_type == BATCH_TYPE:
            return _build(cls, args, iter_options, mode)
        if args.batch_type == BATCH_TYPE:  # ESPnet's needs category2utt for any other type too
            return cls.build_sequence_iter_factory(args, iter_options, mode)
        return others(cls, args, iter_options, mode)

    tasks.AbsTask.build_category_iter_factory = classmethod(build)


def _build(task, args, iter_options, mode: str) -> BalancedIterFactory:
    if not iter_options.train:
        raise MlmaError(
            f"batch_type {BATCH_TYPE} is for training; set valid_iterator_type: sequence and "
            "valid_batch_type: numel"
        )
    if not iter_options.shape_files:
        raise MlmaError(f"batch_type {BATCH_TYPE} needs lengths; give --train_shape_file")
    rank, ranks = _rank(iter_options.distributed)
    # ESPnet's asr.sh gives the lengths of texts as a second table, which is not needed.
    shapes = Path(iter_options.shape_files[0])
    clips = open_clips(shapes, Path(iter_options.data_path_and_name_and_type[0][0]).parent)
    draw = BalancedDraw(
        clips,
        Options(
            batch_bins=iter_options.batch_bins,
            language_exponent=args.dataset_upsampling_factor,
            corpus_exponent=args.category_upsampling_factor,
            iterations=iter_options.num_iters_per_epoch,
            scaling=args.dataset_scaling_factor,
            min_batch_size=ranks if iter_options.distributed else args.min_batch_size,
            max_batch_size=args.max_batch_size,
            drop_last=args.drop_last_iter,
            seed=args.seed,
        ),
    )
    logging.info(f"[{mode}] {draw}")
    with _mapped_tables():
        dataset = task.build_dataset(args, iter_options)
    logging.info(f"[{mode}] dataset:\n{dataset}")
    options = {"num_workers": args.num_workers, "pin_memory": args.ngpu > 0}
    if iter_options.collate_fn is not None:
        options["collate_fn"] = iter_options.collate_fn
    return BalancedIterFactory(dataset, draw, rank, ranks, args.seed, **options)


def _rank(distributed: bool) -> tuple[int, int]:
    from torch import distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)


@contextmanager
def _mapped_tables() -> Iterator[None]:
    """Let ESPnet's datasets look up texts and places of sound in the files of their tables.

    ESPnet reads them into dictionaries, which every rank has, and every worker in the course of an
    epoch: pages that hold the objects are copied when a reference is counted.
    """
    from espnet2.train import dataset
    from omniio import kaldi

    def texts(path, **_) -> Mapping[str, str]:
        return open_table(Path(path), MADE_BY)

    def archives(path, float_dtype=None, max_cache_fd: int = 0, allow_multi_rates: bool = False):
        loader = kaldi.load_scp(os.devnull, max_cache_fd=max_cache_fd)
        loader._dict = open_table(Path(path), MADE_BY)  # ESPnet's adapter reads it too
        return dataset.AdapterForSoundScpReader(loader, float_dtype, allow_multi_rates)

    before = {name: dataset.DATA_TYPES[name] for name in ("text", "kaldi_ark")}
    for name, load in (("text", texts), ("kaldi_ark", archives)):
        dataset.DATA_TYPES[name] = before[name] | {"func": load}
    try:
        yield
    finally:
        dataset.DATA_TYPES.update(before)
