"""Every `ffmpeg` command that errors advise, in one table.

All keep what they can: every stream (`-map 0 -c copy`), and the picture, which is coded without loss. IN and OUT stand
for files; OUT.mkv holds nearly any stream.
"""

# Without loss; ten bits stay ten.
_LOSSLESS = '-c:v libx264 -qp 0 -preset veryfast'
# Data streams, such as timecodes, do not fit into Matroska; subtitles of mp4 have to be converted for it.
_ALL = 'ffmpeg -i IN -map 0 -map -0:d? -c copy'
_REMUX = f'{_ALL} OUT.mkv'

COMMANDS = {
  # For tone mapping light must be linear; 203 nits are the white of ITU-R BT.2408.
  'tone_map': (
    'tone-map it first',
    f'{_ALL} -vf zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,'
    f'zscale=t=bt709:m=bt709:r=tv,format=yuv420p {_LOSSLESS} OUT.mkv',
  ),
  'to_bt709': ('convert it to BT.709 first', f'{_ALL} -vf zscale=m=bt709:t=bt709:p=bt709:r=tv {_LOSSLESS} OUT.mkv'),
  'ten_bits': ('round it to 10 bits first', f'{_ALL} -pix_fmt yuv444p10le {_LOSSLESS} OUT.mkv'),
  'no_alpha': (
    'leave the transparency out first',
    f'{_ALL} -pix_fmt yuv444p {_LOSSLESS} -metadata:s:v alpha_mode= OUT.mkv',
  ),
  'deinterlace': ('deinterlace it first', f'{_ALL} -vf bwdif=mode=send_frame {_LOSSLESS} OUT.mkv'),
  'constant_rate': ('convert it first', f'{_ALL} -fps_mode cfr -r {{rate}} {_LOSSLESS} OUT.mkv'),
  'remux': ('copy it to another container', _REMUX),
}


def advice(name: str, **values) -> str:
  """The remedy as a part of a message: what to do, and the command; `values` fill in its fields."""
  what, command = COMMANDS[name]
  return f'{what}, for example with "{command.format(**values)}"'
