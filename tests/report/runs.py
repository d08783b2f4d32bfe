"""Evaluated runs on two clips, and how they are read."""

import summaries
from report.evaluated import Clips

from vqm_jax.report import saved_frames

CLIPS = Clips('a', 'b')
TARGETS, INPUTS, frames_of, psnr, scores = CLIPS.targets, CLIPS.inputs, CLIPS.noisy, CLIPS.psnr, summaries.scores


def workdir(folder, outputs, *args, train=True, **changes):
  return CLIPS.workdir(folder, outputs, *args, train=train, **changes)


def read(*folders):
  return saved_frames.read_results(map(str, folders))


def saved(*folders):
  return saved_frames.SavedFrames(*read(*folders))
