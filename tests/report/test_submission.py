"""The archive for a challenge server: names, selection, readme, checks, scores; the binary from frames to scores."""

import struct
import zipfile
import zlib

import numpy as np
import pytest
import summaries
from PIL import Image, PngImagePlugin
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vqm_jax import errors
from vqm_jax.report import frame_folders
from vqm_jax.report.submission import archive

RNG = np.random.default_rng(0)
README = archive.Readme(1.23, cpu=False, extra_data=False, other='one H100, JAX')
LINES = (
  'runtime per frame [s] : 1.23\nCPU[1] / GPU[0] : 0\nExtra Data [1] / No Extra Data [0] : 0\n'
  'Other description : one H100, JAX\n'
)


def save(path, frame):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(frame).save(path)
  return path


def make_clips(folder, clips=('076', '077'), frames=20, size=(24, 32), start=0, noise=0):
  """Folders of numbered frames; the picture of a place is the same wherever it is made, but for noise."""
  for clip in clips:
    for k in range(frames):
      rng = np.random.default_rng([int(clip), k])
      frame = rng.integers(0, 256, (*size, 3)).astype(int)
      frame = np.clip(frame + np.random.default_rng([1, k]).integers(-noise, noise + 1, frame.shape), 0, 255)
      save(folder / clip / f'{k + start:06d}.png', frame.astype(np.uint8))
  return folder


def packed(tmp_path, step=10, pattern=None, name='a.zip', **options):
  clips = frame_folders.find(make_clips(tmp_path / 'frames', **options), '--frames')
  frames = archive.chosen(clips, step)
  names = archive.entry_names(frames, pattern)
  archive.pack(tmp_path / name, {n: frames[clip][number] for n, (clip, number) in names.items()}, README)
  return tmp_path / name


def rewritten(path, change):
  """The zip with other entries: `change` maps {name: bytes} to a list of (name, bytes)."""
  with zipfile.ZipFile(path) as old:
    entries = {info.filename: old.read(info) for info in old.infolist()}
  with zipfile.ZipFile(path, 'w') as new:
    for name, content in change(entries):
      new.writestr(name, content)
  return path


def png(array=None, *, bits=8, colour=2, extra=b''):
  """A PNG file with any head, made by hand: Pillow writes no 16-bit RGB."""

  def chunk(kind, content):
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

  size = struct.pack('>IIBBBBB', 4, 4, bits, colour, 0, 0, 0)
  rows = b''.join(b'\0' + bytes(4 * {0: 1, 2: 3, 6: 4}[colour] * bits // 8) for _ in range(4))
  body = chunk(b'IHDR', size) + extra + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + body


# Packing.


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


def test_frames_in_folders(tmp_path):
  with pytest.raises(errors.DataError, match='--frames=.*: expected a folder of PNG frames.*there is none'):
    frame_folders.find(tmp_path / 'nowhere', '--frames')
  with pytest.raises(errors.DataError, match='holds no PNG frame; evaluate with --save_frames'):
    frame_folders.find(tmp_path, '--frames')
  make_clips(tmp_path, ['9', '10'], 5)
  assert list(frame_folders.find(tmp_path, '--frames')) == ['9', '10']
  (tmp_path / '9' / '000002.png').unlink()
  with pytest.raises(errors.DataError, match='clip 9 lacks frames after 000001.png, where the number rises by 2 inst'):
    frame_folders.find(tmp_path, '--frames')
  flat = tmp_path / 'flat'
  for clip in ('a', 'b'):
    for k in (9, 10):
      save(flat / f'{clip}_{k}.png', np.zeros((4, 4, 3), np.uint8))
  found = frame_folders.find(flat, '--frames')
  assert [path.name for path in found['b']] == ['b_9.png', 'b_10.png'] and list(found) == ['a', 'b']


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


def test_gamma_is_refused(tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add(b'gAMA', struct.pack('>I', 45455))
  Image.new('RGB', (4, 4)).save(tmp_path / 'x.png', pnginfo=info)
  with pytest.raises(errors.DataError, match='x.png is a gamma; expected'):
    frame_folders.decode((tmp_path / 'x.png').read_bytes(), 'x.png')
  assert frame_folders.decode(png(), 'x.png').shape == (4, 4, 3)


# The readme.


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


# Checking.


EXPECTED = {f'{clip}_{k:06d}.png': (32, 24) for clip in ('076', '077') for k in (9, 19)}


def test_what_was_packed_is_accepted(tmp_path):
  path = packed(tmp_path)
  assert set(archive.verify(path)) == set(EXPECTED) == set(archive.verify(path, EXPECTED))
  assert [name for name, _ in archive.frames(path, ['076_000009.png'])] == ['076_000009.png']


def add(name, content=b'x'):
  return lambda entries: [*entries.items(), (name, content)]


def replace(name, content):
  return lambda entries: (entries | {name: content}).items()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (add('078_000009.png', png()), '1 frames are not expected .078_000009.png.'),
    (lambda e: [item for item in e.items() if item[0] != '077_000019.png'], '1 of 4 frames are missing .077_000019'),
    (lambda e: [(f'frames/{name}', content) for name, content in e.items()], 'lies in one, expected a flat archive'),
    (add('frames/', b''), 'frames/ is a folder'),
    (add('notes.md'), 'notes.md is neither a .png nor readme.txt'),
    (add('Readme.txt'), 'is neither|is there 2 times'),
    (lambda e: [item for item in e.items() if item[0] != 'readme.txt'], 'readme.txt is missing'),
    (replace('readme.txt', LINES.replace('1.23', 'x').encode()), 'the runtime is'),
    (replace('076_000009.png', png()), '076_000009.png is 4x4, expected 32x24'),
    (replace('076_000009.png', png(bits=16)), '076_000009.png is 16-bit RGB, expected plain'),
    (replace('076_000009.png', png(colour=6)), '8-bit RGB with alpha'),
    (replace('076_000009.png', b'no picture'), '076_000009.png is no PNG file'),
    (add('../../etc/passwd.png'), 'leads out of the folder'),
    (add('/tmp/x.png'), 'leads out of the folder'),
    (add('C:x.png'), 'leads out of the folder'),
    (add('..\\x.png'), 'leads out of the folder'),
  ],
)
def test_archives_that_would_be_refused(tmp_path, change, message):
  path = rewritten(packed(tmp_path), change)
  with pytest.raises(errors.DataError, match=f'a.zip would be refused: .*{message}'):
    archive.verify(path, EXPECTED)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.zip', 'frames']  # nothing was unpacked


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_twice_the_same_name(tmp_path):
  path = rewritten(packed(tmp_path), add('076_000009.png', png()))
  with pytest.raises(errors.DataError, match='076_000009.png is there 2 times'):
    archive.verify(path)


def test_files_that_are_no_zip(tmp_path):
  path = packed(tmp_path)
  content = bytearray(path.read_bytes())
  for damage in (content[: len(content) // 2], b'', b'PK', content[:200] + b'\xff' * 64 + content[264:]):
    path.write_bytes(damage)
    with pytest.raises(errors.DataError, match='is no zip that can be read|would be refused'):
      archive.verify(path)
  with pytest.raises(errors.DataError, match='no such file'):
    archive.verify(tmp_path / 'none.zip')


# The binary.


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
