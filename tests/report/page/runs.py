"""Two evaluated runs with names that have to be escaped, and pages made of runs."""

from report.evaluated import Clips
from report.parsed_page import Parsed

from vqm_jax.report import saved_frames
from vqm_jax.report.page import build

ODD = 'b<i>"&\' ü'  # a clip, which is a folder
EVIL = '</script><script>alert("1")</script>&amp;'
CLIPS = Clips('a', ODD)
TARGETS, INPUTS, frames_of, psnr, workdir = CLIPS.targets, CLIPS.inputs, CLIPS.noisy, CLIPS.psnr, CLIPS.workdir


def read(*folders):
  return saved_frames.read_results(map(str, folders))


def make(out, *folders, **options):
  build.write(out, [str(folder) for folder in folders], **options)
  return Parsed(out.read_text(encoding='utf-8'))
