"""Opening runs of earlier versions."""

import json

import pytest

from vqm_jax import inference


@pytest.mark.parametrize(('version', 'mean'), [('0.1.0', 0.0), ('0.2.0', None)])
def test_networks_of_the_first_version_take_frames_as_they_are(tmp_path, version, mean):
  config = {'system': 'tcl', 'system_args': {'members': [['tcl_edvr', {'width': 8}], ['tcl_unet', {'width': 4}]]}}
  (tmp_path / 'config.json').write_text(json.dumps({'config': config, 'version': version}))
  (_, edvr), (_, unet) = inference.read_config(tmp_path)['system_args']['members']
  assert edvr.get('input_mean') == mean and 'input_mean' not in unet
  config = {'system': 'gtq', 'system_args': {'width': 8}}
  (tmp_path / 'config.json').write_text(json.dumps({'config': config, 'version': version}))
  assert inference.read_config(tmp_path)['system_args'].get('input_mean') == mean
