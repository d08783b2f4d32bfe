"""Weights of BasicSR's EDVR: the golden network under BasicSR's names, in files of PyTorch's formats."""

import functools
import pathlib
import pickle
import struct
import zipfile

import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax import errors, restorers
from vqm_jax.inference import basicsr
from vqm_jax.perceptual import weight_files

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / 'golden' / 'edvr.npz')

# Written down from BasicSR's edvr_arch.py in the order of its forward pass; the first three from the published code.
NAMES = {
  'conv_first_1': 'front/stem/0',
  'conv_first_2': 'front/stem/1',
  'conv_first_3': 'front/stem/2',
  'feature_extraction.0.conv1': 'front/blocks/0/conv1',
  'feature_extraction.0.conv2': 'front/blocks/0/conv2',
  'conv_l2_1': 'front/down/0/0',
  'conv_l2_2': 'front/down/0/1',
  'conv_l3_1': 'front/down/1/0',
  'conv_l3_2': 'front/down/1/1',
  'pcd_align.offset_conv1.l3': 'align/levels/2/offset1',
  'pcd_align.offset_conv2.l3': 'align/levels/2/offset2',
  'pcd_align.dcn_pack.l3': 'align/levels/2/warp',
  'pcd_align.dcn_pack.l3.conv_offset': 'align/levels/2/warp/guide',
  'pcd_align.offset_conv1.l2': 'align/levels/1/offset1',
  'pcd_align.offset_conv2.l2': 'align/levels/1/offset_merge',
  'pcd_align.offset_conv3.l2': 'align/levels/1/offset2',
  'pcd_align.dcn_pack.l2': 'align/levels/1/warp',
  'pcd_align.dcn_pack.l2.conv_offset': 'align/levels/1/warp/guide',
  'pcd_align.feat_conv.l2': 'align/levels/1/merge',
  'pcd_align.offset_conv1.l1': 'align/levels/0/offset1',
  'pcd_align.offset_conv2.l1': 'align/levels/0/offset_merge',
  'pcd_align.offset_conv3.l1': 'align/levels/0/offset2',
  'pcd_align.dcn_pack.l1': 'align/levels/0/warp',
  'pcd_align.dcn_pack.l1.conv_offset': 'align/levels/0/warp/guide',
  'pcd_align.feat_conv.l1': 'align/levels/0/merge',
  'pcd_align.cas_offset_conv1': 'align/cascade1',
  'pcd_align.cas_offset_conv2': 'align/cascade2',
  'pcd_align.cas_dcnpack': 'align/cascade_warp',
  'pcd_align.cas_dcnpack.conv_offset': 'align/cascade_warp/guide',
  'fusion.temporal_attn1': 'fusion/embed_centre',
  'fusion.temporal_attn2': 'fusion/embed',
  'fusion.feat_fusion': 'fusion/fuse',
  'fusion.spatial_attn1': 'fusion/spatial0',
  'fusion.spatial_attn2': 'fusion/spatial1',
  'fusion.spatial_attn_l1': 'fusion/spatial2_reduce',
  'fusion.spatial_attn_l2': 'fusion/spatial2_merge',
  'fusion.spatial_attn_l3': 'fusion/spatial2_last',
  'fusion.spatial_attn3': 'fusion/up1',
  'fusion.spatial_attn4': 'fusion/up0_mix',
  'fusion.spatial_attn5': 'fusion/up0_last',
  'fusion.spatial_attn_add1': 'fusion/add1',
  'fusion.spatial_attn_add2': 'fusion/add2',
  'reconstruction.0.conv1': 'blocks/0/conv1',
  'reconstruction.0.conv2': 'blocks/0/conv2',
  'upconv1': 'tail/up/0',
  'upconv2': 'tail/up/1',
  'conv_hr': 'tail/conv',
  'conv_last': 'tail/last',
}
# The names that the published code has for these, from BasicSR's script that converts its weights.
PUBLISHED = [
  ('conv_l2_1', 'fea_L2_conv1'), ('conv_l2_2', 'fea_L2_conv2'), ('conv_l3_1', 'fea_L3_conv1'),
  ('conv_l3_2', 'fea_L3_conv2'), ('conv_offset.', 'conv_offset_mask.'),
  *[(f'dcn_pack.l{k}', f'L{k}_dcnpack') for k in (1, 2, 3)],
  *[(f'feat_conv.l{k}', f'L{k}_fea_conv') for k in (1, 2)],
  *[(f'offset_conv{n}.l{k}', f'L{k}_offset_conv{n}') for k in (1, 2, 3) for n in (1, 2, 3)],
  ('fusion.temporal_attn1', 'tsa_fusion.tAtt_2'), ('fusion.temporal_attn2', 'tsa_fusion.tAtt_1'),
  ('fusion.feat_fusion', 'tsa_fusion.fea_fusion'), ('fusion.spatial_attn_add', 'tsa_fusion.sAtt_add_'),
  ('fusion.spatial_attn_l', 'tsa_fusion.sAtt_L'), ('fusion.spatial_attn', 'tsa_fusion.sAtt_'),
  ('reconstruction', 'recon_trunk'), ('conv_hr', 'HRconv'),
]  # fmt: skip


