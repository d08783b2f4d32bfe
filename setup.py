"""Packaging of vqm_jax. Ranges name the oldest and newest versions that were tried."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'vqm_jax' / '__init__.py').read_text()).group(1)

setuptools.setup(
  name='vqm_jax',
  version=VERSION,
  description='Video quality mapping in JAX and Flax: the systems of the NTIRE 2020 VQM challenge',
  long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  # Only vqm_jax is installed: experiments/ and datasets/ are used from the checkout, and an installed package
  # called `datasets` would shadow another project's.
  packages=setuptools.find_packages(include=['vqm_jax', 'vqm_jax.*']),
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8',
    'av>=14',
    'flax>=0.12',
    'grain>=0.2.15',
    'importlib_resources',  # tensorflow-datasets 4.9 imports it without declaring it
    'jax>=0.10,<0.12',  # shard_map with pcast; 0.12 untried
    'matplotlib>=3.8',
    'ml-collections>=1.0',
    'numpy>=2.0',
    'opencv-python>=4.10',  # never -headless beside it: scenedetect requires this distribution
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11.30',
    'pillow>=11',
    'scenedetect>=0.6.6',
    'scikit-image>=0.25',
    'scipy>=1.13',
    'tensorboardX>=2.6',
    'tensorflow-datasets>=4.9.9,<4.10',  # array_record without TensorFlow was tried on 4.9 only
    'tqdm>=4.66',
  ],
  extras_require={
    'test': ['pytest>=8', 'ruff>=0.8'],
    'beam': ['apache-beam>=2.70'],
    'wandb': ['wandb>=0.19'],
    'gpu': ['jax[cuda12]'],
    'tpu': ['jax[tpu]'],
  },
)
