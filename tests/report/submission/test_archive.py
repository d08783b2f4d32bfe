"""The archive for a challenge server: names, selection, readme, checks, scores; the binary from frames to scores."""

import zipfile

import numpy as np
import pytest
import summaries
from PIL import Image
from report.packing import LINES, README, make_clips, packed, png, save
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vqm_jax import errors
from vqm_jax.report import frame_folders
from vqm_jax.report.submission import archive

RNG = np.random.default_rng(0)


def test_every_tenth_frame_by_its_index(tmp_path):
  with zipfile.ZipFile(packed(tmp_path)) as found:
    names = found.namelist()
    assert names == ['076_000009.png', '076_000019.png', '077_000009.png', '077_000019.png', 'readme.txt']
    tenth = (tmp_path / 'frames/076/000009.png').read_bytes()
    assert found.read('076_000009.png') == tenth  # as IntVid counts, from 0
    assert found.read('readme.txt').decode() == LINES
    assert {(i.compress_type, i.date_time) for i in found.infolist()} == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))}


def test_the_same_frames_give_the_same_bytes(tmp_path):
  first, second = packed(tmp_path), packed(tmp_path, name='b.zip')
  assert first.read_bytes() == second.read_bytes()
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a.zip', 'b.zip', 'frames']


def test_names_of_the_inputs_are_kept_where_they_differ(tmp_path):
  for clip in ('076', '077'):
    for k in (1, 2):
      save(tmp_path / clip / f'{clip}_{k}.png', RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8))
  frames = archive.chosen(frame_folders.find(tmp_path, '--frames'), 1)
  assert list(archive.entry_names(frames)) == ['076_1.png', '076_2.png', '077_1.png', '077_2.png']
  assert list(archive.entry_names(frames, '{clip}-{frame}-{index}-{name}.png'))[1] == '076-2-1-076_2.png'


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    ('{clip}.png', 'gives 2 names to several frames, such as 076.png; use both'),
    ('{clip}/{frame}.png', "makes '076/1.png'; expected names .* without folders"),
    ('../{clip}_{frame}.png', 'without folders'),
    ('{clip}_{frame}.jpg', 'end in .png'),
    ('{video}.png', "unknown field 'video'"),
    ('{frame:x%}.png', 'expected a pattern such as'),
    ('{clip', 'expected a pattern'),
  ],
)
def test_patterns_that_cannot_be(tmp_path, pattern, message):
  frames = archive.chosen(frame_folders.find(make_clips(tmp_path, frames=2), '--frames'), 1)
  with pytest.raises(errors.ConfigError, match=message):
    archive.entry_names(frames, pattern)


def test_selection(tmp_path):
  clips = frame_folders.find(make_clips(tmp_path, ['076'], 12), '--frames')
  assert list(archive.chosen(clips, 1)['076']) == list(range(1, 13))
  assert list(archive.chosen(clips, 5)['076']) == [5, 10]
  with pytest.raises(errors.DataError, match='clip 076 has 12 frames, none of them is every 20th'):
    archive.chosen(clips, 20)
  kept = {'076': clips['076'][:2]}
  assert list(archive.chosen(kept, 10, {'076': [5, 10]})['076']) == [10]
  with pytest.raises(errors.DataError, match='frame 1 was not kept .8 of 10 are missing.; evaluate with --frames=all'):
    archive.chosen(kept, 1, {'076': [5, 10]})
  assert archive.every('all') == 1 and archive.every('every:10') == 10
  for text in ('every:0', 'every:', '10', 'first'):
    with pytest.raises(errors.ConfigError, match=f'--select={text} is not'):
      archive.every(text)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (png(bits=16), 'is 16-bit RGB; expected plain 8-bit RGB'),
    (png(colour=6), 'is 8-bit RGB with alpha;'),
    (png(colour=0), 'is 8-bit grey;'),
    (b'GIF89a', 'is no PNG file'),
    (png()[:-20], 'is damaged: the PNG file is cut off'),
    (png().replace(b'IDAT', b'IDAT\xff', 1), 'is damaged'),
  ],
)
def test_frames_that_are_no_plain_png_are_not_packed(tmp_path, content, message):
  (tmp_path / 'x.png').write_bytes(content)
  with pytest.raises(errors.DataError, match=f'x.png {message}'):
    archive.pack(tmp_path / 'a.zip', {'x.png': tmp_path / 'x.png'}, README)
  assert [path.name for path in tmp_path.iterdir()] == ['x.png']


