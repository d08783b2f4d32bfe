"""A results page from evaluations: what is on it, and the file; `vqm_jax.report.page` is the program."""

import datetime
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vqm_jax import errors, files, metrics
from vqm_jax.report import saved_frames
from vqm_jax.report.figures import plots
from vqm_jax.report.page import markup, media
from vqm_jax.report.summaries import Block
from vqm_jax.report.tables import rendering
from vqm_jax.summary import Summary

_SPARE = 20_000  # bytes for what the script is told beside pictures,
_SPARE_OF_EXTREME = 600  # and for what stands around each of the worst and best


def write(
  out: pathlib.Path,
  paths: Sequence[str],
  split: str = 'test',
  pictures: bool = True,
  clips: Sequence[str] = (),
  frames: str = '3',
  extremes: int = 4,
  motion: int = 24,
  fps: float = 25.0,
  max_mb: float = 40.0,
  progress: Callable[..., Iterable] = lambda items, *_, **__: items,
) -> markup.Page:
  """Write the page, arguments as of the flags of `report.page`; return what is in it."""
  if out.is_dir():
    raise errors.ConfigError(f'--out={out} is a folder; give the name of a file, for example {out / "page.html"}.')
  wanted = media.parse_frames(frames)
  block, raw = saved_frames.read_results(paths, split)
  clips = saved_frames.choose_clips(block, list(clips) or ['all'])
  bare = describe(block, raw, clips, fps)
  text = markup.render(bare)
  size = len(text.encode())
  if size > max_mb * 1e6:
    raise errors.ConfigError(
      f'--max_mb={max_mb:g} is too small: without any picture the page needs {size / 1e6:.1f} MB; raise it.'
    )
  page = bare
  if pictures:
    page = _with_pictures(bare, block, raw, wanted, extremes, motion, max_mb, size, progress)
    text = markup.render(page)
  files.write_text(out, text)
  return page


def _with_pictures(bare, block, raw, wanted, extremes, motion, max_mb, size, progress) -> markup.Page:
  try:
    saved = saved_frames.SavedFrames(block, raw)
  except errors.DataError as error:
    raise errors.DataError(f'{error} Without frames, --nopictures makes a page of tables and plots.') from error
  saved.check(bare.clips)
  if not isinstance(wanted, int):
    media.check_frames(saved, bare.clips, wanted)
  scores = media.frame_scores(saved, block, raw)
  parts = sum(len(markup.asset(f'page_{name}.html').template) for name in ('compare', 'sides', 'scale', 'motion'))
  spare = _SPARE + _SPARE_OF_EXTREME * 2 * extremes * len(saved.methods)
  chosen = media.choose(
    saved, scores, bare.clips, aligned=block.aligned, frames=wanted, extremes=extremes, motion=motion,
    room=int(max_mb * 1e6) - size - parts - spare, max_mb=max_mb, progress=progress,
  )  # fmt: skip
  notes = list(bare.notes)
  if chosen.extremes:
    notes.insert(0, 'Worst and best frames: by PSNR minus that of the input, those of one clip some frames apart.')
  elif extremes:
    why = 'no gain of single frames is known' if block.aligned else 'targets are not aligned, so that there is no gain'
    notes.insert(0, f'There are no worst and best frames: {why}.')
  if not block.aligned:
    notes.insert(
      0, 'The targets are of another camera and show their scene from another place: not aligned. Errors and PSNR '
      'against them would mean nothing, so that there are none.',
    )  # fmt: skip
  if any(result.seeds for result in block.results):
    notes.append('Of several seeds of one experiment, frames are shown of the first.')
  return _replaced(bare, pictures=chosen, notes=notes)


def _replaced(page: markup.Page, **changes: Any) -> markup.Page:
  return markup.Page(**(vars(page) | changes))


