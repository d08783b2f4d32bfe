"""Moving scenes rendered from the photographs that come with scikit-image: video, no download.

A scene is an enlarged photograph with surface texture, filmed by a camera that pans, zooms and
turns, with cut-outs of other photographs drifting across it and film grain on top. Photographs of
one split never appear in another, and training scenes are recoloured: eight photographs alone teach
a network their palette (measured: -0.4 dB on a blue sky that training had not seen, +0.1 dB with
recolouring).

A scene can be filmed once and then coded heavily (`clips`), or by two unequal cameras on one rig (`rig_clips`), whose
true offset in time and true mapping `rig` tells.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from vqm_jax import video
from vqm_jax.prepare.challenge.two_cameras import TwoCameras
from vqm_jax.prepare.records.configs import ClipPair

FPS = Fraction(25)
HQ_CRF, LQ_CRF = 14.0, 35.0
SOURCE_CRF = 20.0  # of the source camera of a rig; its own flaws, not the codec, are what it is about
MAX_OFFSET = 8  # frames between the cameras of a rig
# skimage.data functions that need neither pooch nor network.
PHOTOGRAPHS = {
  'train': (
    'astronaut',
    'stereo_motorcycle',
    'retina',
    'camera',
    'coins',
    'hubble_deep_field',
    'clock',
    'moon',
  ),
  'val': ('rocket', 'immunohistochemistry', 'cell'),
  'test': ('coffee', 'chelsea', 'page'),
}
_TEXTURES = {'train': ('grass', 'gravel'), 'val': ('brick',), 'test': ('brick',)}

_CANVAS = 1.35  # side of the canvas in frames: room for the camera to move
_ZOOM = (1.0, 1.5)  # enlargement of the photograph beyond covering the canvas
_SPEED = (0.5, 2.0)  # pixels per frame, of the camera and of the cut-outs
_TEXTURE_LEVELS = 5.0  # standard deviation of texture and fractal detail together
_GRAIN_LEVELS = 1.0
_NUM_SPRITES = 5

# The two cameras of a rig. They see parts of a picture that is larger than theirs by _RIG_VIEW and trembles with
# the hand: by _SHAKE of the height, smoothed over _SHAKE_FRAMES.
_RIG_VIEW = 1.3
_SHAKE, _SHAKE_FRAMES = 0.02, 3.0
_RIG_TURN, _RIG_ZOOM, _RIG_SHIFT, _RIG_KEYSTONE = 1.5, 0.1, 0.04, 0.015  # degrees, ratio, of the width, at the edge
# One model of camera has one look, which an enhancer can learn; exposure and white balance vary a little.
_SOURCE_GAINS, _SOURCE_GAMMA, _SOURCE_CONTRAST, _LOOK_VARIES = (1.06, 0.97, 0.86), 1.2, 0.75, 0.03
_SOURCE_BLUR, _SOURCE_NOISE = (0.6, 0.9), (2.0, 3.5)  # standard deviations in pixels, and in grains of the target


@dataclasses.dataclass(frozen=True)
class Scene:
  """The content of one clip. `split` names its photographs; scenes of the train photographs are recoloured."""

  clip_id: str
  split: str
  photo: str
  index: int
  num_frames: int = 24
  height: int = 180
  width: int = 320


def clips(scenes: Sequence[Scene], seed: int = 0) -> list[ClipPair]:
  """The scenes as clips; they are rendered and coded when their frames are asked for, a few ahead."""
  coder = _coder(tuple(scenes), seed, write_pair)
  fields = zip(scenes, _clip_fields(coder), strict=True)
  return [ClipPair(**clip, crf=LQ_CRF, scenes=((0, scene.num_frames),)) for scene, clip in fields]


def rig_clips(scenes: Sequence[Scene], seed: int = 0) -> list[TwoCameras]:
  """The scenes as clips of two cameras, `lq` of the source and `hq` of the target camera, made like those of `clips`.

  Frames of equal number do not show the same: `rig` tells how the sides belong together, and `truth` of the clip.
  """
  coder = _coder(tuple(scenes), seed, write_rig)
  rigs = [rig(scene, seed) for scene in scenes]
  return [
    TwoCameras(**fields, crf=SOURCE_CRF, truth=dict(offset=cameras.offset, matrix=cameras.matrix.tolist()))
    for fields, cameras in zip(_clip_fields(coder), rigs, strict=True)
  ]


def _clip_fields(coder: '_Coder') -> list[dict[str, Any]]:
  return [
    dict(clip_id=scene.clip_id, lq=_Side(coder, index, 0), hq=_Side(coder, index, 1), category=scene.photo)
    for index, scene in enumerate(coder.scenes)
  ]


def write_pair(scene: Scene, folder: pathlib.Path, seed: int = 0) -> tuple[pathlib.Path, pathlib.Path]:
  """Write the scene after heavy and after light H.264, as from a web site; return the paths of lq and hq.

  LQ is coded from the decoded planes of HQ, so that no second chroma resampling comes between them.
  """
  colour = video.Colour('bt709')
  lq, hq = (folder / f'{scene.clip_id}_{name}.mp4' for name in ('compressed', 'original'))
  planes = (video.rgb_to_yuv(frame, colour) for frame in render(scene, seed))
  video.encode(planes, hq, fps=FPS, colour=colour, crf=HQ_CRF, preset='veryfast')
  planes = video.VideoFile(hq).yuv_frames()
  video.encode(planes, lq, fps=FPS, colour=colour, crf=LQ_CRF, preset='medium')
  return lq, hq


def write_rig(scene: Scene, folder: pathlib.Path, seed: int = 0) -> tuple[pathlib.Path, pathlib.Path]:
  """Write what both cameras of the scene's rig recorded, each after light H.264 of its own; (lq, hq) paths."""
  colour = video.Colour('bt709')
  lq, hq = (folder / f'{scene.clip_id}_{camera}.mp4' for camera in ('source', 'target'))
  for path, camera, crf in ((lq, 'source', SOURCE_CRF), (hq, 'target', HQ_CRF)):
    planes = (video.rgb_to_yuv(frame, colour) for frame in film(scene, camera, seed))
    video.encode(planes, path, fps=FPS, colour=colour, crf=crf, preset='veryfast')
  return lq, hq


