"""A page of ours taken apart, for tests without a browser."""

import base64
import html.parser
import io
import json

import numpy as np
from PIL import Image


class Parsed(html.parser.HTMLParser):
  """What is in a page: elements as (tag, attributes), texts, scripts; raises where tags do not match."""

  VOID = {'meta', 'link', 'img', 'input', 'br'}

  def __init__(self, text):
    super().__init__()
    self.elements, self.texts, self.open, self.scripts, self.rows = [], [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)
    if tag == 'tr':
      self.rows.append([])
    elif tag in ('td', 'th'):
      self.rows[-1].append('')

  def handle_startendtag(self, tag, attrs):  # of SVG
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] in ('script', 'style'):
      self.scripts.append(data)
      return
    self.texts.append(data)
    if self.rows and {'td', 'th'} & set(self.open):
      self.rows[-1][-1] += data

  @property
  def text(self):
    return ' '.join(''.join(self.texts).split())

  @property
  def ids(self):
    return [attributes['id'] for _, attributes in self.elements if 'id' in attributes]

  @property
  def data(self):
    return json.loads(next(text for text in self.scripts if text.startswith('{')))


def pixels(uri):
  """The picture in a data URI of WebP, uint8 (H, W, 3)."""
  kind, _, text = uri.partition(',')
  assert kind == 'data:image/webp;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert('RGB'))