def describe(block: Block, raw: Mapping[str, Summary], clips: Sequence[str], fps: float) -> markup.Page:
  """A page without pictures; `clips` are those that curves along frames show."""
  tables = rendering.table1([block]) if block.aligned else rendering.table2([block])
  drawn, lacking = _plots(block, raw, clips)
  count = len(block.clips)
  facts = {
    'Data set': block.dataset,
    'Split': block.split,
    'Protocol': block.protocol if block.aligned else 'weakly aligned (no PSNR)',
    'Clips': str(count),
    'Frames': ('' if block.n_frames is None else f'{block.n_frames} ')
    + ('(all)' if block.frames == 'all' else f'({block.frames})'),
    'Evaluated': dates([summary.created for summary in raw.values()]),
  }
  heading = pathlib.Path(block.dataset).name if block.dataset.startswith('/') else block.dataset
  if heading == block.dataset:
    del facts['Data set']
  return markup.Page(
    title=f'Results on {heading}',
    heading=f'Results on {heading}',
    methods=saved_frames.short_labels(block.results),
    facts={name: value for name, value in facts.items() if value},
    tables=[*tables[1:], tables[0]],
    costs=_costs(block),
    plots=drawn,
    pictures=None,
    fps=fps,
    clips=list(clips),
    notes=lacking,
  )


def _costs(block: Block) -> dict[str, dict[str, float]]:
  """Numbers behind the words of costs, by column and method."""
  found = {
    'parameters': {result.method: result.params for result in block.results},
    'test_time': {result.method: (result.timing or {}).get('seconds_per_frame') for result in block.results},
    'train_time': {result.method: (result.train or {}).get('seconds') for result in block.results},
  }
  return {key: {method: value for method, value in one.items() if value is not None} for key, one in found.items()}


def dates(created: Sequence[str | None]) -> str:
  """'26 November 2026', or the first and the last of several days; '' when no summary says."""
  days = set()
  for text in created:
    try:
      days.add(datetime.datetime.fromisoformat(text).date())
    except (TypeError, ValueError):
      continue
  if not days:
    return ''
  first, last = (f'{day.day} {day:%B %Y}' for day in (min(days), max(days)))
  return first if first == last else f'{first} to {last}'


def _plots(block: Block, raw: Mapping[str, Summary], clips: Sequence[str]):
  """The figures that the results allow, and why others are missing."""
  psnr = 'PSNR' if block.aligned else 'Sharpness'

  def frames():
    name, curves = plots.along_frames(block, raw, clips)
    said = f'{metrics.label(name)} of every scored frame.'
    said += ' Frames that equal their targets are left out.' if name.startswith('psnr') else ''
    return functools.partial(plots.frames, name, curves), said, len(curves) > 1

  def training():
    found = plots.runs(block.results)
    return functools.partial(plots.training, found), 'Validation score and training loss over the steps.', True

  def tradeoff():
    said = 'Gain in PSNR against cost. '
    said += (
      'Grey: the teams of the paper, on the same test set, each on hardware of its own.'
      if block.original
      else 'The teams of the paper had other videos and hardware: not comparable.'
    )
    return functools.partial(plots.tradeoff, plots.points(block), block.original), said, True

  drawn, lacking = [], []
  titles = {f'{psnr} along frames': frames, 'Training': training, 'Quality against cost': tradeoff}
  if not block.aligned:
    del titles['Quality against cost']
  with tempfile.TemporaryDirectory() as folder:
    for title, draw in titles.items():
      try:
        figure, caption, broad = draw()
        drawings = [figure(columns=columns) for columns in ((2, 1) if broad else (1,))]
      except plots.Unavailable as error:
        reason = str(error)
        for path in raw:  # where files lie here is nothing to publish
          reason = reason.removeprefix(f'{path}: ')
        lacking.append(f'No plot "{title}": {reason}')
        continue
      texts = [plots.save(pathlib.Path(folder) / 'plot', each)[1].read_text(encoding='utf-8') for each in drawings]
      drawn.append(markup.Plot(title, caption, *texts))
  return drawn, lacking
