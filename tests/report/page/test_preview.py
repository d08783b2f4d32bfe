"""The preview page without a browser: frames, strengths, commands, time, escaping, size."""

import dataclasses
import re

import numpy as np
import pytest
from report.parsed_page import Parsed, pixels
from report.previews import EVIL, INDICES, ODD, STRENGTHS, frames, make

from vqm_jax import errors
from vqm_jax.report import panels
from vqm_jax.report.page import preview


@pytest.fixture(scope='module')
def shown():
  return make()


@pytest.fixture(scope='module')
def parsed(shown, tmp_path_factory):
  out = tmp_path_factory.mktemp('preview') / 'page.html'
  preview.write(out, shown)
  return Parsed(out.read_text(encoding='utf-8'))


def test_six_frames_at_three_strengths(parsed, shown):
  data = parsed.data
  assert data['sides'] == ['Input', 'Strength 0.5', 'Strength 1', 'Strength 1.5'] and data['first'] == 2
  assert [still['frame'] for still in data['stills']] == INDICES
  for k, still in enumerate(data['stills']):
    want = [shown.before[k], *(shown.after[strength][k] for strength in STRENGTHS)]
    for uri, frame in zip(still['pictures'], want, strict=True):
      np.testing.assert_array_equal(pixels(uri), frame)
  buttons = [one for tag, one in parsed.elements if tag == 'button']
  assert [one['data-side'] for one in buttons if 'data-side' in one] == ['1', '2', '3']
  assert [one['data-still'] for one in buttons if 'data-still' in one] == list('012345')
  assert all(f'Frame {index}' in parsed.text for index in INDICES)


def test_what_is_said(parsed):
  text = parsed.text
  assert text.startswith(f'Preview of {ODD}') and f'tcl_unet, step 9 {EVIL}' in text
  for fact in ('Size60x40', 'Frames6 of 48', 'Time per frame93.5 s', 'Whole videoabout 1 h 14 min 48 s'):
    assert fact in text
  assert 'exact (lossless WebP)' in text and '48 times 93.5 s' in text


def test_commands_survive(parsed, shown):
  commands = {one['data-of-side'] for _, one in parsed.elements if 'data-of-side' in one}
  assert commands == {'1', '2', '3'}
  for command in shown.commands.values():
    assert command in ''.join(parsed.texts)  # both spaces, too
  assert not {'b', 'alert'} & {tag for tag, _ in parsed.elements}
  assert sum(tag == 'script' for tag, _ in parsed.elements) == 2 and parsed.data['clips'] == [ODD]


def test_nothing_is_loaded_and_everything_is_found(parsed):
  everything = [value or '' for _, attributes in parsed.elements for value in attributes.values()] + parsed.scripts
  assert not [text[:80] for text in everything if re.search(r'https?:|\bftp:|["\'(]\s*//\w|@import|url\((?!#)', text)]
  loaded = [attributes[name] for _, attributes in parsed.elements for name in ('src', 'href') if name in attributes]
  assert all(value.startswith(('data:', '#')) for value in loaded) and len(loaded) > 9
  assert len(set(parsed.ids)) == len(parsed.ids)
  pointers = {name for _, one in parsed.elements for key in ('aria-labelledby', 'aria-describedby') if key in one
              for name in one[key].split()}  # fmt: skip
  assert pointers | {one['href'][1:] for tag, one in parsed.elements if tag == 'a'} <= set(parsed.ids)


def test_page_keeps_its_size(shown):
  whole = len(preview.render(shown).encode())
  for part in (0.7, 0.5):
    text = preview.render(shown, whole * part / 1e6)
    assert len(text.encode()) <= whole * part and 'compressed with loss (WebP quality' in text
  with pytest.raises(errors.ConfigError, match=r'MB with the smallest frames, at most 0.001 are allowed'):
    preview.render(shown, 0.001)
  assert preview.MAX_MB == 20


def test_shrunk_frames_say_so(shown):
  large = dataclasses.replace(shown, before=frames(160, 240), after={1.0: frames(160, 240)}, commands={1.0: 'x'})
  parsed = Parsed(preview.render(large, 0.3))
  still = parsed.data['stills'][0]
  factor = 240 // still['width']
  assert factor > 1 and f'shrunk {factor} times to {still["width"]}x{still["height"]} pixels' in parsed.text
  small = panels.resized(large.before[0], still['width'])
  assert pixels(still['pictures'][0]).shape == small.shape


def test_duration():
  assert [preview.duration(s) for s in (0.2, 59.6, 61, 3600, 360_000)] == [
    '0 s', '1 min 0 s', '1 min 1 s', '1 h 0 min 0 s', '100 h 0 min 0 s',
  ]  # fmt: skip
