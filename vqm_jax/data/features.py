"""The record feature that holds one training window: a few frames as a single lossless image."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vqm_jax import errors, pictures

# WebP at method 0 decodes as fast as at higher efforts and encodes about 20 times faster.
_ENCODER_OPTIONS = {
  'webp': dict(format='WEBP', lossless=True, method=0, quality=0),
  'png': dict(format='PNG', compress_level=3),
}
CODECS = ('webp', 'png', 'raw')
_WEBP_MAX_SIDE = 16383


class FrameStrip(tfds.features.FeatureConnector):
  """Frames uint8 (T, H, W, 3) RGB, stored losslessly as one image of stacked frames.

  One image instead of T saves a decoder call and a buffer per frame. Decoding needs Pillow only. WebP and raw bytes
  carry no checksum: that a bit was flipped is told by the file of records, which has one for each chunk.
  The class path is written into the `features.json` of each dataset: it may not move.

  Args:
    num_frames, height, width: T, H, W of every record.
    codec: 'webp' (smallest), 'png', or 'raw' (bytes as they are, fastest to read). All are exact.

  Raises:
    ConfigError: unknown codec, or a strip with more pixels a side than WebP can hold.
  """

  def __init__(
    self,
    num_frames: int,
    height: int,
    width: int,
    codec: str = 'webp',
    doc: tfds.features.Documentation | str | None = None,
  ):
    super().__init__(doc=doc)
    if codec not in CODECS:
      raise errors.ConfigError(f'FrameStrip: unknown codec {codec!r}; choose one of {CODECS}.')
    if codec == 'webp' and max(num_frames * height, width) > _WEBP_MAX_SIDE:
      raise errors.ConfigError(
        f'FrameStrip: {num_frames} frames of {height}x{width} make an image of '
        f'{num_frames * height}x{width}, but WebP holds at most {_WEBP_MAX_SIDE} pixels a side; '
        "use codec='png'."
      )
    self.num_frames = num_frames
    self.height = height
    self.width = width
    self.codec = codec

  def get_tensor_info(self) -> tfds.features.TensorInfo:
    """Shape and dtype of a decoded strip: (T, H, W, 3) uint8."""
    return tfds.features.TensorInfo(shape=(self.num_frames, self.height, self.width, 3), dtype=np.uint8)

  def get_serialized_info(self) -> tfds.features.TensorInfo:
    """Shape and dtype on disk: one byte string."""
    return tfds.features.TensorInfo(shape=(), dtype=np.object_)

  def encode_example(self, example_data: np.ndarray) -> bytes:
    """The bytes of frames uint8 (T, H, W, 3). Raises DataError for another shape or dtype."""
    frames = np.asarray(example_data)
    if frames.shape != self.shape or frames.dtype != np.uint8:
      raise errors.DataError(f'FrameStrip: expected uint8 {self.shape}, got {frames.dtype} {frames.shape}.')
    if self.codec == 'raw':
      return frames.tobytes()
    strip = Image.fromarray(np.ascontiguousarray(frames).reshape(-1, self.width, 3))
    buffer = io.BytesIO()
    strip.save(buffer, **_ENCODER_OPTIONS[self.codec])
    return buffer.getvalue()

  def decode_example_np(self, example_data: bytes) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) of stored bytes. Raises DataError when they are damaged."""
    try:
      with pictures.fenced('strip'):
        if self.codec == 'raw':
          return np.frombuffer(example_data, np.uint8).reshape(self.shape)
        with Image.open(io.BytesIO(example_data), formats=[self.codec]) as strip:
          if strip.size != (self.width, self.num_frames * self.height):
            raise ValueError(f'the image is {strip.size}')
          return np.asarray(strip).reshape(self.shape)
    except errors.DataError as error:
      raise errors.DataError(
        f'FrameStrip: {len(example_data)} bytes are not a whole {self.codec} strip of {self.shape}'
      ) from error

  def to_json_content(self) -> dict[str, int | str]:
    """The constructor's arguments, as written to `features.json`."""
    return dict(num_frames=self.num_frames, height=self.height, width=self.width, codec=self.codec)

  @classmethod
  def from_json_content(cls, value: dict[str, int | str]) -> 'FrameStrip':
    """The feature described by `to_json_content()`; TFDS passes `value` by keyword."""
    return cls(**value)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, FrameStrip) and self.to_json_content() == other.to_json_content()

  def __hash__(self) -> int:
    return hash(tuple(self.to_json_content().values()))

  def __repr__(self) -> str:
    return f'FrameStrip({self.num_frames}, {self.height}, {self.width}, codec={self.codec!r})'
