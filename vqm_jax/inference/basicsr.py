"""Weights of EDVR as PyTorch trained it, for networks of the shape of `tcl_edvr`.

    network = load_edvr('net_g.pth')                                    # all of it fits, or an error says what does not
    network = load_edvr('EDVR_M_x4_SR_REDS_official.pth', partial=True) # what fits, as a start for training

Two vocabularies are read: that of BasicSR (basicsr/archs/edvr_arch.py) and that of the code published with the paper
(models/archs/EDVR_arch.py, also in MMSR). PyTorch is not needed, and code hidden in a .pth file is refused, not run.
Weights may lie at the top of the file or under `params_ema` (taken first) or `params`; `module.` before names is
dropped. A convolution `name.weight` (out, in, y, x) becomes `path/kernel` (y, x, in, out), `name.bias` becomes
`path/bias`. Frames are RGB in [0, 1] and nothing is subtracted, so that networks are built with `input_mean=0`.

    BasicSR                                       published with the paper         ours
    conv_first_1, conv_first_2, conv_first_3      the same                         front/stem/0, 1, 2
    feature_extraction.N.conv1, conv2             the same                         front/blocks/N/conv1, conv2
    conv_l2_1, conv_l2_2                          fea_L2_conv1, fea_L2_conv2       front/down/0/0, 1
    conv_l3_1, conv_l3_2                          fea_L3_conv1, fea_L3_conv2       front/down/1/0, 1
    pcd_align.offset_conv1.lK                     pcd_align.LK_offset_conv1        align/levels/K-1/offset1
    pcd_align.offset_conv2.l1, l2                 pcd_align.LK_offset_conv2        align/levels/K-1/offset_merge
    pcd_align.offset_conv3.l1, l2                 pcd_align.LK_offset_conv3        align/levels/K-1/offset2
    pcd_align.offset_conv2.l3                     pcd_align.L3_offset_conv2        align/levels/2/offset2
    pcd_align.dcn_pack.lK                         pcd_align.LK_dcnpack             align/levels/K-1/warp
    pcd_align.dcn_pack.lK.conv_offset             ...LK_dcnpack.conv_offset_mask   align/levels/K-1/warp/guide
    pcd_align.feat_conv.l1, l2                    pcd_align.LK_fea_conv            align/levels/K-1/merge
    pcd_align.cas_offset_conv1, cas_offset_conv2  the same                         align/cascade1, cascade2
    pcd_align.cas_dcnpack                         the same                         align/cascade_warp
    pcd_align.cas_dcnpack.conv_offset             ...cas_dcnpack.conv_offset_mask  align/cascade_warp/guide
    fusion.temporal_attn1 (of the centre)         tsa_fusion.tAtt_2                fusion/embed_centre
    fusion.temporal_attn2 (of every frame)        tsa_fusion.tAtt_1                fusion/embed
    fusion.feat_fusion                            tsa_fusion.fea_fusion            fusion/fuse
    fusion.spatial_attn1, spatial_attn2           tsa_fusion.sAtt_1, sAtt_2        fusion/spatial0, spatial1
    fusion.spatial_attn_l1, _l2, _l3              tsa_fusion.sAtt_L1, L2, L3       fusion/spatial2_reduce, _merge, _last
    fusion.spatial_attn3                          tsa_fusion.sAtt_3                fusion/up1
    fusion.spatial_attn4, spatial_attn5           tsa_fusion.sAtt_4, sAtt_5        fusion/up0_mix, up0_last
    fusion.spatial_attn_add1, spatial_attn_add2   tsa_fusion.sAtt_add_1, add_2     fusion/add1, add2
    reconstruction.N.conv1, conv2                 recon_trunk.N.conv1, conv2       blocks/N/conv1, conv2
    upconv1, upconv2                              the same                         tail/up/0, 1
    conv_hr, conv_last                            HRconv, conv_last                tail/conv, tail/last

Channels keep their order everywhere. Of the 27 G that `conv_offset` gives for G groups, both sides take the first 18 G
as offsets (group, tap, dy before dx) and the last 9 G as logits of the masks (group, tap); BasicSR cuts them in three,
and joins the first two thirds again. Pixel shuffles agree, too.

Which variants fit: ours takes frames at full resolution through three convolutions, two of them strided. Only the
published code has such a front by itself (HR_in without predeblur), and its names are those of the table's first line.

    variant                                           what of it has no counterpart
    hr_in, without predeblur (published code)         nothing: all of it fits
    hr_in, with_predeblur (deblurring, compression)   ours lacks `conv_1x1` and most of `predeblur` (pre_deblur), whose
                                                      first convolutions, conv_first, stride_conv_hr1 and _hr2, are
                                                      front/stem/0, 1, 2
    x4 super-resolution                               it lacks front/stem/1, 2; `conv_first`, front/stem/0, sees frames
                                                      of a quarter of our size
    x4 super-resolution, with_predeblur               both; predeblur.conv_first is front/stem/0
    with_tsa=False                                    it lacks fusion/*; ours lacks its one convolution `fusion`

A file does not say which frame is the centre (`center_frame_idx`); the middle one is assumed.
"""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from vqm_jax import checkpoints, errors
from vqm_jax.layers.initializers import ParameterKeys
from vqm_jax.perceptual import weight_files
from vqm_jax.restorers.tcl import TCLEDVR

