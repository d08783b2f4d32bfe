"""Eight virtual CPU devices and a compilation cache for all tests."""

import contextlib
import functools
import gc
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(tempfile.gettempdir()) / 'vqm_jax_test_xla_cache'

# Before JAX starts; tests that start binaries pass on this environment.
FLAGS = ['--xla_force_host_platform_device_count=8']
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # an unknown flag stops the program
  FLAGS.append('--xla_cpu_use_fusion_emitters=false')  # compiles up to four times faster
  # A program cut into parts for as many threads as compile is a tenth more work in all, and the workers fill the cores.
  FLAGS.append('--xla_cpu_parallel_codegen_split_count=1')
  # Eight devices that share two cores may be late for each other; 40 seconds would end the process.
  FLAGS.append('--xla_cpu_collective_call_terminate_timeout_seconds=300')
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *FLAGS]).strip()
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')  # a short run compiles a hundred small ones
os.environ.setdefault('JAX_DEFAULT_PRNG_IMPL', 'rbg')  # compiles in a tenth of the time for every new shape
# Large programs that run a few times: compiling them is nearly all of the work.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('JAX_TRACEBACK_IN_LOCATIONS_LIMIT', '0')  # which lines of Python lowered each operation
# Tracing makes objects by the million and hardly any cycle of them: looking for those took a tenth of the time.
gc.set_threshold(50_000, 20, 50)
for folder in (ROOT, ROOT / 'datasets'):
  if str(folder) not in sys.path:
    sys.path.append(str(folder))


# Half of the time goes here. First, so that short files are left to fill the end when one worker is done.
LONG = (
  'test_learning.py', 'test_train.py', 'test_experiments.py', 'test_enhancers.py', 'test_progressive.py',
  'test_eval.py', 'test_combine.py', 'test_dpe.py', 'test_contract.py', 'test_loop.py', 'test_adversarial.py',
  'test_wespe.py', 'test_dacal.py',
)  # fmt: skip


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def _remember_shuffles():
  """Keep where Grain shuffles which sample to: short trainings ask for the same again and again.

  Of a handful of records each costs milliseconds of a processor: a permutation of 65,536 numbers is followed until it
  comes to one below the number of records.
  """
  with contextlib.suppress(ImportError, AttributeError):  # inside of Grain; without, tests are slower
    from grain._src.python.dataset.transformations import shuffle

    places = functools.cache(shuffle.index_shuffle.index_shuffle)
    shuffle.index_shuffle = types.SimpleNamespace(index_shuffle=places)


def pytest_sessionfinish():
  gc.freeze()  # a second or two less for each worker at its end


@pytest.fixture(scope='session')
def build_demo(tmp_path_factory):
  """Builds configs of vqm_demo: build_demo('tiles', ...) -> a data_dir with them."""
  _remember_shuffles()

  def build(*configs) -> str:
    import tensorflow_datasets as tfds

    from vqm_demo import vqm_demo_dataset_builder

    folder = str(tmp_path_factory.mktemp('data'))
    for config in configs:
      builder = vqm_demo_dataset_builder.Builder(config=config, data_dir=folder)
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return folder

  return build


@pytest.fixture(scope='session')
def micro_data(build_demo) -> str:
  """A data_dir with vqm_demo's micro configs: 2 training, 1 validation, 1 test clip of 96x64."""
  return build_demo('micro_tiles', 'micro_frames')


@pytest.fixture(scope='session')
def two_cameras_data(build_demo) -> str:
  """A data_dir with vqm_demo's micro configs of two cameras."""
  return build_demo('micro_weak_tiles', 'micro_unpaired_tiles', 'micro_weak_frames')


