"""Evaluations from Python: arguments in, summaries, a table and files out; no flags are parsed here."""

import dataclasses

import numpy as np
import pytest
import tiny_run

from vqm_jax import errors, evaluation, inference, locks, metrics, pictures
from vqm_jax.summary import read_summary


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tiny_run.make(tmp_path_factory.mktemp('evaluate'))


def test_a_run_is_evaluated_by_its_path_or_opened(workdir, tmp_path):
  found = evaluation.evaluate_run(str(workdir), metrics=['psnr'], save_frames=True)
  (summary,) = found.summaries
  expected = {name: list(metrics.psnr(*tiny_run.pair(seed, n))) for seed, (name, n) in enumerate(tiny_run.LENGTHS)}
  assert summary.metrics['psnr'].per_frame == expected == summary.no_processing['psnr'].per_frame
  assert (summary.method, summary.split, summary.protocol, summary.frames) == ('none (step 3)', 'test', 'ntire', 'all')
  latest = workdir / 'eval/test'
  assert read_summary(latest / 'summary.json') == summary
  assert found.table == (latest / 'table.md').read_text()
  assert all(path.exists() for path in found.files) and found.files[-1].name == 'output'

  # Elsewhere, by what was opened before, and every second frame; the first results stay.
  run = inference.open_run(workdir)
  other = evaluation.evaluate_run(run, tmp_path / 'out', metrics=['psnr'], every=2, protocol='y601')
  assert other.summaries[0].metrics['psnr'].per_frame == {'one': expected['one'][1:2], 'two': expected['two'][1:2]}
  assert (tmp_path / 'out/eval/test/summary.json').exists()
  assert read_summary(latest / 'summary.json') == summary


def test_scores_are_used_again_and_progress_is_told(workdir, tmp_path):
  run, told = inference.open_run(workdir), []

  def progress(frames):
    told.append(len(frames))
    return frames

  for expected in (5, 0):
    evaluation.evaluate_run(run, tmp_path, metrics=['psnr'], progress=progress)
    assert told.pop() == expected and not told
  evaluation.evaluate_run(run, tmp_path, metrics=['psnr'], progress=progress, overwrite=True)
  assert told == [5]


@pytest.mark.parametrize(
  ('given', 'error', 'message'),
  [
    ({'split': 'val'}, errors.DataError, 'val'),
    ({'every': 0}, errors.ConfigError, 'every: expected 1 or more, found 0'),
    ({'protocol': 'rec709'}, errors.ConfigError, "protocol: expected one of ntire, .*, found 'rec709'"),
    ({'metrics': ['toff']}, errors.ConfigError, "did you mean 'tof'"),
    ({'metrics': ['tof'], 'every': 2}, errors.DataError, 'Nothing can be measured: .*neighbouring frames'),
    ({'self_ensemble': 3}, errors.ConfigError, 'self_ensemble=3 is not supported'),
    ({'baselines': True, 'aligned': False}, errors.ConfigError, 'filters for aligned pairs'),
  ],
)
def test_arguments_that_do_not_fit_are_refused(workdir, tmp_path, given, error, message):
  with pytest.raises(error, match=message):
    evaluation.evaluate_run(workdir, tmp_path, **given)
  assert not list(tmp_path.rglob('summary.json')) and not list(tmp_path.rglob('.lock'))


