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
_SEEN = 5  # frames around a cut that `find_cuts` looks at, as `video.cuts.REACH`


def restore_at(
  network: nnx.Module,
  source: 'video.VideoSource',
  indices: Iterable[int],
  strengths: Sequence[float] = (1.0,),
  find_cuts: streaming.FindCuts | None = None,
  **options: Any,
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
  """Yield (frame, [restored at each of `strengths`]) for each of `indices`, all uint8 (H, W, 3), from one pass each.

  A restorer gets the whole window around the frame, so that the result is that of a pass over the whole video. A
  recurrent generator would have to go through all that comes before; it gets a run-up of `RUN_UP` frames instead, an
  approximation. The source seeks, and one excerpt is in memory.

  Args:
    network: a restorer or the generator of an enhancer.
    source: any length.
    indices: of frames of `source`.
    strengths: factors on the correction, 0 to 1.5.
    find_cuts: yields (frame, whether it starts a scene) of frames; a few more are read around each excerpt, for it to
      judge by.
    **options: `self_ensemble`, `tile`, `overlap`, `devices` of `stream_frames`.

  Raises:
    ConfigError: as `stream_frames`.
    VideoError: the source is damaged there.
  """
  for strength in strengths:
    streaming.check_strength(strength)
  recurrent = isinstance(network, enhancers.RecurrentGenerator)
  before, after = (RUN_UP, 0) if recurrent else (network.num_frames // 2, network.num_frames // 2)
  more = _SEEN if find_cuts and before else 0
  for index in indices:
    start = max(0, index - before - more)
    frames = list(source.frames(start, min(index + after + more + 1, source.num_frames)))
    marked = find_cuts(iter(frames)) if more else ((frame, False) for frame in frames)
    starts = [t for t, (_, starts_scene) in enumerate(marked) if starts_scene]
    # What was read for the cuts alone is not restored.
    skipped = max(0, index - before - start)
    frames = frames[skipped : index + after + 1 - start]
    place, cuts = index - start - skipped, streaming.known_cuts(t - skipped for t in starts)
    stream = streaming.stream_frames(network, frames, every=place + 1, find_cuts=cuts, **options)
    with contextlib.closing(stream):
      frame, restored = frames[place], next(stream)
    blends = [streaming.with_strength(frame, restored, strength) for strength in strengths]
    yield frame, [np.asarray(streaming.to_uint8(blend)) for blend in blends]
