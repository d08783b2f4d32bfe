"""A page of ours in Chromium, without a network; modules that import this are skipped where selenium is missing."""

import base64
import io
import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

webdriver = pytest.importorskip('selenium.webdriver')
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
DRIVER = shutil.which('chromedriver')
MARKS = [
  pytest.mark.browser,
  pytest.mark.skipif(not (CHROMIUM and DRIVER), reason='needs chromium and chromedriver'),
]


def start(profile, *arguments, **preferences):
  """Starts Chromium; `profile` is a folder for its files, empty or used before. What pages log and ask for is kept."""
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  always = ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', f'--user-data-dir={profile}')
  for argument in (*always, *arguments):
    options.add_argument(argument)
  if preferences:
    options.add_experimental_option('prefs', preferences)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def requests(driver):
  """Addresses that the page asked for since this was last called; the browser has requests of its own."""
  events = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
  sent = [event['params'] for event in events if event['method'] == 'Network.requestWillBeSent']
  return [params['request']['url'] for params in sent if params['documentURL'].startswith('file:')]


def wait(driver, condition, what):
  """Waits until the JavaScript expression is true; returns its value."""
  end = time.monotonic() + 20
  while time.monotonic() < end:
    if value := driver.execute_script(f'return {condition}'):
      return value
    time.sleep(0.02)
  raise AssertionError(f'waited in vain for {what}: {driver.find_element("tag name", "body").text[:400]}')


class Browser:
  """One window; `profile` is an empty folder for its files."""

  def __init__(self, profile):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    self.keys, self.select_of = Keys, Select
    self.driver = start(profile, '--disable-gpu', '--hide-scrollbars', '--force-color-profile=srgb')
    self.driver.execute_cdp_cmd('Network.enable', {})
    offline = {'offline': True, 'latency': 0, 'downloadThroughput': 0, 'uploadThroughput': 0}
    self.driver.execute_cdp_cmd('Network.emulateNetworkConditions', offline)

  def open(self, path, width=1280, height=900, dark=False):
    size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600}
    self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
    motion = {'name': 'prefers-reduced-motion', 'value': 'reduce'}  # places do not move while they are looked for
    self.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [scheme, motion]})
    self.driver.get(path.as_uri())
    self.settled()

  def find(self, name):
    return self.driver.find_element('id', name)

  def run(self, script, *arguments):
    return self.driver.execute_script(script, *arguments)

  def wait(self, condition, what):
    return wait(self.driver, condition, what)

  def settled(self):
    """Waits until the chosen pictures are on the canvas."""
    self.wait("document.getElementById('picture').dataset.view "
              "&& !document.getElementById('picture').hasAttribute('aria-busy')", 'the pictures')  # fmt: skip

  def press(self, *keys):
    for key in keys:
      webdriver.ActionChains(self.driver, 0).send_keys(key).perform()

  def select(self, name, text):
    self.select_of(self.find(name)).select_by_visible_text(text)
    self.settled()

  def choose_frame(self, index):
    [text] = [one.text for one in self.select_of(self.find('frame')).options if one.text.split()[0] == str(index)]
    self.select('frame', text)

  def click(self, name):
    self.find(name).click()
    self.settled()

  @property
  def view(self):
    return json.loads(self.find('picture').get_attribute('data-view'))

  def pixels(self, element):
    """What a canvas holds, uint8 (H, W, 3); black where nothing was drawn."""
    uri = self.run("return arguments[0].toDataURL('image/png')", element)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2])))
    return np.asarray(Image.alpha_composite(Image.new('RGBA', image.size, 'black'), image.convert('RGBA')))[..., :3]

  def picture(self):
    return self.pixels(self.find('picture'))

  def drag(self, x, y, by_x, by_y):
    """Drags from a place of the canvas, in its pixels from the left upper corner."""
    canvas = self.find('picture')
    box = canvas.size
    chain = webdriver.ActionChains(self.driver, 50)
    chain.move_to_element_with_offset(canvas, round(x - box['width'] / 2), round(y - box['height'] / 2))
    chain.click_and_hold().move_by_offset(by_x, by_y).release().perform()

  def errors(self):
    return [entry['message'] for entry in self.driver.get_log('browser')]

  def requests(self):
    return requests(self.driver)