# Writes (lq, hq) of a scene into a folder: `write_pair` or `write_rig`.
_Write = Callable[[Scene, pathlib.Path, int], tuple[pathlib.Path, pathlib.Path]]


class _Coder:
  """Coded scenes on demand: while one is read, threads prepare the next. Their files last as long as the process."""

  def __init__(self, scenes: Sequence[Scene], seed: int, write: _Write):
    self.scenes, self._seed, self._write = scenes, seed, write
    self._folder = tempfile.TemporaryDirectory(prefix='vqm_demo_')
    self._workers = os.cpu_count() or 1
    self._pool = concurrent.futures.ThreadPoolExecutor(self._workers)
    self._lock = threading.Lock()
    self._jobs: dict[int, concurrent.futures.Future] = {}

  def video(self, index: int, side: int) -> video.VideoFile:
    """Side 0 (lq) or 1 (hq) of a scene."""
    with self._lock:
      for k in range(index, min(index + self._workers + 1, len(self.scenes))):
        if k not in self._jobs:
          folder = pathlib.Path(self._folder.name, str(k))  # the names of clips need not differ
          folder.mkdir()
          self._jobs[k] = self._pool.submit(self._write, self.scenes[k], folder, self._seed)
    return video.VideoFile(self._jobs[index].result()[side])


@functools.lru_cache(maxsize=8)
def _coder(scenes: tuple[Scene, ...], seed: int, write: _Write) -> _Coder:
  # Several configs of a data set are made from the same scenes.
  return _Coder(scenes, seed, write)


class _Side:
  """One side of a scene as a `VideoSource`."""

  def __init__(self, coder: _Coder, index: int, side: int):
    scene = coder.scenes[index]
    self.name, self.fps, self.num_frames = scene.clip_id, FPS, scene.num_frames
    self.height, self.width = scene.height, scene.width
    self._coder, self._index, self._side = coder, index, side

  @property
  def coded(self) -> video.VideoFile:
    """The file that the frames are of; rendered and coded now, if they were not yet."""
    return self._coder.video(self._index, self._side)

  def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    yield from self.coded.frames(start, stop)


def render(scene: Scene, seed: int = 0) -> Iterator[np.ndarray]:
  """Yield the frames of a scene, uint8 (H, W, 3) RGB; the same for the same scene and seed."""
  rng = _rng(scene, seed)
  view = _View(scene, rng)
  grain = _grain(scene, rng)
  for index in range(scene.num_frames):
    yield _exposed(view.picture(index), grain, rng)


