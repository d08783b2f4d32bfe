import pytest

from vqm_jax import errors


@pytest.mark.parametrize(
  ('text', 'shown'),
  [
    ('a\n  b\tc', 'a b c'),
    ('x\x1b[31m\x00y', 'x?[31m?y'),
    (r"b'\xff\xfe\x00abc'", "b'?abc'"),
    ('/data/.out.mp4.1234.partial: broken', '/data/out.mp4: broken'),
    ('<_io.BytesIO object at 0x7f00aa> is no image', 'BytesIO is no image'),
  ],
)
def test_a_message_is_plain_text_on_one_line(text, shown):
  assert errors.one_line(text) == shown


def test_the_nearest_name_is_offered_if_one_is_near():
  near = errors.did_you_mean
  assert near('TLC', ['tcl', 'gtq']) == "did you mean 'tcl'? " and near('xyz', ['tcl', 'gtq']) == ''


def test_of_a_long_message_the_middle_is_left_out():
  line = errors.one_line('the file ' + 'x' * 5000 + ' so do that')
  assert len(line) <= errors.LONGEST and line.startswith('the file') and line.endswith('so do that') and ' ... ' in line


def test_a_command_is_kept_whole():
  command = f'`python -m this --input={"y" * 250}`'
  line = errors.one_line(f'the file {"x" * 5000}; run `this` or {command} and wait.')
  assert len(line) <= errors.LONGEST and line.endswith(f'{command} and wait.')
  line = errors.one_line(f'the file {"x" * 5000}; run `{"y" * 1000}`')
  assert len(line) <= errors.LONGEST and line.startswith('the file xxx') and line.endswith('yyy`')


@pytest.mark.parametrize(
  ('name', 'hint'),
  [
    ('encu', "did you mean 'ecnu'? "),
    ('TCL_Unet', "did you mean 'tcl_unet'? "),
    ('clip_A', "did you mean 'Clip_A'? "),
    ('x', ''),
    ('', ''),
    ('y' * 10**6, ''),
  ],
)
def test_the_name_that_may_be_meant(name, hint):
  assert errors.did_you_mean(name, ['ecnu', 'tcl_unet', 'Clip_A']) == hint
