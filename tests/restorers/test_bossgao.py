"""BossGao's dense blocks, its frameworks, and networks that grow without changing what they compute."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from restorers.sizes import TINY

from vqm_jax import checkpoints, errors, restorers
from vqm_jax.restorers.bossgao import RDB, BossGao, RDNTrunk

FLOAT32 = dict(dtype=jnp.float32)
# The networks of the progressive training, by the stage that trains them.
STAGES = {
  '1A': dict(fusion='conv', num_blocks=10),
  '1B': dict(fusion='tsa', num_blocks=10),
  '1C': dict(fusion='tsa', num_blocks=40),
  '2A': dict(fusion='conv', trunk='rdn', num_blocks=10, num_convs=8),
  '2B': dict(fusion='tsa', trunk='rdn', num_blocks=10, num_convs=8),
  '3A': dict(fusion='conv', trunk='rdn', num_blocks=8, num_convs=6),
  '3B': dict(fusion='tsa', trunk='rdn', num_blocks=8, num_convs=6),
}
FINAL = {'1C': 'boss_f1', '2A': 'boss_f2', '2B': 'boss_f3', '3B': 'boss_f4'}
PARAMS = {'1A': 10_860_003, '1B': 12_073_955, '3A': 16_825_699}  # the others are published frameworks


def arrays(network):
  return networks.by_path(nnx.state(network))


@pytest.mark.parametrize('stage', PARAMS)
def test_parameter_counts_of_the_stages_on_the_way(stage):
  assert networks.count(functools.partial(BossGao, **STAGES[stage])) == PARAMS[stage]


@pytest.mark.parametrize('stage', FINAL)
def test_last_stages_are_the_published_frameworks(stage):
  grown = arrays(networks.shapes(functools.partial(BossGao, **STAGES[stage])))
  framework = arrays(networks.shapes(functools.partial(restorers.create, FINAL[stage])))
  assert {path: p.shape for path, p in grown.items()} == {path: p.shape for path, p in framework.items()}


@pytest.mark.parametrize(('num_blocks', 'num_convs', 'params'), [(10, 8, 17_504_896), (8, 6, 8_917_376)])
def test_published_parameter_counts_of_dense_trunks(num_blocks, num_convs, params):
  assert networks.count(functools.partial(RDNTrunk, 128, 64, num_blocks, num_convs, **FLOAT32)) == params


def features():
  return jax.random.normal(jax.random.key(0), (1, 6, 6, 4))


def test_dense_block_sees_all_before_and_is_the_identity_without_fusion():
  block, x = networks.random(functools.partial(RDB, 4, 2, 3, **FLOAT32)), features()
  seen = [x]
  for layer in block.convs:
    seen.append(jax.nn.relu(layer(jnp.concatenate(seen, axis=-1))))
  expected = x + block.fuse(jnp.concatenate(seen, axis=-1))
  np.testing.assert_allclose(networks.apply(block, x), expected, atol=1e-5)
  networks.silence(block.fuse)
  np.testing.assert_array_equal(networks.apply(block, x), x)


def test_dense_trunk_fuses_all_blocks_and_returns_its_input_without_the_last_convolution():
  trunk, x = networks.random(functools.partial(RDNTrunk, 4, 2, 2, 1, **FLOAT32)), features()
  first = trunk.blocks[0](trunk.enter(x))
  expected = x + trunk.smooth(trunk.fuse(jnp.concatenate([first, trunk.blocks[1](first)], axis=-1)))
  np.testing.assert_allclose(networks.apply(trunk, x), expected, atol=1e-5)
  networks.silence(trunk.smooth)
  np.testing.assert_array_equal(networks.apply(trunk, x), x)


def test_unknown_parts_are_refused():
  for args in (dict(fusion='attention'), dict(trunk='rdb')):
    with pytest.raises(errors.ConfigError, match="expected 'conv' or 'tsa', and 'residual' or 'rdn'"):
      restorers.create('boss_f1', **args, rngs=nnx.Rngs(0))


@pytest.fixture(
  scope='module',
  params=[*map(functools.partial(pytest.param, marks=pytest.mark.slow), [('1A', '1B'), ('2A', '2B')]), ('1B', '1C')],
  ids='-'.join,
)
def growth(request):
  """A small parent with trained-looking weights, its grown network, the report and the pure dict before easing in."""
  sizes = {'1A': 1, '1B': 1, '1C': 3, '2A': 2, '2B': 2}

  def build(stage, seed):
    args = TINY['boss_f3'] | STAGES[stage] | dict(num_blocks=sizes[stage])
    return networks.random(functools.partial(BossGao, **args), seed)

  parent, fresh = (build(stage, seed) for seed, stage in enumerate(request.param))
  graphdef, state = nnx.split(fresh)
  before, report = checkpoints.warm_start(nnx.to_pure_dict(state), arrays(parent))
  return request.param, parent, nnx.merge(graphdef, BossGao.ease_in(before, report['new'])), report, arrays(fresh)


def clip():
  return jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))


def test_a_grown_network_computes_what_its_parent_does(growth):
  _, parent, grown, *_ = growth
  expected = networks.apply(parent, clip())
  assert np.abs(expected - clip()[:, 1]).max() > 0.1
  np.testing.assert_allclose(networks.apply(grown, clip()), expected, atol=1e-5)


def test_every_shared_leaf_is_copied_and_no_other_is_touched(growth):
  (_, stage), parent, grown, report, fresh = growth
  old, new = arrays(parent), arrays(grown)
  fusion_grew = stage != '1C'
  assert set(report['copied']) == set(old) and set(report['new']) == set(new) - set(old)
  assert report['misfit'] == report['unused'] == []
  for path in old:
    factor = 2 if fusion_grew and path == 'fusion/fuse/kernel' else 1
    np.testing.assert_array_equal(new[path], factor * np.asarray(old[path]), err_msg=path)
  silent = {path for path in report['new'] if not np.any(new[path])}
  added_blocks = ['trunk/blocks/1/conv2', 'trunk/blocks/2/conv2']
  parts = ['fusion/embed', 'fusion/up0_last', 'fusion/add2'] if fusion_grew else added_blocks
  assert silent == {f'{part}/{leaf}' for part in parts for leaf in ('kernel', 'bias')}
  for path in set(report['new']) - silent:
    np.testing.assert_array_equal(new[path], fresh[path], err_msg=path)


@pytest.mark.slow
def test_new_modules_learn_with_the_old_ones(growth):
  _, _, grown, report, _ = growth
  for update in range(2):
    gradients = networks.by_path(networks.gradients(grown, clip()))
    assert all(np.any(g) for path, g in gradients.items() if path not in report['new'])
    learning = {path for path in report['new'] if np.any(gradients[path])}
    if update == 0:  # what was set to zero wakes the layers before it
      stepped = {path: p - 0.01 * gradients[path] for path, p in arrays(grown).items()}
      graphdef, state = nnx.split(grown)
      grown = nnx.merge(graphdef, checkpoints.warm_start(nnx.to_pure_dict(state), stepped)[0])
  assert learning == set(report['new'])
