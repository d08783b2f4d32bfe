"""Every `ffmpeg` command that errors advise, in one table; tests/video/test_remedies.py runs each and reads the result.

All keep the streams (`-map 0 -c copy`; data streams aside, which few containers hold) and code the video without loss.
IN and OUT stand for files.
"""

import os
import pathlib

_COPY = 'ffmpeg -i IN -map 0 -map -0:d? -c copy'
# 10 bits stay 10; 4:2:2 and 4:4:4 stay, too.
_LOSSLESS = '-c:v libx264 -qp 0 -preset veryfast'

# What to do, and the options that do it.
_VIDEO = {
  # Light must be linear for it; 203 cd/m2 are the white of graphics by ITU-R BT.2408.
  'tone_map': (
    'tone-map it first',
    '-vf zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,'
    'zscale=t=bt709:m=bt709:r=tv,format=yuv420p10le',
  ),
  'to_bt709': ('convert it to BT.709 first', '-vf zscale=m=bt709'),
  'fewer_bits': ('convert it first', '-pix_fmt {pixel_format}'),
  'no_alpha': ('leave the transparency out first', '-pix_fmt {pixel_format} -metadata:s:v alpha_mode='),
  'one_size': (
    'split the file there, or scale all of it to its first size',
    '-vf scale={width}:{height}:flags=lanczos,format={pixel_format}',
  ),
  'deinterlace': ('add --deinterlace to enhance, or deinterlace it first', '-vf bwdif=mode=send_frame'),
  'constant_rate': ('convert it first', '-fps_mode cfr -r {rate}'),
}
NAMES = tuple(_VIDEO)


def command(name: str, path: str | os.PathLike | None = None, **values) -> str:
  """The command of one of `NAMES`, with IN and OUT; `values` fill in its fields.

  `path` is the file that it is for: its subtitles fit into such a file again, those of others into Matroska.
  """
  suffix = pathlib.PurePath(path).suffix.lower() if path else ''
  suffix = {'.mp4': '.mp4', '.m4v': '.mp4', '.mov': '.mov'}.get(suffix, '.mkv')
  return f'{_COPY} {_VIDEO[name][1].format(**values)} {_LOSSLESS} OUT{suffix}'


def advice(name: str, path: str | os.PathLike | None = None, **values) -> str:
  """The remedy as the last part of a message: what to do, and the command for it, as `command` gives it."""
  return f'{_VIDEO[name][0]}, for example with "{command(name, path, **values)}"'
