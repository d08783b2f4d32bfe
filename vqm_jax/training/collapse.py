"""Notices runs that go on without learning: a network that is the identity, a game that one side has won for good."""

import ml_collections
from absl import logging

from vqm_jax import errors

_WATCHED = {'train/loss': 'generator_bounds', 'train/critic_loss': 'critic_bounds'}


class CollapseGuard:
  """Warns when a loss stays out of its bounds, (lowest, highest), for `config.collapse_steps` steps on end.

  With `config.on_collapse='stop'` it raises DivergenceError instead. Watches nothing where a config has no bounds.
  """

  def __init__(self, config: ml_collections.ConfigDict):
    self._config = config
    self._since: dict[str, int] = {}
    self._last = 0

  def look(self, step: int, values: dict[str, float]) -> None:
    """Look at the mean losses since the last look."""
    for name, field in _WATCHED.items():
      bounds = self._config.get(field)
      if bounds is None or name not in values:
        continue
      if bounds[0] <= values[name] <= bounds[1]:
        self._since.pop(name, None)
        continue
      since = self._since.setdefault(name, self._last)
      if step - since < self._config.collapse_steps:
        continue
      text = (
        f'{name} is {values[name]:.4g}, out of config.{field}={tuple(bounds)} for {step - since} steps: one side has '
        'probably collapsed. Look at samples/, lower the rates, or widen the bounds'
      )
      if self._config.on_collapse == 'stop':
        raise errors.DivergenceError(f'Step {step}: {text}; stopped, as config.on_collapse asks.')
      logging.warning('Step %d: %s.', step, text)
    self._last = step


class IdentityGuard:
  """Warns, once, when a restorer's loss is still that of its input after a tenth of the run.

  Deformable networks end so when their offsets explode: nothing of the frames reaches the last layer any more, and
  nothing brings it back. Looks at `train/loss_over_input`, which enhancers do not have.
  """

  LEFT = 0.999  # of the input's loss

  def __init__(self, steps: int):
    self._from, self._warned = steps / 10, False

  def look(self, step: int, values: dict[str, float]) -> None:
    """Look at the mean scalars since the last look."""
    ratio = values.get('train/loss_over_input', 0.0)
    if self._warned or step < self._from or ratio <= self.LEFT:
      return
    self._warned = True
    logging.warning(
      'Step %d: the loss is %.4f of what the input itself would have, after a tenth of the run: the network still '
      'gives its input back. If it stays so, start again with a lower rate (config.lr); offset/... and '
      'train/grad_norm in metrics.jsonl show whether the alignment came apart.',
      step, ratio,
    )  # fmt: skip