@pytest.fixture(scope='session')
def make_tiny_config(micro_data):
  """Makes fresh configs of ECNU at the smallest size on the micro data: six steps of a moment each."""
  from experiments import ecnu

  def make(**changes):
    config = ecnu.get_config('tiny')
    config.system_args.update(width=4, mapping_width=8, num_blocks=1)
    config.update(
      data_dir=micro_data, dataset_config='micro_tiles', val_config='micro_frames', crop=16, batch_size=8, steps=6,
      log_every=2, save_every=2, eval_every=6, eval_frames=2,
    )  # fmt: skip
    config.update(changes)
    return config

  return make


@pytest.fixture
def tiny_config(make_tiny_config):
  """A config of `make_tiny_config` to change at will."""
  return make_tiny_config()


# Forks once for every line of its input and runs a binary or script there; answers with its number and exit code.
_FORKING = """
import gc, json, os, runpy, signal, sys
import flax.nnx, grain, jax, jax.scipy, matplotlib.figure, optax, orbax.checkpoint, scipy.ndimage, tensorflow_datasets
import vqm_jax.enhancing, vqm_jax.report, vqm_jax.training.progressive, vqm_jax.video
gc.freeze()  # a second less at the end of every fork
for line in sys.stdin:
  name, args, env, files = json.loads(line)
  if child := os.fork():
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    continue
  for number, file in enumerate([os.devnull, *files]):
    os.dup2(os.open(file, os.O_RDWR), number)
  os.environ.update(env)
  signal.alarm(600)  # ends what hangs
  sys.argv = [name, *args]
  if name.endswith('.py'):
    runpy.run_path(name, run_name='__main__')
  else:
    runpy.run_module(f'vqm_jax.{name}', run_name='__main__', alter_sys=True)
  sys.exit()
"""


@pytest.fixture(scope='session')
def command(tmp_path_factory):
  """Runs a binary to its end: command('eval', '--flag=x', ...) -> returncode, stdout, stderr, and `output`, both.

  Instead of a binary it may be the path of a script. In a fork of a process that has imported the large libraries,
  which takes seconds, and on two devices, since more than there are cores only compute what is thrown away; otherwise
  as `binary` does. `meanwhile` is called with the number of the process once it runs.
  """
  files = [tmp_path_factory.mktemp('command') / name for name in ('stdout', 'stderr')]
  server = subprocess.Popen(
    [sys.executable, '-c', _FORKING],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=2'},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    bufsize=1,
  )

  def run(name, *args, meanwhile=lambda pid: None, **env):
    for file in files:
      file.write_text('')
    args = list(map(str, args))
    print(json.dumps([str(name), args, env, list(map(str, files))]), file=server.stdin)
    pid = int(server.stdout.readline())
    try:
      meanwhile(pid)
    finally:  # or the next one would read this line
      code = int(server.stdout.readline())
    out, err = (file.read_text() for file in files)
    return types.SimpleNamespace(returncode=code, stdout=out, stderr=err, output=out + err)

  yield run
  server.stdin.close()
  server.wait()


@pytest.fixture
def binary():
  """Starts one of our binaries as a user would: binary('train', '--flag=x', ...) -> Popen with text output."""
  started = []

  def start(name, *args, blocked=(), limit_kib=None, **env):
    run = ['-m', f'vqm_jax.{name}']
    if blocked:  # as if these packages were not installed
      code = (
        'import runpy\n'
        'from importlib.machinery import PathFinder\n'
        'find = PathFinder.find_spec\n'
        'def absent(name, path=None, target=None):\n'
        f'  return None if name.split(".")[0] in {list(blocked)} else find(name, path, target)\n'
        'PathFinder.find_spec = staticmethod(absent)\n'
      )
      run = ['-c', code + f'runpy.run_module("vqm_jax.{name}", run_name="__main__", alter_sys=True)']
    command = [sys.executable, *run, *map(str, args)]
    if limit_kib:  # no file may become larger
      command = ['bash', '-c', f'ulimit -f {limit_kib}; exec "$@"', 'bash', *command]
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=os.environ | {'PYTHONUNBUFFERED': '1'} | env,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    started.append(process)
    return process

  yield start
  for process in started:
    process.kill()
    process.wait()
