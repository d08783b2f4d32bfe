"""The binary `vqm_jax.eval`, on a run and on folders."""

import csv
import io
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import shipped_weights
import tiny_run
from PIL import Image

from vqm_jax import errors, metrics, pictures, video
from vqm_jax.evaluation import scoring
from vqm_jax.evaluation.folders import folder_clips
from vqm_jax.video import codec


@pytest.fixture(scope='module')
def run_eval(command):
  """run_eval('--flag=x', ..., code=0) -> what it wrote."""

  def run(*args, code=0):
    done = command('eval', *args)
    assert done.returncode == code, done.stderr
    return done

  return run


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tiny_run.make(tmp_path_factory.mktemp('eval'))


def summary_of(workdir):
  return json.loads((workdir / 'eval/test/summary.json').read_text())


def test_run_of_no_processing_scores_as_the_metrics_do(workdir, run_eval):
  done = run_eval(f'--workdir={workdir}', '--baselines', '--save_frames')
  summary = summary_of(workdir)
  expected = {name: metrics.psnr(*tiny_run.pair(seed, n)) for seed, (name, n) in enumerate([('one', 3), ('two', 2)])}
  psnr = summary['metrics']['psnr']
  assert psnr['per_frame'] == {name: list(values) for name, values in expected.items()}
  assert psnr['mean'] == pytest.approx(np.mean([v.mean() for v in expected.values()]), abs=1e-9)
  assert summary['no_processing'] == summary['metrics']
  assert summary['gain'] == {'psnr': 0.0, 'ssim': 0.0}
  assert summary['schema_version'] == 2 and summary['step'] == 3 and summary['params'] == 0
  assert summary['category'] == {'one': 'cats', 'two': 'dogs'}
  assert set(summary['per_category']) == {'cats', 'dogs'}
  assert summary['timing']['seconds_per_frame'] > 0
  assert summary['timing']['frame_size'] == [32, 40]

  with (workdir / 'eval/test/table.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['method'].split(' (')[0] for row in rows] == [
    'none',
    '5x5 least squares',
    'Best of Gaussian / median / bilateral',
    'No processing',
  ]
  gains = [float(row['gain']) for row in rows]
  # Blurring a blur cannot help; undoing it must.
  assert gains[0] == gains[3] == 0 and gains[1] > 3 and gains[2] < 0
  table = (workdir / 'eval/test/table.md').read_text()
  assert table in done.stdout
  assert sorted(p.name for p in (workdir / 'eval/test/pictures').iterdir()) == ['one.png', 'two.png']
  folder = workdir / 'eval' / summary['fingerprint'] / 'test'
  assert len(list(folder.glob('output/*/*.png'))) == len(list(folder.glob('target/*/*.png'))) == 5
  assert not list((workdir / 'eval').rglob('*.partial'))

  # Again: nothing is scored anew; what is missing is.
  stored = {p: p.stat().st_mtime_ns for p in (workdir / 'eval').glob('*/test/*.json')}
  (folder / 'two.json').unlink()
  run_eval(f'--workdir={workdir}')
  changed = {p.name for p, time in stored.items() if p.stat().st_mtime_ns != time}
  assert changed == {'two.json'}
  assert summary_of(workdir)['metrics'] == summary['metrics']


def test_other_options_have_another_fingerprint(workdir, run_eval):
  run_eval(f'--workdir={workdir}', '--protocol=y601', '--frames=every:2')
  summary = summary_of(workdir)
  frames, targets = tiny_run.pair(0, 3)
  expected = metrics.psnr(frames[1], targets[1])
  assert summary['metrics']['psnr']['per_frame']['one'] == [float(expected)]
  assert summary['metrics']['psnr_y601']['per_clip']['one'] > expected
  fingerprints = {p.parent.parent.name for p in (workdir / 'eval').glob('*/test/one.json')}
  assert summary['fingerprint'] in fingerprints and len(fingerprints) >= 2


@pytest.mark.slow
def test_two_processes_share_the_clips_and_the_last_one_makes_the_table(workdir, binary, run_eval, tmp_path):
  shared = tmp_path / 'run'  # with no scores in it
  shutil.copytree(workdir, shared, ignore=shutil.ignore_patterns('eval'))
  parts = [binary('eval', f'--workdir={shared}', f'--part={i}/2', '--baselines') for i in range(2)]
  told = [part.communicate(timeout=300)[0] for part in parts]
  assert [part.returncode for part in parts] == [0, 0], told
  table = (shared / 'eval/test/table.md').read_text()
  assert any(table in text for text in told), told
  found = summary_of(shared)
  rows = (shared / 'eval/test/table.csv').read_text()
  run_eval(f'--workdir={shared}', '--baselines', '--overwrite')
  expected = summary_of(shared)
  for what in ('timing', 'seconds_end_to_end', 'created'):
    found.pop(what), expected.pop(what)
  assert found == expected
  untimed = [[{**row, 'seconds': ''} for row in csv.DictReader(io.StringIO(text))]
             for text in (rows, (shared / 'eval/test/table.csv').read_text())]  # fmt: skip
  assert untimed[0] == untimed[1]


def test_bad_requests_get_one_line(workdir, run_eval):
  cases = {
    (f'--workdir={workdir}', '--part=2/2'): ('--part=2/2: expected i/n with i from 0 to n - 1', 2),
    ('--pred_dir=a', '--gt_dir=b', '--part=0/2'): ('--part=0/2: shares the clips that --workdir or --weights', 2),
    ('--workdir=/nowhere',): ('/nowhere is not a workdir', 1),
    (f'--workdir={workdir}', '--frames=some'): ('--frames=some is not all or every:N', 2),
    (f'--workdir={workdir}', '--describe'): ('Give one of --workdir, --weights, --pred_dir with', 2),
  }
  for args, (message, code) in cases.items():
    stderr = run_eval(*args, code=code).stderr
    assert message in stderr and 'Traceback' not in stderr


def write_clips(folder, clips):
  for name, frames in clips.items():
    for t, frame in enumerate(frames):
      pictures.save_png(folder / name / f'{t:04d}.png', frame)


@pytest.fixture
def triples(tmp_path):
  """Folders of two clips: targets, slightly and strongly noisy copies."""
  rng = np.random.default_rng(0)
  gt = {name: rng.integers(30, 220, (n, 20, 24, 3), dtype=np.uint8) for name, n in (('a', 3), ('b', 4))}
  pred = {name: (x + rng.integers(-3, 4, x.shape)).astype(np.uint8) for name, x in gt.items()}
  lq = {name: (x + rng.integers(-9, 10, x.shape)).astype(np.uint8) for name, x in gt.items()}
  for name, clips in (('gt', gt), ('pred', pred), ('lq', lq)):
    write_clips(tmp_path / name, clips)
  return tmp_path, gt, pred, lq


def test_folders_are_scored_against_folders(triples, run_eval):
  folder, gt, pred, lq = triples
  args = [f'--{flag}_dir={folder / flag}' for flag in ('pred', 'gt', 'lq')]
  done = run_eval(*args, f'--out={folder / "out"}')
  summary = json.loads((folder / 'out/summary.json').read_text())
  for clip in 'ab':
    frames = summary['metrics']['psnr']['per_frame'][clip]
    np.testing.assert_allclose(frames, metrics.psnr(pred[clip], gt[clip]), atol=1e-12)
    inputs = summary['no_processing']['ssim']['per_frame'][clip]
    np.testing.assert_allclose(inputs, metrics.ssim(lq[clip], gt[clip]), atol=1e-12)
  assert (folder / 'out/table.md').read_text() in done.stdout
  assert 'No processing' in done.stdout
  # Scores of files that have changed since are not used.
  write_clips(folder / 'pred', {'b': gt['b'] ^ 1})
  assert 'scored already' not in run_eval(*args, f'--out={folder / "out"}').stderr
  summary = json.loads((folder / 'out/summary.json').read_text())
  assert summary['metrics']['psnr']['per_clip']['b'] == pytest.approx(10 * np.log10(255**2))


def test_without_out_nothing_is_written(triples, run_eval):
  folder = triples[0]
  before = sorted(folder.rglob('*'))
  done = run_eval(f'--pred_dir={folder / "gt"}', f'--gt_dir={folder / "gt"}')
  assert '100.000' in done.stdout and '7 frames equal their targets' in done.stdout
  assert 'No processing' not in done.stdout
  assert sorted(folder.rglob('*')) == before


def test_several_methods_are_scored_at_once_and_resumed(triples, run_eval):
  folder, gt, pred, lq = triples
  args = [f'--pred_dir=good={folder / "pred"},poor={folder / "lq"}', f'--gt_dir={folder / "gt"}']
  args += [f'--lq_dir={folder / "lq"}', f'--out={folder / "out"}']
  done = run_eval(*args, '--metrics=psnr')
  lines = [line.split('|')[1].strip() for line in done.stdout.splitlines() if line.startswith('|')]
  assert lines[2:] == ['good', 'poor', 'No processing']
  assert 'interval over 2 clips' in done.stdout
  scored = {p: p.stat().st_mtime_ns for p in (folder / 'out').glob('*/[ab].json')}
  assert len(scored) == 4
  # More metrics: what is there is kept as it is, what is missing is added, what cannot be is n/a.
  done = run_eval(*args, '--metrics=psnr,sharpness,lpips_alex', f'--perceptual_dir={folder}')
  assert 'LPIPS (alex)' in done.stdout and 'n/a' in done.stdout and 'alexnet-owt-7be5be79.pth' in done.stdout
  summary = json.loads((folder / 'out/good/summary.json').read_text())
  assert set(summary['metrics']) == {'psnr', 'sharpness'} and set(summary['missing']) == {'lpips_alex'}
  np.testing.assert_allclose(summary['metrics']['psnr']['per_frame']['a'], metrics.psnr(pred['a'], gt['a']), atol=1e-12)
  with (folder / 'out/poor/frames.csv').open(newline='') as file:
    assert len(list(csv.DictReader(file))) == 7
  assert run_eval(*args, '--metrics=psnr,sharpness').stderr.count('2 of 2 clips are scored already') == 2
  # One that is damaged (an interrupted evaluation) is made again, the others are not.
  (damaged, *others) = sorted(scored)
  damaged.write_text('{"frames": [0, 1')
  before = {p: p.stat().st_mtime_ns for p in others}
  assert 'is damaged' in run_eval(*args, '--metrics=psnr').stderr
  assert before == {p: p.stat().st_mtime_ns for p in others} and json.loads(damaged.read_text())


def test_methods_need_names(triples, run_eval):
  folder = triples[0]
  for given in (f'{folder / "pred"},{folder / "lq"}', f'a={folder / "pred"},a={folder / "lq"}', 'a=,b=x'):
    assert 'NAME=PATH,NAME=PATH' in run_eval(f'--pred_dir={given}', f'--gt_dir={folder / "gt"}', code=2).stderr


def test_metrics_that_make_no_sense_are_refused_with_the_reason(triples, run_eval):
  folder = triples[0]
  args = [f'--pred_dir={folder / "pred"}', f'--gt_dir={folder / "gt"}']
  assert "did you mean 'tof'" in run_eval(*args, '--metrics=toff', code=2).stderr
  assert 'neighbouring frames' in run_eval(*args, '--metrics=tof', '--frames=every:2', code=1).stderr
  stderr = run_eval(*args, '--metrics=tof', '--noaligned', code=1).stderr
  assert 'compares with the input' in stderr and '--lq_dir' in stderr


def test_frames_that_cannot_be_scored_are_named(triples):
  folder, gt, *_ = triples
  small = {'a': gt['a'][:, :8], 'b': gt['b'][:, :8]}
  write_clips(folder / 'small', small)
  with pytest.raises(errors.DataError, match='at least 11 pixels a side'):
    scoring.score_clip(folder_clips(folder / 'small', folder / 'small')[0][0], scoring.fidelity())
  (folder / 'gap/a').mkdir(parents=True)
  for t in (0, 2, 3):
    pictures.save_png(folder / f'gap/a/{t:04d}.png', gt['a'][0])
  with pytest.raises(errors.VideoError, match='missing in between'):
    folder_clips(folder / 'gap', folder / 'gap')
  for name, mode in (('alpha', 'RGBA'), ('deep', 'I;16')):
    (folder / name / 'a').mkdir(parents=True)
    for t in range(3):
      image = Image.new(mode, (24, 20), 9 if mode == 'I;16' else (1, 2, 3, 128))
      image.save(folder / name / 'a' / f'{t:04d}.png')
    with pytest.raises(errors.VideoError, match='alpha|16'):
      clips, _ = folder_clips(folder / name, folder / name)
      scoring.score_clip(clips[0], scoring.fidelity())


# Runs with another folder of weights that ship: FOLDER, then the flags.
SHIPPED = """
import pathlib, sys
from vqm_jax import cli, eval
from vqm_jax.inference import shipped
shipped.FOLDER = pathlib.Path(sys.argv.pop(1))
cli.run(eval.main)
"""


def test_weights_that_ship(workdir, tmp_path, monkeypatch, command):
  folder = shipped_weights.empty(monkeypatch, tmp_path / 'checkout')
  shipped_weights.add('web-small')

  script = tmp_path / 'eval_shipped.py'
  script.write_text(SHIPPED)

  def run(*args, code=0):
    done = command(script, folder, *args)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr

  out = tmp_path / 'scores'
  given = ('--weights=web-small', f'--data_dir={workdir.parent / "data"}', f'--out={out}', '--metrics=psnr')
  table = run(*given, '--dataset=eval_tiny')
  summary = summary_of(out)
  assert summary['method'] == 'tcl_unet (web-small)' and summary['system'] == 'tcl_unet'
  assert summary['method'] in table and set(summary['metrics']['psnr']['per_clip']) == {'one', 'two'}
  assert {path.name for path in folder.iterdir()} == {'index.json', 'web-small.safetensors'}
  assert '--dataset is required with --weights' in run(*given, code=2)
  assert '--weights needs --out' in run('--workdir=web-small', '--dataset=eval_tiny', code=2)


def test_all_mismatches_are_named_at_once(triples):
  folder, gt, *_ = triples
  write_clips(folder / 'short', {'a': gt['a'][:2], 'b': gt['b'][:, 2:]})
  with pytest.raises(errors.DataError) as caught:
    folder_clips(folder / 'short', folder / 'gt')
  message = str(caught.value)
  assert 'a (--pred_dir 2 x 24x20, --gt_dir 3 x 24x20)' in message
  assert 'b (--pred_dir 4 x 24x18, --gt_dir 4 x 24x20)' in message
  write_clips(folder / 'other', {'b': gt['b'], 'c': gt['b'], 'd': gt['b']})
  with pytest.raises(errors.DataError, match=r'lacks a; .*lacks c, d of --pred_dir'):
    folder_clips(folder / 'other', folder / 'gt')


def test_one_clip_against_one_clip_whatever_their_names(triples):
  folder, gt, pred, _ = triples
  colour = video.Colour('bt709', False)
  frames = [video.rgb_to_yuv(frame, colour) for frame in gt['b']]
  video.encode(frames, folder / 'film.mp4', fps=Fraction(25), colour=colour, crf=10)
  decoded = np.stack(list(video.open_video(folder / 'film.mp4').frames()))
  clips, identity = folder_clips(folder / 'film.mp4', folder / 'gt' / 'b')
  scores = scoring.score_clip(clips[0], scoring.fidelity())
  np.testing.assert_allclose(scores.output['psnr'], metrics.psnr(decoded, gt['b']), atol=1e-12)
  assert len(identity) == 2 and len(identity[1]) == 4
  # A folder that holds one clip is matched by name.
  write_clips(folder / 'x', {'a': gt['a']})
  write_clips(folder / 'y', {'b': gt['a']})
  with pytest.raises(errors.DataError, match='lacks b'):
    folder_clips(folder / 'x', folder / 'y')


def test_videos_of_varying_rate_are_compared_frame_by_frame(triples):
  folder, gt, *_ = triples
  colour = video.Colour('bt709', False)
  for name, times in (('even', [0, 40, 80, 120]), ('uneven', [0, 40, 120, 130])):
    frames = [video.rgb_to_yuv(frame, colour) for frame in gt['b']]
    encoder = codec.Encoder(
      folder / f'{name}.mkv',
      fps=Fraction(25),
      height=20,
      width=24,
      colour=colour,
      timestamps=times,
      time_base=Fraction(1, 1000),
      crf=0,
    )
    for frame in frames:
      encoder.write(frame)
    encoder.finish()
  clips, _ = folder_clips(folder / 'uneven.mkv', folder / 'even.mkv')
  assert np.isinf(scoring.score_clip(clips[0], scoring.fidelity()).output['psnr']).all()


@pytest.mark.slow
def test_describe_needs_neither_run_nor_codec_nor_data(binary, tmp_path):
  process = binary('eval', '--describe', f'--out={tmp_path}', blocked=('av', 'cv2'))
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output
  assert (tmp_path / 'describe.md').read_text() in output
  for figure in ('19,755,067', '19.76M', '-0.02 %', '9.74 (1×2080Ti)', '7,190,126', '+99.73 %', 'stand-in', 'mixtures'):
    assert figure in output
  described = {row['system']: row for row in json.loads((tmp_path / 'describe.json').read_text())['systems']}
  assert described.keys() >= {'gtq', 'ecnu', 'gil', 'tcl', 'jojo', 'boss', 'seventh', 'none'}
  assert described['tcl']['params'] == 8_927_190 and described['tcl']['paper_parameters'] == '≈8.92M'
