#!/usr/bin/env bash
# ./run.sh                     set up .venv if needed, then the demo: a clip restored at once, then a training of minutes
# ./run.sh test [pytest args]  set up if needed, then the test suite; `./run.sh test -m slow` runs the long tests
# ./run.sh bench               set up if needed, then the benchmarks
# ./run.sh docs                set up if needed, then the pages of docs/ with a reference of every module, into site/
# ./run.sh setup               only set up
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

setup() {
  local python stamp
  if [ ! -x .venv/bin/python ]; then
    for python in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
      [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
      python=''
    done
    [ -n "$python" ] || { echo 'error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.' >&2; exit 1; }
    say "Making .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  stamp=.venv/installed-$(cat setup.py pyproject.toml | cksum | cut -d' ' -f1)
  if [ ! -e "$stamp" ]; then
    say 'Installing vqm_jax and its dependencies into .venv (once, some hundred megabytes)'
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
    rm -f .venv/installed-* && touch "$stamp"
  fi
}

docs() {
  .venv/bin/python -c 'import mkdocstrings_handlers.python, material' 2>/dev/null ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
  NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict
  echo 'site/index.html'
}

demo() {
  local python=.venv/bin/python out=demo run=demo/tuned train started=$SECONDS
  mkdir -p "$out/first"
  say '1/6 Restoring a compressed clip with weights that ship, against its original'
  "$python" -m vqm_jax.enhance --weights=web-small --input=docs/clip/bee.mp4 --reference=docs/clip/bee_original.mp4 \
    --output="$out/first/bee_restored.mp4" --overwrite
  printf '    That took %s s. What follows trains a network: some minutes.\n' $((SECONDS - started))
  train=("$python" -m vqm_jax.train --config=experiments/web_small.py:tiny --config.init_from=web-small \
    --config.data_dir="$out/data" --workdir="$run")
  say "2/6 Building vqm_demo: scenes rendered from photographs, compressed with H.264"
  "$python" -m vqm_jax.prepare.build --dataset=vqm_demo --config=tiles_t1p96,frames --data_dir="$out/data"
  if [ ! -d "$run" ]; then
    say "3/6 Fine-tuning these weights on it, to be interrupted on the way"
    "${train[@]}" &
    trap 'kill $! 2>/dev/null' EXIT
    until [ -d "$run/checkpoints/100" ]; do
      kill -0 $! 2>/dev/null || { wait $!; exit 1; }
      sleep 0.5
    done
    say '    Interrupting it now (SIGTERM) ...'
    kill -TERM $! 2>/dev/null || true
    wait $!
    trap - EXIT
    say '    ... and starting the same command again: it resumes'
  else
    say "3/6 Training: $run exists, going on from there (delete $out to start afresh)"
  fi
  "${train[@]}"
  say '4/6 Evaluating on the test split, all frames, with simple filters beside'
  "$python" -m vqm_jax.eval --workdir="$run" --baselines
  say '5/6 Enhancing a compressed video'
  "$python" -m vqm_jax.prepare.demo_videos --output="$out/videos"
  "$python" -m vqm_jax.enhance --workdir="$run" --input="$out/videos/coffee_compressed.mp4" \
    --output="$out/videos/coffee_restored.mp4" --compare --overwrite
  say "6/6 Done in $((SECONDS - started)) s"
  cat "$run/eval/test/table.md"
  cat <<TEXT

  the first clip: input | restored | original   $out/first/bee_restored_reference.png
  pictures (input | output | target | error)    $run/eval/test/pictures/
  pictures during training                      $run/samples/
  video                                         $out/videos/coffee_restored.mp4
  side by side                                  $out/videos/coffee_restored_compare.mp4
  curves                                        $run/metrics.jsonl, or tensorboard --logdir=$out
TEXT
}

case "${1:-demo}" in
  demo) setup; demo ;;
  test) setup; shift; exec .venv/bin/python -m pytest "$@" ;;
  bench) setup; for file in benchmarks/*.py; do say "$file"; .venv/bin/python "$file"; done ;;
  docs) setup; docs ;;
  setup) setup ;;
  *) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
esac
