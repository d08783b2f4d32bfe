"""Restoring a few frames of a long video, each with the neighbours that it needs and nothing else."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx

from vqm_jax import enhancers
from vqm_jax.inference import streaming

if TYPE_CHECKING:  # `video` needs a codec, which evaluating records does without
  from vqm_jax import video

RUN_UP = 7  # frames that a recurrent generator goes through before the one that is wanted


def restore_at(
  network: nnx.Module,
  source: 'video.VideoSource',
  indices: Iterable[int],
  strengths: Sequence[float] = (1.0,),
  **options: Any,
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
  """Yields (frame, [restored at each of `strengths`]) for each of `indices`, all uint8 (H, W, 3), from one pass each.

  A restorer gets the whole window around the frame, so that the result is that of a pass over the whole video. A
  recurrent generator would have to go through all that comes before; it gets a run-up of `RUN_UP` frames instead, an
  approximation, in which scene cuts are not looked for. The source seeks, and one excerpt is in memory.

  Args:
    network: a restorer or the generator of an enhancer.
    source: any length.
    indices: of frames of `source`.
    strengths: as `strength` of `restore_frames`.
    **options: `self_ensemble`, `tile`, `overlap`, `devices` of `stream_frames`.

  Raises:
    ConfigError: as `stream_frames`.
    VideoError: the source is damaged there.
  """
  for strength in strengths:
    streaming.check_strength(strength)
  recurrent = isinstance(network, enhancers.RecurrentGenerator)
  before, after = (RUN_UP, 0) if recurrent else (network.num_frames // 2, network.num_frames // 2)
  for index in indices:
    start = max(0, index - before)
    frames = list(source.frames(start, min(index + after + 1, source.num_frames)))
    place = index - start
    with contextlib.closing(streaming.stream_frames(network, frames, every=place + 1, **options)) as stream:
      frame, restored = frames[place], next(stream)
    blends = [streaming.with_strength(frame, restored, strength) for strength in strengths]
    yield frame, [np.asarray(streaming.to_uint8(blend)) for blend in blends]