# Names of the published code -> BasicSR's.
_PUBLISHED = [
  (r'fea_L([23])_conv([12])\.', r'conv_l\1_\2.'),
  (r'pcd_align\.L([123])_offset_conv([123])\.', r'pcd_align.offset_conv\2.l\1.'),
  (r'pcd_align\.L([123])_dcnpack\.', r'pcd_align.dcn_pack.l\1.'),
  (r'pcd_align\.L([12])_fea_conv\.', r'pcd_align.feat_conv.l\1.'),
  (r'(.+)\.conv_offset_mask\.', r'\1.conv_offset.'),
  (r'tsa_fusion\.', 'fusion.'),
  (r'fusion\.tAtt_2\.', 'fusion.temporal_attn1.'),  # crosswise indeed
  (r'fusion\.tAtt_1\.', 'fusion.temporal_attn2.'),
  (r'fusion\.fea_fusion\.', 'fusion.feat_fusion.'),
  (r'fusion\.sAtt_add_', 'fusion.spatial_attn_add'),
  (r'fusion\.sAtt_L', 'fusion.spatial_attn_l'),
  (r'fusion\.sAtt_', 'fusion.spatial_attn'),
  (r'recon_trunk\.', 'reconstruction.'),
  (r'HRconv\.', 'conv_hr.'),
  (r'pre_deblur\.conv_first_2\.', 'predeblur.stride_conv_hr1.'),
  (r'pre_deblur\.conv_first_3\.', 'predeblur.stride_conv_hr2.'),
  (r'pre_deblur\.conv_first(_1)?\.', 'predeblur.conv_first.'),
  (r'pre_deblur\.', 'predeblur.'),
]

# Where the stem lies in other variants.
_STEM = {
  'conv_first': 'front/stem/0',
  'predeblur.conv_first': 'front/stem/0',
  'predeblur.stride_conv_hr1': 'front/stem/1',
  'predeblur.stride_conv_hr2': 'front/stem/2',
}


@dataclasses.dataclass(frozen=True)
class Weights:
  """The content of a file of EDVR's weights.

  Attributes:
    args: constructor arguments of `tcl_edvr` that make a network of its shape.
    params: {path: float array} under our names and in our layout.
    unused: names in the file, in BasicSR's words, that have no counterpart.
  """

  args: dict[str, int | float]
  params: dict[str, np.ndarray]
  unused: list[str]


def load_edvr(
  path: str | pathlib.Path, *, partial: bool = False, dtype: jnp.dtype = jnp.float32, seed: int = 0
) -> TCLEDVR:
  """Build a network of the shape that a file has, with its weights.

  Args:
    path: .pth of any age; .safetensors and .npz with the same names will do.
    partial: accept other variants than ours: what does not fit is left out, what is missing starts afresh, both are
      logged as warnings. Such a network is a start for training; it does not compute what the file's does.
    dtype: compute dtype; parameters are float32.
    seed: of what starts afresh.

  Raises:
    DataError: damaged, more than tensors in it, no EDVR, weights of other shapes, or, unless partial, another variant.
    OSError: it cannot be opened.
  """
  path = pathlib.Path(path)
  weights = read_edvr(path)

  def build() -> TCLEDVR:
    return TCLEDVR(**weights.args, dtype=dtype, rngs=ParameterKeys(seed))

  graphdef, state = nnx.split(nnx.eval_shape(build))
  params, report = checkpoints.warm_start(nnx.to_pure_dict(state), weights.params)
  missing, unused = report['new'], weights.unused + report['unused']
  if report['misfit']:
    raise errors.DataError(
      f'{path}: {report["misfit"][0]} is not what an EDVR of {weights.args["width"]} channels, '
      f'{weights.args["num_frames"]} frames and {weights.args["groups"]} groups has; is it a changed EDVR?'
    )
  if missing or unused:
    lacking = f'{len(missing)} of our weights are not in it{_first(missing)}' if missing else ''
    placeless = f'{len(unused)} of its weights have no place in ours{_first(unused)}' if unused else ''
    text = f'{path}: an EDVR {_variant(weights)}: {", and ".join(filter(None, (lacking, placeless)))}'
    if not partial:
      raise errors.DataError(
        f'{text}; expected one for frames at full resolution with TSA and without predeblur. partial=True takes the '
        f'{len(report["copied"])} weights that fit as a start for training.'
      )
    logging.warning('%s. Took the %d weights that fit.', text, len(report['copied']))
    # Compiled, and of the missing ones only: one by one, all of them would take many times longer.
    fresh = jax.jit(lambda: {name: _flat(nnx.state(build()))[name] for name in missing})()
    params, _ = checkpoints.warm_start(params, weights.params | fresh)
  return nnx.merge(graphdef, params)