def test_parts_make_the_table_that_the_whole_makes(workdir, tmp_path):
  whole = evaluation.evaluate_run(workdir, tmp_path / 'whole', metrics=['psnr', 'ssim'], save_frames=True)
  how = {'out': tmp_path / 'parts', 'metrics': ['psnr', 'ssim'], 'save_frames': True}
  first = evaluation.evaluate_run(workdir, part=(1, 2), **how)
  assert first.missing == ['one'] and not (first.summaries or first.table or first.files)
  assert not list(tmp_path.glob('parts/eval/test')) and not list(tmp_path.glob('parts/eval/*/test/timing.json'))
  empty = evaluation.evaluate_run(workdir, part=(2, 3), **how)  # there are two clips only
  assert empty.missing == ['one']
  last = evaluation.evaluate_run(workdir, part=(0, 2), **how)
  assert not last.missing and not list(tmp_path.rglob('*lock'))

  for name in ('clips.csv', 'frames.csv', 'pictures/one.png', 'pictures/two.png'):
    assert (tmp_path / 'parts/eval/test' / name).read_bytes() == (tmp_path / 'whole/eval/test' / name).read_bytes()
  measured = {'timing': None, 'seconds_end_to_end': None, 'created': ''}  # the rest is the same to the last digit
  a, b = (dataclasses.replace(found.summaries[0], **measured) for found in (whole, last))
  assert a == b

  # Frames that one part alone was asked to keep are missing, and so is a metric that only one has taken.
  assert evaluation.evaluate_run(workdir, part=(0, 2), **how | {'metrics': ['psnr', 'psnr_y601']}).missing == ['two']


def test_parts_that_make_no_sense_are_refused(workdir, tmp_path):
  for part in ((2, 2), (-1, 2), (0, 0)):
    with pytest.raises(errors.ConfigError, match='expected .i, n. with i from 0 to n - 1'):
      evaluation.evaluate_run(workdir, tmp_path, part=part)


def test_one_evaluation_at_a_time(workdir, tmp_path):
  with locks.folder(tmp_path / 'eval'), pytest.raises(errors.BusyError, match='is at work on it'):
    evaluation.evaluate_run(workdir, tmp_path)
  pictures.save_png(tmp_path / 'x' / '0.png', np.zeros((8, 8, 3), np.uint8))
  with locks.folder(tmp_path / 'out'), pytest.raises(errors.BusyError, match='out: process .* is at work on it'):
    evaluation.evaluate_folders({'x': tmp_path / 'x'}, tmp_path / 'x', out=tmp_path / 'out', metrics=['psnr'])


def test_folders_are_scored_with_and_without_a_place_for_results(tmp_path):
  for seed, (name, n) in enumerate(tiny_run.LENGTHS):
    for side, frames in zip(('lq', 'gt'), tiny_run.pair(seed, n), strict=True):
      for t, frame in enumerate(frames):
        pictures.save_png(tmp_path / side / name / f'{t:04d}.png', frame)
  expected = [metrics.psnr(*tiny_run.pair(seed, n)).mean() for seed, (_, n) in enumerate(tiny_run.LENGTHS)]
  before = sorted(tmp_path.rglob('*'))
  found = evaluation.evaluate_folders({'blurred': tmp_path / 'lq'}, tmp_path / 'gt', metrics=['psnr'])
  assert found.summaries[0].metrics['psnr'].mean == pytest.approx(sum(expected) / 2, abs=1e-9)
  assert found.files == [] and sorted(tmp_path.rglob('*')) == before and 'blurred' in found.table

  with pytest.raises(errors.ConfigError, match='methods: expected one or more'):
    evaluation.evaluate_folders({}, tmp_path / 'gt')
  with pytest.raises(errors.DataError, match="method '../same' is a path"):
    evaluation.evaluate_folders({'../same': tmp_path / 'gt', 'b': tmp_path / 'lq'}, tmp_path / 'gt')
  methods = {'same': tmp_path / 'gt', 'blurred': tmp_path / 'lq'}
  found = evaluation.evaluate_folders(methods, tmp_path / 'gt', tmp_path / 'lq', tmp_path / 'out', metrics=['psnr'])
  assert [summary.method for summary in found.summaries] == ['same', 'blurred']
  assert [summary.gain['psnr'] > 50 for summary in found.summaries] == [True, False]
  assert (tmp_path / 'out/table.md').read_text() == found.table
  for summary in found.summaries:
    assert read_summary(tmp_path / 'out' / summary.method / 'summary.json') == summary
