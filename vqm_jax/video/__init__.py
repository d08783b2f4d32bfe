"""Video and image files in, RGB frames out, and back. What PyAV raises becomes an error of ours in `libav`."""

from vqm_jax.video.background import WORKERS, in_background, prefetch
from vqm_jax.video.codec import SUFFIXES as OUTPUT_SUFFIXES
from vqm_jax.video.codec import encode
from vqm_jax.video.colour import Colour, colour_of, default_colour, rgb_to_yuv, to_eight_bits, yuv_to_rgb
from vqm_jax.video.compression import Compression, advice, compression_of
from vqm_jax.video.cuts import REACH as CUT_REACH
from vqm_jax.video.cuts import mark_cuts
from vqm_jax.video.images import is_image, natural
from vqm_jax.video.reader import VideoFile, concealed, describe, examine, is_video, list_videos, open_video
from vqm_jax.video.rotation import upright
from vqm_jax.video.sources import VideoSource, frame_jobs
from vqm_jax.video.writer import IMAGES as IMAGE_SUFFIXES
from vqm_jax.video.writer import check_one_frame, open_writer, write_png

__all__ = [
  'CUT_REACH',
  'IMAGE_SUFFIXES',
  'OUTPUT_SUFFIXES',
  'WORKERS',
  'Colour',
  'Compression',
  'VideoFile',
  'VideoSource',
  'advice',
  'check_one_frame',
  'colour_of',
  'compression_of',
  'concealed',
  'default_colour',
  'describe',
  'encode',
  'examine',
  'frame_jobs',
  'in_background',
  'is_image',
  'is_video',
  'list_videos',
  'mark_cuts',
  'natural',
  'open_video',
  'open_writer',
  'prefetch',
  'rgb_to_yuv',
  'to_eight_bits',
  'upright',
  'write_png',
  'yuv_to_rgb',
]
