"""The preview page in a real browser, without a network: strengths, frames, commands, widths, dark.

Needs Chromium, its driver and the package selenium; without them this test is skipped.
"""

import numpy as np
import pytest
from report import page_browser
from report.previews import INDICES, ODD, STRENGTHS, frames, make

from vqm_jax.report.page import preview

pytestmark = page_browser.MARKS

HEIGHT, WIDTH = 90, 160


@pytest.fixture(scope='module')
def shown():
  after = {strength: frames(HEIGHT, WIDTH) for strength in STRENGTHS}
  long = f"python -m vqm_jax.enhance '--input={'folder_with_a_long_name/' * 9}{ODD}'"
  return make(before=frames(HEIGHT, WIDTH), after=after, commands={s: f'{long} --strength={s:g}' for s in STRENGTHS})


@pytest.fixture(scope='module')
def page_file(shown, tmp_path_factory):
  out = tmp_path_factory.mktemp('preview') / 'a page.html'
  preview.write(out, shown)
  return out


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  opened = page_browser.Browser(tmp_path_factory.mktemp('profile'))
  yield opened
  opened.driver.quit()


def check(browser, left, right):
  """Both sides of the canvas, where whole pixels of the frames are shown."""
  view, picture = browser.view, browser.picture()
  scale, x, y = view['scale'], view['x'], view['y']
  assert scale == int(scale) > 0
  whole = picture[y : y + HEIGHT * scale : scale, x : x + WIDTH * scale : scale]
  edge = -(-(view['edge'] - x) // scale)
  np.testing.assert_array_equal(whole[:, :edge], left[:, :edge])
  np.testing.assert_array_equal(whole[:, edge:], right[:, edge:])


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('size', [(1280, 900), (375, 812)])
def test_preview(browser, page_file, shown, size, dark):
  browser.driver.get_log('performance')
  browser.open(page_file, *size, dark=dark)

  def button(name, value):
    [found] = browser.driver.find_elements('css selector', f'button[data-{name}="{value}"]')
    return found

  def pressed():
    found = browser.driver.find_elements('css selector', 'button[data-side][aria-pressed="true"], '
                                         'button[data-still][aria-pressed="true"]')  # fmt: skip
    return [one.text for one in found]

  def commands():
    return [one.text for one in browser.driver.find_elements('css selector', 'pre') if one.is_displayed()]

  check(browser, shown.before[0], shown.after[1.0][0])
  assert pressed() == ['1', 'Frame 4'] and commands() == [shown.commands[1.0]]
  for side, strength in enumerate(STRENGTHS, start=1):
    button('side', side).click()
    browser.settled()
    check(browser, shown.before[0], shown.after[strength][0])
    assert pressed() == [f'{strength:g}', 'Frame 4'] and commands() == [shown.commands[strength]]
    assert browser.find('right-label').text == f'Strength {strength:g}'
  for k, index in enumerate(INDICES):
    button('still', k).click()
    browser.settled()
    check(browser, shown.before[k], shown.after[1.5][k])
    assert pressed() == ['1.5', f'Frame {index}']
  browser.choose_frame(INDICES[2])
  browser.find('handle').send_keys('x', browser.keys.END)
  browser.settled()
  check(browser, shown.after[1.5][2], shown.before[2])
  assert browser.find('left-label').text == 'Strength 1.5' and commands() == [shown.commands[1.5]]

  assert browser.run('return document.documentElement.scrollWidth') <= size[0]
  beyond = browser.run(
    "return [...document.querySelectorAll('body *')].filter((one) => !one.closest('.visually-hidden')"
    '  && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))'
  )
  assert beyond == []
  colour = browser.run('return getComputedStyle(document.body).backgroundColor')
  assert (sum(map(int, colour[4:-1].split(','))) < 150) == dark
  requested = browser.requests()
  assert requested[0] == page_file.as_uri() and all(url.startswith('data:') for url in requested[1:])
  assert browser.errors() == []