def read_edvr(path: str | pathlib.Path) -> Weights:
  """Read a file of EDVR's weights of whatever variant, and its sizes from their shapes.

  Raises:
    DataError: damaged, more than tensors in it, or no EDVR.
    OSError: it cannot be opened.
  """
  path = pathlib.Path(path)
  state = {_basicsr_name(name): array for name, array in weight_files.read(path, lambda name: True).items()}
  modules = _modules(state)
  params, unused = {}, []
  for name, array in state.items():
    module, _, kind = name.rpartition('.')
    ours = modules.get(module)
    if ours is None or kind not in ('weight', 'bias'):
      unused.append(name)
    elif kind == 'bias':
      params[f'{ours}/bias'] = array
    else:
      params[f'{ours}/kernel'] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
  return Weights(_args(path, state), params, unused)


def _modules(state: dict[str, np.ndarray]) -> dict[str, str]:
  """{BasicSR's module: our path}, the table above."""
  table = {
    **{f'conv_first_{k + 1}': f'front/stem/{k}' for k in range(3)},
    **{f'conv_l{k + 2}_{n + 1}': f'front/down/{k}/{n}' for k in range(2) for n in range(2)},
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
    'upconv1': 'tail/up/0',
    'upconv2': 'tail/up/1',
    'conv_hr': 'tail/conv',
    'conv_last': 'tail/last',
  }
  if 'conv_first_1.weight' not in state:
    table |= _STEM
  for k in range(3):
    level, ours = f'l{k + 1}', f'align/levels/{k}'
    coarsest = k == 2
    table |= {
      f'pcd_align.offset_conv1.{level}': f'{ours}/offset1',
      # The second convolution is the last one where no coarser level is merged.
      f'pcd_align.offset_conv2.{level}': f'{ours}/offset2' if coarsest else f'{ours}/offset_merge',
      f'pcd_align.dcn_pack.{level}': f'{ours}/warp',
      f'pcd_align.dcn_pack.{level}.conv_offset': f'{ours}/warp/guide',
    }
    if not coarsest:
      table |= {
        f'pcd_align.offset_conv3.{level}': f'{ours}/offset2',
        f'pcd_align.feat_conv.{level}': f'{ours}/merge',
      }
  for theirs, ours in (('feature_extraction', 'front/blocks'), ('reconstruction', 'blocks')):
    for block in range(_count(state, theirs)):
      table |= {f'{theirs}.{block}.conv{n}': f'{ours}/{block}/conv{n}' for n in (1, 2)}
  return table


def _args(path: pathlib.Path, state: dict[str, np.ndarray]) -> dict[str, int | float]:
  """Find the arguments of `TCLEDVR` from the shapes of its weights."""
  try:
    width, guide = (len(state[f'pcd_align.{name}.bias']) for name in ('cas_offset_conv2', 'cas_dcnpack.conv_offset'))
    fusion = state['fusion.feat_fusion.weight' if 'fusion.feat_fusion.weight' in state else 'fusion.weight']
    tail_width = len(state['conv_hr.bias'])
    num_frames = fusion.shape[1] // width
  except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
    found = ', '.join(list(state)[:3]) or 'no tensors at the top, under params_ema or under params'
    raise errors.DataError(
      f'{path}: expected the weights of an EDVR by the names of BasicSR or of the published code, among them '
      f'{error.args[0] if isinstance(error, KeyError) else "pcd_align, fusion and conv_hr"}; found {found}.'
    ) from error
  if guide % 27 or width % max(1, guide // 27):
    raise errors.DataError(
      f'{path}: pcd_align.cas_dcnpack.conv_offset has {guide} channels, expected 27 for each group of a divisor of '
      f'the {width} channels; is it a changed EDVR?'
    )
  return {
    'width': width,
    'num_frames': num_frames,
    'num_front': _count(state, 'feature_extraction'),
    'num_blocks': _count(state, 'reconstruction'),
    'groups': guide // 27,
    'tail_width': tail_width,
    'input_mean': 0.0,
  }


def _flat(state: nnx.State) -> dict[str, jax.Array]:
  return checkpoints.flatten(nnx.to_pure_dict(state))


def _count(state: dict[str, np.ndarray], sequence: str) -> int:
  numbers = [match[1] for name in state if (match := re.match(rf'{sequence}\.(\d+)\.', name))]
  return len(set(numbers))


def _basicsr_name(name: str) -> str:
  name = name.removeprefix('module.')
  for published, ours in _PUBLISHED:
    name = re.sub(f'^{published}', ours, name)
  return name


def _variant(weights: Weights) -> str:
  words = ['for frames at full resolution' if 'front/stem/1/kernel' in weights.params else 'for x4 super-resolution']
  words += ['with predeblur'] * any(name.startswith('predeblur.') for name in weights.unused)
  words += ['without TSA'] * ('fusion.weight' in weights.unused)
  return ', '.join(words)


def _first(names: list[str]) -> str:
  return f' ({"first " if len(names) > 1 else ""}{names[0]})'
