"""What messages say about building records is a command that does so."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from vqm_jax import data, errors
from vqm_jax.data import origins

OWN = """
import tensorflow_datasets as tfds
from vqm_jax.prepare.pairs import folder
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import FramesConfig, TilesConfig

class Builder(VqmBuilder):
  VERSION = tfds.core.Version('2.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'As paired_videos.'
  BUILDER_CONFIGS = [TilesConfig(name='tiles_t1p128', num_frames=1, size=128), FramesConfig(name='frames')]
  def clips(self, split, manual_dir):
    return (folder.opened(listed, manual_dir) for listed in folder.listed(split, manual_dir))
"""


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """A folder of paired_videos with a space in its name: three training clips, one of validation."""
  root = tmp_path_factory.mktemp('my pairs')
  for number, clip in enumerate(('train/{}/a', 'train/{}/b', 'train/{}/c', 'val/{}/d')):
    picture = np.random.default_rng(number).integers(0, 255, (17, 20, 3), np.uint8)
    picture = Image.fromarray(picture).resize((160, 136), Image.BICUBIC)
    for side in ('lq', 'hq'):
      folder = root / clip.format(side)
      folder.mkdir(parents=True)
      for index in range(3):
        frame = np.roll(np.asarray(picture), 2 * index, 1) // (8 if side == 'lq' else 1) * (8 if side == 'lq' else 1)
        Image.fromarray(frame).save(folder / f'{index:06d}.png')
  return root


@pytest.fixture
def own(tmp_path):
  folder = tmp_path / 'my code' / 'own_set'
  folder.mkdir(parents=True)
  (folder / '__init__.py').touch()
  (folder / 'own_set_dataset_builder.py').write_text(OWN)
  return folder


def said(error: str) -> list[str]:
  """The flags of the command that a message ends in."""
  text = re.findall('`([^`]*)`', error)[-1]
  python, dash, module, *flags = shlex.split(text)
  assert (python, dash, module) == ('python', '-m', 'vqm_jax.prepare.build'), text
  return flags


@pytest.mark.parametrize('which', ['of ours', 'a folder'])
def test_the_command_builds_what_was_there(command, tmp_path, pairs, own, which):
  root = tmp_path / 'all data'
  dataset, name = ('paired_videos', 'mine') if which == 'of ours' else (own, 'own_set')
  flags = [f'--dataset={dataset}', f'--manual_dir={pairs}', f'--data_dir={root}', '--holdout=1', '--nocheck_pairs']
  flags += ['--name=mine'] if which == 'of ours' else []
  done = command('prepare.build', *flags, '--config=tiles_t1p128', '--per_video=2', '--seed=5')
  assert done.returncode == 0, done.output

  def refused(config='tiles_t1p128', split='train'):
    with pytest.raises(errors.DataError) as caught:
      data.open_source(name, config, split, str(root))
    return str(caught.value)

  (folder,) = (root / name / 'tiles_t1p128').iterdir()
  before = {file.name: file.read_bytes() for file in folder.iterdir()}
  (file,) = folder.glob('*.array_record*')
  file.unlink()
  done = command('prepare.build', *said(refused()))
  assert done.returncode == 0, done.output
  after = {file.name: file.read_bytes() for file in folder.iterdir()}
  assert after.keys() == before.keys()
  assert after[file.name] == before[file.name] and after['metadata.json'] == before['metadata.json']

  # Another config of the same videos, with as many of them held out.
  done = command('prepare.build', *said(refused('frames', 'val')))
  assert done.returncode == 0, done.output
  assert len(data.open_source(name, 'frames', 'holdout', str(root))) == 3

  # The description is damaged, which tells less.
  (folder / 'dataset_info.json').write_text('{')
  done = command('prepare.build', *said(refused()))
  assert done.returncode == 0, done.output
  assert (folder / 'metadata.json').read_bytes() == before['metadata.json']


def test_damaged_records_and_other_kinds_name_it_too(command, tmp_path, pairs):
  flags = ['--dataset=paired_videos', '--name=mine', f'--manual_dir={pairs}', f'--data_dir={tmp_path}']
  assert command('prepare.build', *flags, '--config=tiles_t1p128', '--per_video=2').returncode == 0
  source = data.open_source('mine', 'tiles_t1p128', 'train', str(tmp_path))
  with pytest.raises(errors.DataError, match='no prepared config of mine fits') as caught:
    data.check_records(source, 5, 64)
  template = said(str(caught.value))
  assert f'--manual_dir={pairs}' in template and '--config=...' in template
  (file,) = tmp_path.rglob('*.array_record*')
  content = bytearray(file.read_bytes())
  content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
  file.write_bytes(content)
  with pytest.raises(errors.DataError, match='cannot be read') as caught:
    list(_records(tmp_path))
  done = command('prepare.build', *said(str(caught.value)))
  assert done.returncode == 0, done.output
  assert len(list(_records(tmp_path))) == 6


def _records(root):
  from vqm_jax.data.records import Records

  source = data.open_source('mine', 'tiles_t1p128', 'train', str(root))
  records = Records(source, ['lq', 'hq'])
  return (records[index] for index in range(len(records)))


def test_records_that_do_not_tell_get_the_words_to_fill_in(command, tmp_path, micro_data):
  folder = shutil.copytree(f'{micro_data}/vqm_demo', tmp_path / 'older') / 'micro_tiles' / '1.0.0'
  metadata = json.loads((folder / 'metadata.json').read_text())
  assert metadata.pop('origin') == {'dataset': 'vqm_demo', 'manual_dir': None, 'options': {}}
  (folder / 'metadata.json').write_text(json.dumps(metadata))
  text = origins.again(folder)
  assert '--dataset=BUILDER --name=older --manual_dir=FOLDER --config=micro_tiles' in text
  assert 'BUILDER: intvid, paired_videos, vid3oc, vqm_demo or a folder of your own; FOLDER: that of the videos' in text
  # What can be told by the name alone.
  folder = (tmp_path / 'older').rename(tmp_path / 'vqm_demo') / 'micro_tiles' / '1.0.0'
  flags = said(origins.again(folder))
  assert flags == ['--dataset=vqm_demo', '--config=micro_tiles', f'--data_dir={tmp_path}', '--overwrite']
  assert command('prepare.build', *flags).returncode == 0
  text = origins.missing(tmp_path, 'paired_videos', 'tiles')
  assert '--dataset=paired_videos --manual_dir=FOLDER --config=tiles' in text and '(FOLDER: that of the videos)' in text


@pytest.mark.parametrize(
  'content', [b'', b'{', b'[]', b'\xff', b'{"origin": 3}', b'{"origin": {"dataset": 1}}', b'{"a": 1}']
)
def test_damaged_metadata_tell_nothing(tmp_path, content):
  (tmp_path / 'metadata.json').write_bytes(content)
  assert origins.read(tmp_path) is None
  assert origins.read(tmp_path / 'nothing') is None