def state_dict():
  """The golden parameters as PyTorch would hold them: OIHW."""
  state = {}
  for theirs, ours in NAMES.items():
    kernel = GOLDEN[f'params/{ours}/kernel'].astype(np.float32)
    state[f'{theirs}.weight'] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    state[f'{theirs}.bias'] = GOLDEN[f'params/{ours}/bias'].astype(np.float32)
  assert 2 * len(NAMES) == sum(name.startswith('params/') for name in GOLDEN.files)
  return state


def published(state):
  def rename(name):
    return functools.reduce(lambda found, pair: found.replace(*pair), PUBLISHED, name)

  return {rename(name): array for name, array in state.items()}


def pickled(tree, arrays):
  """The opcodes of torch.save for a nested dict of arrays, which it appends to `arrays`."""
  if isinstance(tree, dict):
    return b'}(' + b''.join(f'V{key}\n'.encode() + pickled(value, arrays) for key, value in tree.items()) + b'u'
  if not isinstance(tree, np.ndarray):
    return pickle.dumps(tree, 2)[2:-1]
  strides = [step // tree.itemsize for step in tree.strides]
  shape, steps = (''.join(f'I{n}\n' for n in numbers) for numbers in (tree.shape, strides))
  text = f'ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV{len(arrays)}\nVcpu\nI{tree.size}\n'
  text += f'tQI0\n({shape}t({steps}t\x89ccollections\nOrderedDict\n)RtR'
  arrays.append(tree)
  return text.encode('latin1')


def save(path, tree, legacy=False):
  """Writes a .pth file as torch.save does, the zip of today or the format of before version 1.6."""
  arrays = []
  state = b'\x80\x02' + pickled(tree, arrays) + b'.'
  if legacy:
    head = weight_files._LEGACY_MAGIC, weight_files._LEGACY_PROTOCOL, {'protocol_version': 1001, 'little_endian': True}
    keys = pickle.dumps([str(k) for k in range(len(arrays))], 2)
    data = b''.join(struct.pack('<q', array.size) + array.tobytes() for array in arrays)
    path.write_bytes(b''.join(pickle.dumps(value, 2) for value in head) + state + keys + data)
    return path
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('net_g/data.pkl', state)
    archive.writestr('net_g/byteorder', b'little')
    for k, array in enumerate(arrays):
      archive.writestr(f'net_g/data/{k}', array.tobytes())
    archive.writestr('net_g/version', b'3\n')
  return path


def assert_golden(network):
  out = networks.apply(network, GOLDEN['clip'].astype(np.float32) / 255)
  np.testing.assert_allclose(out, GOLDEN['out'], rtol=0, atol=1e-5)


def weights_of(network):
  return networks.by_path(nnx.state(network))


def test_a_file_gives_the_output_of_torch(tmp_path):
  network = basicsr.load_edvr(save(tmp_path / 'x.pth', state_dict()))
  assert_golden(network)
  assert network.front.input_mean == 0 and network.num_frames == 5 and network.align.cascade_warp.groups == 2


def test_sizes_are_found_and_build_a_restorer(tmp_path):
  weights = basicsr.read_edvr(save(tmp_path / 'x.pth', state_dict()))
  args = dict(width=8, num_frames=5, num_front=1, num_blocks=1, groups=2, tail_width=64, input_mean=0.0)
  assert weights.args == args and not weights.unused
  shapes = weights_of(networks.shapes(functools.partial(restorers.create, 'tcl_edvr', **args)))
  assert {name: p.shape for name, p in shapes.items()} == {name: p.shape for name, p in weights.params.items()}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
  'wrap',
  [
    lambda state: state,
    lambda state: {'params': state},
    lambda state: {'params': {'conv_last.bias': np.zeros(3, np.float32)}, 'params_ema': state, 'step': 3},
    lambda state: {f'module.{name}': array for name, array in state.items()},
    published,
  ],
  ids=['plain', 'params', 'params_ema', 'module', 'published'],
)
def test_every_packing_gives_the_same_weights(tmp_path, wrap, legacy):
  found = weights_of(basicsr.load_edvr(save(tmp_path / 'x.pth', wrap(state_dict()), legacy)))
  for name, array in found.items():
    np.testing.assert_array_equal(array, GOLDEN[f'params/{name}'].astype(np.float32), err_msg=name)


