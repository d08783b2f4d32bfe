"""The results page in a real browser, without a network: divider, zoom, table, worst frames, clips in step, widths.

Needs Chromium, its driver and the package selenium; without them these tests are skipped.
"""

import json
import time

import numpy as np
import pytest
import summaries
from report import page_browser

from vqm_jax import files, pictures
from vqm_jax.report.page import build

pytestmark = page_browser.MARKS
webdriver = page_browser.webdriver

HEIGHT, WIDTH, COUNT = 90, 160, 8
ODD = 'b<i>"&\' ü'
CLIPS = ('a', ODD)
LONG = 'a_method_with_a_very_long_name</script><b>that has no spaces'


def _frames(seed):
  return {clip: np.random.default_rng([seed, k]).integers(40, 216, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8)
          for k, clip in enumerate(CLIPS)}  # fmt: skip


def _noisy(noise, seed):
  rng = np.random.default_rng(seed)
  return {clip: (one + rng.integers(-noise, noise + 1, one.shape)).astype(np.uint8) for clip, one in TARGET.items()}


TARGET = _frames(0)
SIDES = {'Input': _noisy(20, 1), 'ecnu': _noisy(12, 2), LONG: _noisy(6, 3), 'Target': TARGET}
NAMES = list(SIDES)
SIDES['ecnu']['a'][5] = SIDES['Input']['a'][5] // 2  # much worse than the input


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  workdirs = []
  for method, params in (('ecnu', 114_413), (LONG, 9_000)):
    run = folder / f'run{len(workdirs)}'
    workdirs.append(str(run))
    for side, name in (('output', method), ('input', 'Input'), ('target', 'Target')):
      for clip, frames in SIDES[name].items():
        for index, frame in enumerate(frames):
          pictures.save_png(run / 'eval/f/test' / side / clip / f'{index:06d}.png', frame)
    summaries.write(
      run / 'eval/test', method=method, params=params, folders=summaries.kept('f'),
      metrics={'psnr': summaries.psnr(SIDES[method], TARGET)},
      no_processing={'psnr': summaries.psnr(SIDES['Input'], TARGET)},
      timing={'seconds_per_frame': 1 / params, 'device': 'CPU', 'frame_size': [HEIGHT, WIDTH]},
    )  # fmt: skip
    lines = [json.dumps({'step': k, 'train/loss': 1 / k, 'val/psnr': 30 + k}) for k in (1, 2, 3)]
    files.write_text(run / 'metrics.jsonl', '\n'.join(lines))
  build.write(folder / 'a page.html', workdirs, frames='at:2,6', extremes=1, motion=COUNT, fps=60.0)
  return folder / 'a page.html'


class Browser(page_browser.Browser):
  def open(self, path, width=1280, height=900, dark=False):
    super().open(path, width, height, dark)
    self.choose_frame(2)

  def frames(self):
    """The frame on each canvas of the player."""
    return self.run("return [...document.querySelectorAll('#screens canvas')].map((one) => one.dataset.frame)")


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  opened = Browser(tmp_path_factory.mktemp('profile'))
  yield opened
  opened.driver.quit()


@pytest.fixture
def opened(browser, page_file):
  browser.open(page_file)
  yield browser
  assert browser.errors() == []


def expected(view, shape, left, right):
  """The canvas that a view asks for, from frames of both sides."""
  height, width = shape[:2]
  y, x = np.mgrid[:height, :width]
  start = np.where(x < view['edge'], 0, view['pane'] + view['gap'] if view['gap'] else 0)
  column = np.floor((x - start - view['x']) / view['scale']).astype(int)
  row = np.floor((y - view['y']) / view['scale']).astype(int)
  inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
  if view['gap']:
    inside &= (x < view['pane']) | (x >= view['pane'] + view['gap'])
  row, column = row.clip(0, HEIGHT - 1), column.clip(0, WIDTH - 1)
  picture = np.where((x < view['edge'])[..., None], left[row, column], right[row, column])
  return np.where(inside[..., None], picture, 0)


