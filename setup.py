"""Packaging of vqm_jax. Lower bounds are what was tried; an upper bound has its reason beside it."""

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
  package_data={
    'vqm_jax': ['weights/index.json', 'weights/*.safetensors'],
    'vqm_jax.report.page': ['assets/*'],  # HTML, CSS and JavaScript
    'vqm_jax.report.study': ['assets/*'],
  },
  entry_points={'console_scripts': ['vqm-enhance = vqm_jax.enhance:program']},
  install_requires=[
    'absl-py>=2.5',
    'array_record>=0.8.6',
    'av>=18.1',
    'flatbuffers>=25.12',  # jax.export serializes with it, and jax does not declare it
    'flax>=0.12.8',  # tried: 0.12.8, 0.12.10 (with jax 0.11.2); it is said that 0.12.8 does not work with jax >= 0.11.1
    'grain>=0.2.18',
    'importlib_resources',  # tensorflow-datasets 4.9 imports it without declaring it
    'jax>=0.10.2',  # tried: 0.10.2 on CPUs (Python 3.11), 0.11.2 on CPUs and a GPU (Python 3.12)
    'matplotlib>=3.10',
    'ml-collections>=1.1',
    'numpy>=2.4',
    'opencv-python>=5.0',  # never -headless beside it: scenedetect requires this distribution
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8',
    'pillow>=12.3',  # Beam wants one below 13
    'scenedetect>=0.7.2',
    'scikit-image>=0.26',
    'scipy>=1.17',
    'tensorboardX>=2.6.5',
    'tensorflow-datasets>=4.9.10,<4.10',  # array_record without TensorFlow was tried on 4.9 only
    'tqdm>=4.70',
  ],
  extras_require={
    'test': ['pytest>=9', 'pytest-xdist>=3.8', 'ruff>=0.17'],
    # For the tests marked `browser`, with the Debian packages chromium and chromium-driver.
    'browser': ['selenium>=4.51'],
    # For prepare.build --beam_pipeline_options. Tried: 2.71, 2.77.
    'beam': ['apache-beam>=2.71'],
    'tf': ['tensorflow-cpu>=2.21', 'dill>=0.4'],  # for tests/prepare/test_upstream.py alone
    'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.8', 'mkdocstrings[python]>=1.0'],  # for ./run.sh docs
    'onnx': ['jax2onnx>=0.17.1'],  # for vqm_jax.export --output=x.onnx
    'wandb': ['wandb>=0.19'],
    'gpu': ['jax[cuda12]'],
    'tpu': ['jax[tpu]'],
  },
)