def without(state, *prefixes):
  return {name: array for name, array in state.items() if not name.startswith(prefixes)}


def renamed(state, **names):
  return {
    next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(f'{old}.')), name): array
    for name, array in state.items()
  }


def super_resolution(state):
  return renamed(without(state, 'conv_first_2', 'conv_first_3'), conv_first_1='conv_first')


def deblurring(state):
  stem = {'conv_first_1': 'conv_first', 'conv_first_2': 'stride_conv_hr1', 'conv_first_3': 'stride_conv_hr2'}
  more = {f'predeblur.stride_conv_l{k}.bias': np.zeros(8, np.float32) for k in (2, 3)}
  return renamed(state, **{k: f'predeblur.{v}' for k, v in stem.items()}) | more | {'conv_1x1.bias': more.popitem()[1]}


def without_attention(state):
  fusion = {'fusion.weight': state['fusion.feat_fusion.weight'], 'fusion.bias': state['fusion.feat_fusion.bias']}
  return without(state, 'fusion.') | fusion


@pytest.mark.parametrize(
  ('variant', 'message'),
  [
    (
      super_resolution,
      r'x\.pth: an EDVR for x4 super-resolution: 4 of our weights are not in it \(first front/stem/1/\w+\); expected '
      r'one for frames at full resolution with TSA and without predeblur\. partial=True takes the 92 weights that fit',
    ),
    (
      deblurring,
      r'full resolution, with predeblur: 3 of its weights have no place in ours \(first predeblur\.stride_conv_l2',
    ),
    (
      without_attention,
      r'full resolution, without TSA: 26 of our weights are not in it \(.*\), and 2 of its weights have no place .*'
      r'\(first fusion\.weight\)',
    ),
  ],
)
def test_other_variants_are_told(tmp_path, variant, message):
  with pytest.raises(errors.DataError, match=message):
    basicsr.load_edvr(save(tmp_path / 'x.pth', {'params': variant(state_dict())}))


@pytest.mark.parametrize(('variant', 'fresh'), [(super_resolution, ('front/stem/1', 'front/stem/2')), (deblurring, ())])
def test_other_variants_start_a_training(tmp_path, variant, fresh):
  network = basicsr.load_edvr(save(tmp_path / 'x.pth', {'params': variant(state_dict())}), partial=True)
  for name, array in weights_of(network).items():
    if name.startswith(fresh):
      assert name.endswith('bias') or np.asarray(array).any(), name
    else:
      np.testing.assert_array_equal(array, GOLDEN[f'params/{name}'].astype(np.float32), err_msg=name)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda state: {}, r'x\.pth: expected the weights of an EDVR .* pcd_align.* found no tensors at the top'),
    (lambda state: {'params': {}}, r'found no tensors at the top, under params_ema or under params'),
    (lambda state: {'lin0.weight': np.ones((1, 4), np.float32)}, r'expected .* of an EDVR .*; found lin0\.weight'),
    (
      lambda state: state | {'upconv1.weight': np.zeros((32, 8, 1, 1), np.float32)},
      r'tail/up/0/kernel \(1, 1, 8, 32\) -> \(3, 3, 8, 32\) is not what an EDVR of 8 channels, 5 frames and 2 groups',
    ),
    (
      lambda state: state | {'pcd_align.cas_dcnpack.conv_offset.bias': np.zeros(50, np.float32)},
      r'conv_offset has 50 channels, expected 27 for each group',
    ),
  ],
)
def test_other_networks_are_told(tmp_path, change, message):
  with pytest.raises(errors.DataError, match=message):
    basicsr.load_edvr(save(tmp_path / 'x.pth', change(state_dict())), partial=True)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_code_beside_the_weights_does_not_run(tmp_path, legacy):
  class Touch:
    def __reduce__(self):
      return exec, (f'open({str(tmp_path / "ran")!r}, "w").close()',)

  path = save(tmp_path / 'x.pth', {'params': state_dict(), 'optimizer': Touch()}, legacy)
  with pytest.raises(errors.DataError, match=r'x\.pth: refused, its pickle asks for \w+\.exec'):
    basicsr.load_edvr(path)
  assert not (tmp_path / 'ran').exists()


def test_a_cut_file_is_told(tmp_path):
  path = save(tmp_path / 'x.pth', {'params': state_dict()}, legacy=True)
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(errors.DataError, match=r'x\.pth: cut or damaged'):
    basicsr.load_edvr(path)


def test_live_files_of_torch(tmp_path):
  torch = pytest.importorskip('torch')
  state = {name: torch.from_numpy(array) for name, array in state_dict().items()}
  for zipped in (True, False):
    torch.save({'params': state}, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    assert_golden(basicsr.load_edvr(tmp_path / 'x.pth'))