def check(page, left, right, clip, frame):
  picture = page.picture()
  want = expected(page.view, picture.shape, SIDES[left][clip][frame], SIDES[right][clip][frame])
  np.testing.assert_array_equal(picture, want)


def test_divider_by_keyboard_and_mouse(opened):
  assert opened.view['scale'] == 6
  check(opened, 'Input', 'ecnu', 'a', 2)
  first = opened.picture()
  handle = opened.find('handle')
  handle.send_keys(opened.keys.ARROW_RIGHT)
  opened.press(*[opened.keys.ARROW_RIGHT] * 4)
  assert handle.get_attribute('aria-valuenow') == '55' and handle.get_attribute('aria-valuetext') == '55 % Input'
  moved = opened.view
  assert moved['edge'] - moved['low'] == round(0.55 * 960) and not np.array_equal(opened.picture(), first)
  check(opened, 'Input', 'ecnu', 'a', 2)
  opened.press(opened.keys.HOME)
  check(opened, 'ecnu', 'ecnu', 'a', 2)
  opened.press(opened.keys.END)
  check(opened, 'Input', 'Input', 'a', 2)
  assert abs(handle.rect['x'] + 22 - opened.find('picture').rect['x'] - opened.view['high']) <= 1
  opened.drag(300, 400, 0, 0)  # a click takes the divider there
  assert opened.view['edge'] == 300
  opened.drag(305, 100, 200, 30)
  assert opened.view['edge'] == 505
  check(opened, 'Input', 'ecnu', 'a', 2)
  assert opened.driver.switch_to.active_element == handle


