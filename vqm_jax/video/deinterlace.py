"""Frames from interlaced video: two half pictures of different moments, row by row, made one of the first moment."""

from collections.abc import Iterator

import av

from vqm_jax.video import libav

# One frame from each, at its time; what the file marks as progressive stays as it is.
_FILTER = ('bwdif', 'mode=send_frame:deint=interlaced')


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
  """Yield as many frames as come in, of the same size and pixel format.

  A frame is made from itself and its two neighbours: the first and the last of `frames` lack one.
  """
  graph = None
  for index, frame in enumerate(frames):
    # Their own times may be missing; the filter needs some.
    frame.pts = index
    with libav.fenced(lambda why, index=index: f'frame {index} cannot be deinterlaced ({why})'):
      graph = graph or _graph(frame)
      graph.push(frame)
    yield from _ready(graph)
  if graph is not None:
    graph.push(None)
    yield from _ready(graph)


def _graph(frame):
  graph = av.filter.Graph()
  source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
  graph.link_nodes(source, graph.add(*_FILTER), graph.add('buffersink')).configure()
  return graph


def _ready(graph):
  while True:
    try:
      yield graph.pull()
    except libav.NOTHING_YET:
      return
