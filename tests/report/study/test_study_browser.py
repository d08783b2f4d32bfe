"""The page of a blind study in a real browser: answered by keyboard, closed in the middle, resumed, handed in, counted.

Needs Chromium, its driver and the package selenium; without them these tests are skipped.
"""

import json
import time

import numpy as np
import pytest
from PIL import Image
from report import page_browser

from vqm_jax.report.study import making, ratings, trials

pytestmark = page_browser.MARKS
webdriver = page_browser.webdriver

QUALITY = {'target': 5, 'good': 4, 'middling': 3, 'poor': 2, trials.DAMAGED: 1}


class Page:
  """A browser with a profile of its own, so that closing it loses nothing."""

  def __init__(self, profile, downloads, size=(1280, 800)):
    from selenium.webdriver.common.keys import Keys

    self.keys = Keys
    preferences = {'download.default_directory': str(downloads)}
    self.driver = page_browser.start(profile, '--disable-gpu', f'--window-size={size[0]},{size[1]}', **preferences)

  def open(self, folder):
    self.driver.get((folder / 'index.html').as_uri())

  def find(self, name):
    return self.driver.find_element('id', name)

  def press(self, key):
    webdriver.ActionChains(self.driver).send_keys(key).perform()

  def wait(self, condition, what):
    return page_browser.wait(self.driver, condition, what)

  def ready(self, heading):
    """Waits until the question under this heading can be answered."""
    self.wait(
      f"document.getElementById('count').textContent === '{heading}' && !document.getElementById('trial').hidden "
      "&& !document.querySelector('#choices button').disabled",
      heading,
    )

  def requests(self):
    return page_browser.requests(self.driver)

  def close(self):
    if self.driver:
      self.driver.quit()
    self.driver = None


@pytest.fixture
def browser(tmp_path):
  opened = []

  def start(**options):
    opened.append(Page(tmp_path / 'profile', tmp_path, **options))
    return opened[-1]

  yield start
  for page in opened:
    page.close()


@pytest.fixture
def make_study(tmp_path):
  def make(mode):
    methods = ['good', 'middling', 'poor']
    frames = {}
    for method in [*methods, 'target']:
      frames[method] = {}
      for clip in range(3):
        rng = np.random.default_rng(clip)
        paths = [tmp_path / method / str(clip) / f'{k}.png' for k in range(3)]
        for k, path in enumerate(paths):
          path.parent.mkdir(parents=True, exist_ok=True)
          Image.fromarray(np.roll(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), 9 * k, 0)).save(path)
        frames[method][str(clip)] = paths
    target = frames.pop('target')
    study = making.Study(
      frames, target, mode, 'A study', 'Which?', 'us', fps=30, first=0, frames=3, crop=(600, 450), slots=7,
      max_trials=6, seed=0,
    )  # fmt: skip
    return tmp_path / 'study', making.build(study, tmp_path / 'study', tmp_path / 'key.json')

  return make


def answer(page, key, trial):
  """What somebody who sees well presses."""
  quality = [QUALITY[key['media'][token]['method']] for token in trial['media']]
  if len(quality) == 1:
    return str(quality[0])
  left, right = quality
  keys = page.keys
  return keys.ARROW_LEFT if left > right else keys.ARROW_RIGHT if right > left else keys.ARROW_DOWN