@dataclasses.dataclass(frozen=True, eq=False)
class Rig:
  """How the source camera (LQ) of a rig differs from the target camera (HQ) beside it.

  offset: target frame t + offset shows what source frame t shows.
  matrix: float64 (3, 3), takes source pixels (x, y, 1) to target pixels; pixel centres are whole numbers.
  gains: float32 (3,), of R, G and B; then come gamma, and contrast about the middle grey.
  blur: standard deviation in source pixels. noise: in grains of the target camera.
  """

  offset: int
  matrix: np.ndarray
  gains: np.ndarray
  gamma: float
  contrast: float
  blur: float
  noise: float


def rig(scene: Scene, seed: int = 0) -> Rig:
  """The two cameras that film a scene in `film`; the same for the same scene and seed."""
  rng = _rng(scene, seed, 'rig')
  offset = int(rng.integers(-MAX_OFFSET, MAX_OFFSET + 1))
  turn, zoom = np.deg2rad(rng.uniform(-_RIG_TURN, _RIG_TURN)), 1 + rng.uniform(-_RIG_ZOOM, _RIG_ZOOM)
  shift = scene.width * rng.uniform(-_RIG_SHIFT, _RIG_SHIFT, 2)
  keystone = rng.uniform(-_RIG_KEYSTONE, _RIG_KEYSTONE, 2) / (scene.width / 2)
  middle = np.array([scene.width - 1, scene.height - 1]) / 2
  lens = np.eye(3)
  lens[:2, :2] = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  lens[2, :2] = keystone
  matrix = _translation(middle + shift) @ lens @ _translation(-middle)
  gains, gamma, contrast = (
    value * rng.uniform(1 - _LOOK_VARIES, 1 + _LOOK_VARIES, np.shape(value))
    for value in (_SOURCE_GAINS, _SOURCE_GAMMA, _SOURCE_CONTRAST)
  )
  return Rig(
    offset=offset,
    matrix=matrix / matrix[2, 2],
    gains=gains.astype(np.float32),
    gamma=float(gamma),
    contrast=float(contrast),
    blur=rng.uniform(*_SOURCE_BLUR),
    noise=rng.uniform(*_SOURCE_NOISE),
  )


def film(scene: Scene, camera: Literal['source', 'target'], seed: int = 0) -> Iterator[np.ndarray]:
  """Yield what one camera of the scene's rig records, uint8 (H, W, 3) RGB; the same for the same scene and seed.

  The rig is held by hand: both cameras tremble together.
  """
  import cv2

  cameras, source = rig(scene, seed), camera == 'source'
  sides = np.array([scene.width, scene.height])
  wide = dict(zip(('width', 'height'), map(int, np.rint(sides * _RIG_VIEW)), strict=True))
  # Both cameras see the same world, so that only the grain may depend on the camera.
  rng = _rng(scene, seed, 'world')
  view = _View(dataclasses.replace(scene, **wide), rng)
  shake = _SHAKE * scene.height * _shake(scene.num_frames + 2 * MAX_OFFSET, rng)
  rng = _rng(scene, seed, camera)
  grain = _grain(scene, rng) * (cameras.noise if source else 1)
  for index in range(scene.num_frames):
    time = index if source else index - cameras.offset
    place = _translation(sides * (_RIG_VIEW - 1) / 2 + shake[time + MAX_OFFSET])
    picture = cv2.warpPerspective(
      view.picture(time),
      place @ cameras.matrix if source else place,
      (scene.width, scene.height),
      flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_REFLECT_101,
    )
    yield _exposed(_look(picture, cameras) if source else picture, grain, rng)


def _look(picture: np.ndarray, cameras: Rig) -> np.ndarray:
  """The picture through lens and electronics of the source camera, float32 (H, W, 3)."""
  import cv2

  picture = cv2.GaussianBlur(picture, (0, 0), cameras.blur) * cameras.gains / 255
  return (0.5 + cameras.contrast * (np.clip(picture, 0, 1) ** cameras.gamma - 0.5)) * 255


def _translation(by: np.ndarray) -> np.ndarray:
  """float64 (3, 3), moves points by (x, y)."""
  matrix = np.eye(3)
  matrix[:2, 2] = by
  return matrix


def _shake(num_frames: int, rng: np.random.Generator) -> np.ndarray:
  """A hand's trembling, (num_frames, 2) of standard deviation 1."""
  import cv2

  return _standardised(cv2.GaussianBlur(rng.standard_normal((1, num_frames, 2)), (0, 0), _SHAKE_FRAMES)[0])


