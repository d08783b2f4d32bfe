"""Numbers as text."""

import pytest

from vqm_jax.formats import format_params


@pytest.mark.parametrize(
  ('count', 'text'),
  [(0, '0'), (228, '228'), (114_413, '114.4k'), (19_760_000, '19.76M')],
)
def test_format_params(count, text):
  assert format_params(count) == text
