"""Eight virtual CPU devices and a compilation cache for all tests."""

import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(tempfile.gettempdir()) / 'vqm_jax_test_xla_cache'

# Before JAX starts; tests that start binaries pass on this environment.
os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8').strip()
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')
for folder in (ROOT, ROOT / 'datasets'):
  if str(folder) not in sys.path:
    sys.path.append(str(folder))