def _rng(scene: Scene, seed: int, purpose: str = '') -> np.random.Generator:
  return np.random.default_rng([seed, zlib.crc32(f'{scene.split}{purpose}'.encode()), scene.index])


def _exposed(picture: np.ndarray, grain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The picture, float32 (H, W, 3), with another window of the sheet of grain each time; uint8."""
  height, width = picture.shape[:2]
  y, x = rng.integers(0, (height, width))
  picture = picture + grain[y : y + height, x : x + width, None]
  return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


class _View:
  """A scene before its camera adds grain: the canvas, the camera's path over it and the cut-outs."""

  def __init__(self, scene: Scene, rng: np.random.Generator):
    import cv2

    cv2.setNumThreads(1)
    self._canvas = _canvas(scene, rng)
    self._camera = _Camera(scene, self._canvas.shape, rng)
    self._sprites = [_Sprite(scene, rng) for _ in range(_NUM_SPRITES)]

  def picture(self, index: int) -> np.ndarray:
    """Render frame `index`, float32 (H, W, 3); frames before the first and after the last go on likewise."""
    picture = self._camera.film(self._canvas, index)
    for sprite in self._sprites:
      sprite.draw(picture, index)
    return picture


@functools.cache
def _photograph(name: str) -> np.ndarray:
  import skimage.data

  image = getattr(skimage.data, name)()
  image = image[0] if isinstance(image, tuple) else image  # a stereo pair: its left view
  return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _canvas(scene: Scene, rng: np.random.Generator) -> np.ndarray:
  """The photograph with texture, float32 (H', W', 3)."""
  height, width = round(scene.height * _CANVAS), round(scene.width * _CANVAS)
  canvas = _window(_photograph(scene.photo), height, width, rng.uniform(*_ZOOM), rng)
  if scene.split == 'train':
    canvas = _recolour(canvas, rng)
  surface = _photograph(rng.choice(_TEXTURES[scene.split]))
  detail = _standardised(_window(surface, height, width, 1.0, rng)[..., 0])
  detail = _standardised(detail + _fractal(height, width, rng))
  # Texture fades in and out over the picture and is weaker in the dark, as on real surfaces.
  strength = 0.5 + 0.5 * _standardised(_fractal(height, width, rng, octaves=2)).clip(-1, 1)
  strength *= 0.3 + 0.7 * canvas.mean(axis=2) / 255
  return canvas + _TEXTURE_LEVELS * (detail * strength)[..., None]


def _window(image, height, width, zoom, rng) -> np.ndarray:
  """A random window of the image, enlarged so that `zoom` times (height, width) is covered; float32."""
  import cv2

  scale = zoom * max(height / image.shape[0], width / image.shape[1])
  h, w = (min(side, round(want / scale)) for side, want in zip(image.shape, (height, width), strict=False))
  y, x = (int(rng.integers(0, side - part + 1)) for side, part in zip(image.shape, (h, w), strict=False))
  shrinks = h > height
  part = image[y : y + h, x : x + w].astype(np.float32)
  return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Another palette for the same picture: hue, saturation, gamma, and gain and offset of each channel."""
  angle = rng.uniform(0, 2 * np.pi)
  saturation = rng.uniform(0.5, 1.2)
  # Rotation about the grey axis (Rodrigues), then a blend with grey.
  cos, third = np.cos(angle), 1 / 3
  cross = np.sin(angle) * np.sqrt(third) * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
  rotation = cos * np.eye(3) + cross + (1 - cos) * third * np.ones((3, 3))
  matrix = saturation * rotation + (1 - saturation) * third * np.ones((3, 3))
  out = np.clip(image @ matrix.T.astype(np.float32) / 255, 0, 1) ** rng.uniform(0.7, 1.4)
  gain = rng.uniform(0.85, 1.15, 3).astype(np.float32)
  offset = rng.uniform(-0.06, 0.06, 3).astype(np.float32)
  return np.clip(out * gain + offset, 0, 1).astype(np.float32) * 255


def _fractal(height: int, width: int, rng: np.random.Generator, octaves: int = 5) -> np.ndarray:
  """Noise with equal energy in each octave of scale, float32 (H, W)."""
  import cv2

  total = np.zeros((height, width), np.float32)
  for octave in range(octaves):
    cells = 4 << octave
    coarse = rng.standard_normal((cells, 2 * cells)).astype(np.float32)
    total += _standardised(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
  return total / np.float32(np.sqrt(octaves))


def _standardised(image: np.ndarray) -> np.ndarray:
  return (image - image.mean()) / (image.std() + 1e-6)


def _grain(scene: Scene, rng: np.random.Generator) -> np.ndarray:
  """A sheet of grain twice the frame's size; each frame takes a random window of it."""
  import cv2

  sheet = rng.standard_normal((2 * scene.height, 2 * scene.width)).astype(np.float32)
  return np.float32(_GRAIN_LEVELS) * _standardised(cv2.GaussianBlur(sheet, (3, 3), 0.6))


def _velocity(rng: np.random.Generator) -> np.ndarray:
  angle = rng.uniform(0, 2 * np.pi)
  return rng.uniform(*_SPEED) * np.array([np.cos(angle), np.sin(angle)])


class _Camera:
  """A path over the canvas: pan at constant speed, slow zoom and turn, centred at the middle of the clip."""

  def __init__(self, scene: Scene, canvas_shape: tuple[int, ...], rng: np.random.Generator):
    self.scene = scene
    self.centre = np.array([canvas_shape[1], canvas_shape[0]]) / 2
    self.velocity = _velocity(rng)
    self.zoom_rate = rng.uniform(-0.003, 0.003)
    self.turn_rate = np.deg2rad(rng.uniform(-0.15, 0.15))

  def film(self, canvas: np.ndarray, index: int) -> np.ndarray:
    """Frame `index`, float32 (H, W, 3)."""
    import cv2

    time = index - (self.scene.num_frames - 1) / 2
    zoom, turn = np.exp(self.zoom_rate * time), self.turn_rate * time
    turning = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom
    middle = np.array([self.scene.width - 1, self.scene.height - 1]) / 2
    shift = self.centre + self.velocity * time - turning @ middle
    return cv2.warpAffine(
      canvas,
      np.hstack([turning, shift[:, None]]),
      (self.scene.width, self.scene.height),
      flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_REFLECT_101,
    )


class _Sprite:
  """A soft-edged oval cut out of a photograph of the same split, drifting and turning."""

  def __init__(self, scene: Scene, rng: np.random.Generator):
    self.scene = scene
    side = int(scene.height * rng.uniform(0.22, 0.42))
    photo = _photograph(rng.choice(PHOTOGRAPHS[scene.split]))
    picture = _window(photo, side, side, rng.uniform(1.5, 3.0), rng)
    if scene.split == 'train':
      picture = _recolour(picture, rng)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    alpha = np.clip((1 - np.hypot(y, x)) * side / 12, 0, 1)[..., None]
    # Premultiplied colour: interpolation then mixes no background into the edge.
    self.patch = np.concatenate([picture * alpha, alpha], axis=2)
    self.squeeze = rng.uniform(0.6, 1.0)
    self.position = rng.uniform((0, 0), (scene.width, scene.height))
    self.velocity = _velocity(rng)
    self.angle = rng.uniform(0, 2 * np.pi)
    self.turn_rate = np.deg2rad(rng.uniform(-2, 2))

  def draw(self, frame: np.ndarray, index: int) -> None:
    """Put the sprite over `frame`, float32 (H, W, 3)."""
    import cv2

    time = index - (self.scene.num_frames - 1) / 2
    angle = self.angle + self.turn_rate * time
    turning = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turning = turning @ np.diag([1.0, self.squeeze])
    middle = np.array([self.patch.shape[1] - 1, self.patch.shape[0] - 1]) / 2
    position = self.position + self.velocity * time
    # Only the square that the patch can reach is touched.
    reach = self.patch.shape[0] / 2 + 2
    left, top = np.floor(position - reach).astype(int).clip(0, None)
    right, bottom = np.ceil(position + reach).astype(int).clip(0, (self.scene.width, self.scene.height))
    if right <= left or bottom <= top:
      return
    shift = position - (left, top) - turning @ middle
    layer = cv2.warpAffine(
      self.patch,
      np.hstack([turning, shift[:, None]]),
      (int(right - left), int(bottom - top)),
      flags=cv2.INTER_LINEAR,
    )
    area = frame[top:bottom, left:right]
    area *= 1 - layer[..., 3:]
    area += layer[..., :3]