def test_zoom_to_pixels_and_pan(opened):
  opened.find('picture').send_keys('+')
  assert opened.view['scale'] == 8
  opened.press('+', '+')
  assert opened.view['scale'] == 32 and opened.find('zoom').text == '3200 %' and not opened.find('in').is_enabled()
  check(opened, 'Input', 'ecnu', 'a', 2)
  before = opened.view
  opened.press(opened.keys.ARROW_LEFT, opened.keys.ARROW_UP)
  assert opened.view['x'] == before['x'] + 40 and opened.view['y'] == before['y'] + 40
  opened.drag(700, 300, -100, -60)
  after = opened.view
  assert (after['x'], after['y']) == (before['x'] - 60, before['y'] - 20) and after['edge'] == before['edge']
  check(opened, 'Input', 'ecnu', 'a', 2)
  opened.click('beside')
  check(opened, 'Input', 'ecnu', 'a', 2)  # the same place on both sides
  assert not opened.find('handle').is_displayed()
  pane = opened.view['pane']
  opened.drag(pane + 200, 200, 50, 50)
  check(opened, 'Input', 'ecnu', 'a', 2)
  opened.drag(100, 200, 5000 // 20, 150)
  check(opened, 'Input', 'ecnu', 'a', 2)
  opened.click('fit')
  assert opened.view['scale'] == 3
  check(opened, 'Input', 'ecnu', 'a', 2)
  opened.click('slider')
  webdriver.ActionChains(opened.driver).move_to_element_with_offset(
    opened.find('picture'), 200, 0
  ).double_click().perform()
  assert opened.view['scale'] == 8
  check(opened, 'Input', 'ecnu', 'a', 2)


def test_versions_and_frames(opened):
  opened.select('right', LONG)
  check(opened, 'Input', LONG, 'a', 2)
  assert opened.find('right-label').text.startswith(LONG) and opened.find('right-label').text.endswith(' dB')
  opened.click('swap')
  check(opened, LONG, 'Input', 'a', 2)
  opened.select('left', 'Target')
  assert opened.find('left-label').text == 'Target'
  texts = [one.text for one in opened.select_of(opened.find('frame')).options]
  assert '5 (worst of ecnu)' in texts and {'2', '6'} <= {text.split()[0] for text in texts}
  opened.choose_frame(6)
  check(opened, 'Target', 'Input', 'a', 6)
  opened.select('clip', ODD)
  shown = opened.run("return document.getElementById('frame').selectedOptions[0].textContent")
  check(opened, 'Target', 'Input', ODD, int(shown.split()[0]))
  opened.click('previous')
  assert opened.select_of(opened.find('clip')).first_selected_option.text == 'a'
  opened.find('handle').send_keys('.')
  opened.settled()
  assert opened.select_of(opened.find('clip')).first_selected_option.text == ODD
  assert not opened.find('scale').is_displayed()
  before = opened.picture()
  opened.select('right', 'Error of ecnu')
  assert opened.find('scale').is_displayed() and opened.find('right-label').text == 'Error of ecnu'
  after, view = opened.picture(), opened.view
  assert np.array_equal(after[:, : view['edge']], before[:, : view['edge']])
  noise = after[:, view['edge'] : view['high']].mean()
  opened.select('right', f'Error of {LONG}')  # half the noise
  assert opened.picture()[:, view['edge'] : view['high']].mean() < noise


def test_table_is_sorted_by_a_click(opened):
  def column():
    return [row.text for row in opened.driver.find_elements('css selector', '#results table:first-of-type tbody th')][
      :3
    ]

  heads = opened.driver.find_elements('css selector', '#results table:first-of-type thead th')
  names = [head.text for head in heads]
  assert column() == [LONG, 'ecnu', 'No processing']
  parameters = heads[names.index('Parameters')]
  parameters.find_element('tag name', 'button').send_keys(opened.keys.ENTER)
  assert column() == [LONG, 'ecnu', 'No processing'] and parameters.get_attribute('aria-sort') == 'ascending'
  parameters.click()
  assert column() == ['ecnu', LONG, 'No processing']  # what has no number stays below
  heads[names.index('↑PSNR')].find_element('tag name', 'button').click()
  assert parameters.get_attribute('aria-sort') is None
  scores = [
    float(cell.text) for cell in opened.driver.find_elements('css selector', '#results tbody td:nth-child(3)')[:3]
  ]
  assert scores == sorted(scores, reverse=True)


def test_worst_frame_opens_in_the_divider(opened):
  opened.select('left', 'Target')
  shown = [one for one in opened.driver.find_elements('css selector', '.extremes') if one.is_displayed()]
  assert len(shown) == 1
  button = shown[0].find_element('css selector', 'button')
  assert 'frame 5' in button.text and button.find_element('tag name', 'img').get_attribute('naturalWidth') == '160'
  button.click()
  opened.settled()
  check(opened, 'Input', 'ecnu', 'a', 5)
  assert opened.driver.switch_to.active_element == opened.find('handle')
  assert opened.run("const box = document.getElementById('picture').getBoundingClientRect(); return box.top >= 0")
  opened.select('extreme-method', LONG)
  shown = [one for one in opened.driver.find_elements('css selector', '.extremes') if one.is_displayed()]
  assert len(shown) == 1 and shown[0].get_attribute('data-method') == '1'


def test_clips_play_in_step(opened):
  opened.run("document.getElementById('motion').scrollIntoView()")
  opened.wait("document.querySelectorAll('#screens canvas').length === 3", 'the clips')
  assert opened.frames() == ['0', '0', '0']
  for box in opened.driver.find_elements('css selector', '#motion-sides input'):
    if not box.is_selected():
      box.click()
  opened.wait("document.querySelectorAll('#screens canvas').length === 4", 'the other method')
  opened.find('play').click()
  seen = opened.driver.execute_async_script(
    'const done = arguments[0], seen = [];'
    "const look = () => { seen.push([...document.querySelectorAll('#screens canvas')].map((c) => c.dataset.frame));"
    '  if (seen.length < 80) requestAnimationFrame(look); else done(seen); };'
    'requestAnimationFrame(look);'
  )
  assert all(len(set(frames)) == 1 for frames in seen) and len({frames[0] for frames in seen}) == COUNT
  opened.find('play').click()
  paused = opened.frames()
  time.sleep(0.2)
  assert opened.frames() == paused and opened.find('play').text == 'Play'
  k = int(paused[0])
  opened.press(opened.keys.ARROW_RIGHT)
  k = (k + 1) % COUNT
  assert opened.frames() == [str(k)] * 4 and opened.find('motion-frame').text == f'Frame {k} ({k + 1} of {COUNT})'
  for canvas, side in zip(opened.driver.find_elements('css selector', '#screens canvas'), NAMES, strict=True):
    found = opened.pixels(canvas).astype(int)
    distances = [np.abs(found - frame).mean() for frame in SIDES[side]['a'].astype(int)]
    assert int(np.argmin(distances)) == k  # with loss, so that only the nearest is known
  opened.press(*[opened.keys.ARROW_LEFT] * (k + 1))
  assert opened.frames() == [str(COUNT - 1)] * 4
  opened.find('place').send_keys(opened.keys.HOME)
  assert opened.frames() == ['0'] * 4
  opened.press(' ')  # plays from anywhere in this part
  opened.wait("document.querySelector('#screens canvas').dataset.frame !== '0'", 'another frame')
  opened.press(' ')
  opened.select('motion-clip', ODD)
  opened.wait("document.querySelectorAll('#screens canvas').length === 4 && !document.getElementById('screens')"
              ".hasAttribute('aria-busy')", 'the other clip')  # fmt: skip
  assert opened.frames() == ['0'] * 4 and opened.find('play').text == 'Play'


def test_nothing_is_asked_of_a_network(browser, page_file):
  browser.driver.get_log('performance')
  browser.open(page_file)
  browser.run("document.getElementById('motion').scrollIntoView()")
  browser.wait("document.querySelectorAll('#screens canvas').length === 3", 'the clips')
  requested = browser.requests()
  assert requested[0] == page_file.as_uri() and all(url.startswith('data:') for url in requested[1:])
  assert browser.errors() == []


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('size', [(1280, 900), (390, 844)])
def test_nothing_is_cut_off(browser, page_file, tmp_path, size, dark):
  browser.open(page_file, *size, dark=dark)
  browser.run("document.getElementById('motion').scrollIntoView()")
  browser.wait("document.querySelectorAll('#screens canvas').length === 3", 'the clips')
  assert browser.run('return document.documentElement.scrollWidth') <= size[0]
  beyond = browser.run(
    "return [...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, .plots, .visually-hidden')"
    '  && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))'
  )
  assert beyond == []
  box = browser.find('picture').rect
  assert box['width'] <= size[0] and box['height'] <= size[1]
  colour = browser.run('return getComputedStyle(document.body).backgroundColor')
  assert (sum(map(int, colour[4:-1].split(','))) < 150) == dark
  check(browser, 'Input', 'ecnu', 'a', 2)


def test_finger_moves_the_divider(browser, page_file):
  browser.open(page_file, 390, 844)
  browser.run("document.getElementById('stage').scrollIntoView({ block: 'center' })")
  box = browser.run("const box = document.getElementById('picture').getBoundingClientRect(); return [box.x, box.y]")
  before = browser.view['edge']

  def touch(kind, *points):
    browser.driver.execute_cdp_cmd(
      'Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [{'x': box[0] + x, 'y': box[1] + y} for x, y in points]}
    )

  touch('touchStart', (before, 60))
  for step in range(1, 9):
    touch('touchMove', (before + 8 * step, 60))
  touch('touchEnd')
  assert abs(browser.view['edge'] - before - 64) <= 1
  check(browser, 'Input', 'ecnu', 'a', 2)


@pytest.mark.parametrize('width', [1400, 390])
def test_no_column_of_the_table_is_cut(browser, page_file, width):
  browser.open(page_file, width, 900)
  sizes = browser.run(
    "return [...document.querySelectorAll('.scroll')].map((one) => [one.scrollWidth, one.clientWidth])"
  )
  assert sizes and all(needed <= there for needed, there in sizes)


def test_methods_stay_while_the_table_is_scrolled(browser, page_file):
  browser.open(page_file, 700, 900)
  left, needed, there = browser.run(
    "const one = document.querySelector('.scroll'); one.style.width = '300px'; one.scrollLeft = 200;"
    "return [one.querySelector('tbody th').getBoundingClientRect().left - one.getBoundingClientRect().left,"
    ' one.scrollWidth, one.clientWidth]'
  )
  assert needed > there + 200 and left == 0