def test_readme_is_one_line_each():
  text = archive.Readme(0.0211, True, True, 'two\nlines', 'image').text()
  assert text.splitlines()[0] == 'runtime per image [s] : 0.0211' and text.endswith('Other description : two lines\n')
  assert archive.readme_problems(text) == [] == archive.readme_problems(LINES)


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    ('1.23', 'fast', "the runtime is 'fast', expected seconds above 0"),
    ('1.23', '0', 'expected seconds above 0'),
    ('1.23', 'nan', 'expected seconds above 0'),
    ('GPU[0] : 0', 'GPU[0] : no', "is 'no', expected 0 or 1"),
    ('Extra Data [1]', 'Extra [1]', 'is not the line of the extra field'),
    (' one H100, JAX', '', 'the description is empty'),
    ('CPU[1] / GPU[0] : 0\n', '', '3 lines instead of 4'),
  ],
)
def test_readme_problems(old, new, message):
  [problem] = archive.readme_problems(LINES.replace(old, new))
  assert message in problem


BLOCKED = ['av', 'cv2', 'tensorflow', 'tensorflow_datasets']


def run(binary, *args, code=0):
  process = binary('report.submission', *args, blocked=BLOCKED)
  output = process.communicate(timeout=120)[0]
  assert process.returncode == code, output
  return output


def test_from_a_run_to_scores(binary, tmp_path):
  """A workdir as `eval --save_frames` leaves it, packed, checked and scored."""
  folder = tmp_path / 'run/eval/abc/test'
  make_clips(folder / 'output', noise=9)
  make_clips(folder / 'input', noise=30)
  targets = make_clips(tmp_path / 'targets', start=1)
  summary = {
    'method': 'ecnu (step 5)',
    'metrics': {'psnr': {'mean': 30.0}},
    'timing': {'seconds_per_frame': 0.0211, 'device': 'NVIDIA H100', 'frame_size': [1080, 1920]},
    'train': {'hardware': '1 x NVIDIA H100', 'extra_data': False},
    'frame_indices': {clip: list(range(20)) for clip in ('076', '077')},
    'folders': summaries.kept('abc'),
  }
  path = summaries.write(tmp_path / 'run/eval/test', **summary)
  out = tmp_path / 'out.zip'
  output = run(
    binary, f'--frames={tmp_path / "run"}', f'--out={out}', f'--input_dir={folder / "input"}', '--select=every:10'
  )
  assert '4 frames of 2 clips' in output and 'runtime per frame [s] : 0.0211\nCPU[1] / GPU[0] : 0\n' in output
  assert 'Other description : ecnu (step 5); NVIDIA H100; trained on 1 x NVIDIA H100; JAX, vqm_jax' in output
  output = run(binary, f'--verify={out}', f'--gt_dir={targets}', '--select=every:10')
  assert '4 frames of 32x24, no problem found' in output
  scores = dict(line.split(':') for line in (tmp_path / 'scores.txt').read_text().splitlines())
  pairs = [
    [
      np.asarray(Image.open(file))
      for file in (folder / f'output/{clip}/{k - 1:06d}.png', targets / f'{clip}/{k:06d}.png')
    ]
    for clip in ('076', '077')
    for k in (10, 20)
  ]
  psnr = np.mean([peak_signal_noise_ratio(target, pred) for pred, target in pairs])
  options = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False, 'channel_axis': -1}
  ssim = np.mean([structural_similarity(target, pred, data_range=255, **options) for pred, target in pairs])
  assert float(scores['PSNR']) == pytest.approx(psnr, abs=1e-5)
  assert float(scores['SSIM']) == pytest.approx(ssim, abs=1e-5)
  # Frames that were not kept are not there to be packed.
  summaries.write(path, **summary | {'folders': None})
  assert 'its frames were not kept; evaluate again with --save_frames' in run(binary, f'--frames={path}', code=1)


@pytest.mark.slow
def test_what_the_readme_needs_has_to_come_from_somewhere(binary, tmp_path):
  frames = make_clips(tmp_path / 'frames', frames=3)
  output = run(binary, f'--frames={frames}', '--select=all', f'--out={tmp_path / "x.zip"}', '--runtime=1', code=2)
  assert output == (
    'error: The readme needs what no result tells: give --[no]cpu, --[no]extra_data, or --results of an evaluation '
    'that was timed.\n'
  )
  given = ('--select=all', '--runtime=1', '--cpu', '--extra_data', '--names={clip}{frame:03d}.png')
  output = run(binary, f'--frames={frames}', f'--out={tmp_path / "x.zip"}', *given)
  assert '6 frames of 2 clips' in output and '076001.png to 077003.png' in output
  other = make_clips(tmp_path / 'inputs', frames=3, size=(24, 30))
  output = run(binary, f'--frames={frames}', f'--input_dir={other}', f'--out={tmp_path / "y.zip"}', *given, code=1)
  assert 'is 32x24, its input 30x24; frames keep the size of their inputs' in output
  assert not (tmp_path / 'y.zip').exists()
