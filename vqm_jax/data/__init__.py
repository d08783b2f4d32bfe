"""Prepared records as training batches and evaluation clips.

Reading needs Pillow, Grain and TFDS: no OpenCV, no TensorFlow, and a video codec for `segments` only.
"""

from vqm_jax.data.clips import ClipReader
from vqm_jax.data.features import FrameStrip
from vqm_jax.data.pipeline import check_weights, train_batches
from vqm_jax.data.records import open_source
from vqm_jax.data.sampling import SAMPLINGS, Domains, check_records, open_training, trained_on
from vqm_jax.data.tables import Tables

__all__ = [
  'SAMPLINGS', 'ClipReader', 'Domains', 'FrameStrip', 'Tables', 'check_records', 'check_weights', 'open_source',
  'open_training', 'train_batches', 'trained_on',
]  # fmt: skip