@pytest.mark.parametrize('mode', trials.MODES)
def test_from_opening_to_the_table(browser, make_study, binary, tmp_path, mode):
  folder, key = make_study(mode)
  order = key['orders'][trials.slot_of('Zoë 7', 7)]
  page = browser()
  page.open(folder)
  assert page.find('start').is_displayed() and 'voluntary' in page.find('welcome').text
  page.find('participant').send_keys('  Zoë  7', page.keys.ENTER)
  page.wait("!document.getElementById('between').hidden", 'the practice')
  page.press(' ')
  for k in (1, 2):  # practice, whatever is pressed
    page.ready(f'Practice {k} of 2')
    page.press('3' if mode == 'mos' else page.keys.ARROW_DOWN)
  page.wait("document.getElementById('between-title').textContent === 'Now it counts'", 'the end of the practice')
  page.press(' ')
  half = len(order) // 2
  for k, trial in enumerate(order[:half]):
    page.ready(f'Question {k + 1} of {len(order)}')
    if k == 1:  # a slip, taken back
      page.press(page.keys.BACKSPACE)
      page.ready(f'Question 1 of {len(order)}')
      page.press(answer(page, key, order[0]))
      page.ready(f'Question 2 of {len(order)}')
    page.press(answer(page, key, trial))
  page.ready(f'Question {half + 1} of {len(order)}')
  assert not page.driver.get_log('browser')
  requested = page.requests()
  page.close()

  page = browser()  # the next day
  page.open(folder)
  assert f'Welcome back, Zoë 7: {half} of {len(order)} questions are answered.' in page.find('welcome').text
  page.press(page.keys.ENTER)  # Continue has the focus
  for k, trial in list(enumerate(order))[half:]:
    page.ready(f'Question {k + 1} of {len(order)}')
    page.press(answer(page, key, trial))
  page.wait("!document.getElementById('done').hidden", 'the end')
  page.press(page.keys.ENTER)  # Download has the focus
  path = tmp_path / f'answers_{key["study"]}_Zo_7.json'
  end = time.monotonic() + 10
  while not path.exists() and time.monotonic() < end:
    time.sleep(0.05)
  text = page.find('answers').get_attribute('value')
  assert path.read_text(encoding='utf-8') == text + '\n'
  requested += page.requests()
  assert len(requested) > 20 and all(url.startswith(('file:', 'data:', 'blob:')) for url in requested)
  assert not page.driver.get_log('browser')

  [rater] = ratings.read(ratings.read_key(tmp_path / 'key.json'), [path])  # the digests of both sides agree
  assert rater.name == 'Zoë 7' and len(rater.votes) == len(order) and rater.checks == (2, 2)
  assert all(vote.plays >= 1 and vote.ms >= 100 for vote in rater.votes)
  out = tmp_path / 'out'
  process = binary(
    'report.study_results', f'--key={tmp_path}/key.json', f'--exports={path}', f'--out={out}', '--min_seconds=0'
  )
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0, output
  table = json.loads((out / 'study.json').read_text())
  expected = ['target', 'good', 'middling', 'poor'] if mode == 'mos' else ['good', 'middling', 'poor']
  assert list(table['methods']) == expected and table['raters'] == 1 and not table['dropped']


def test_both_sides_show_the_same_frame(browser, make_study):
  folder, _ = make_study('pair')
  page = browser()
  page.open(folder)
  page.find('participant').send_keys('P1', page.keys.ENTER)
  page.press(' ')
  page.ready('Practice 1 of 2')
  seen = page.driver.execute_async_script(
    'const done = arguments[0], seen = [];'
    "const look = () => { seen.push([...document.querySelectorAll('canvas')].map((c) => c.dataset.frame));"
    '  if (seen.length < 60) requestAnimationFrame(look); else done(seen); };'
    'requestAnimationFrame(look);'
  )
  assert all(left == right for left, right in seen) and len({left for left, _ in seen}) == 3
  page.press(' ')  # pause
  paused = page.driver.execute_script("return document.querySelector('canvas').dataset.frame")
  time.sleep(0.2)
  assert page.driver.execute_script("return document.querySelector('canvas').dataset.frame") == paused
  webdriver.ActionChains(page.driver).key_down('r').perform()
  page.wait("document.querySelector('canvas').dataset.frame.startsWith('reference')", 'the reference')
  webdriver.ActionChains(page.driver).key_up('r').perform()
  page.wait("document.querySelector('canvas').dataset.frame.startsWith('own')", 'the video')


@pytest.mark.parametrize('mode', trials.MODES)
@pytest.mark.parametrize('size', [(1280, 800), (390, 844)])
def test_nothing_is_cut_off(browser, make_study, mode, size):
  folder, _ = make_study(mode)
  page = browser()
  width, height = size
  page.driver.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600},
  )
  page.open(folder)
  fits = 'document.documentElement.scrollWidth <= window.innerWidth'
  assert page.wait(fits, 'the first page')
  page.find('participant').send_keys('P1', page.keys.ENTER)
  page.press(' ')
  page.ready('Practice 1 of 2')
  assert page.wait(fits, 'the question')
  box = page.driver.execute_script("return document.getElementById('choices').getBoundingClientRect().bottom")
  assert box <= height


def test_a_video_that_cannot_be_loaded_is_told_and_tried_again(browser, make_study):
  folder, _ = make_study('mos')
  hidden = (folder / 'media').rename(folder / 'elsewhere')
  page = browser()
  page.open(folder)
  page.find('participant').send_keys('P1', page.keys.ENTER)
  page.press(' ')
  page.wait("document.getElementById('status').textContent.startsWith('A video could not be loaded.')", 'the message')
  hidden.rename(folder / 'media')
  page.press(' ')
  page.ready('Practice 1 of 2')
