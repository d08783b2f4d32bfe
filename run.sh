#!/usr/bin/env bash
# ./run.sh                     set up .venv if needed, then the demo (about six minutes on two CPU cores)
# ./run.sh test [pytest args]  set up if needed, then the test suite; `./run.sh test -m slow` runs the long tests
# ./run.sh bench               set up if needed, then the benchmarks
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
  stamp=.venv/installed-$(cksum < setup.py | cut -d' ' -f1)
  if [ ! -e "$stamp" ]; then
    say 'Installing vqm_jax and its dependencies into .venv (once, some hundred megabytes)'
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
    rm -f .venv/installed-* && touch "$stamp"
  fi
}

demo() {
  local python=.venv/bin/python out=demo train started=$SECONDS
  train=("$python" -m vqm_jax.train --config=experiments/ecnu.py:tiny --config.data_dir="$out/data" --workdir="$out/ecnu")
  say "1/5 Building vqm_demo: scenes rendered from photographs, compressed with H.264"
  "$python" -m vqm_jax.prepare.build --dataset=vqm_demo --config=tiles_t1p96,frames --data_dir="$out/data"
  if [ ! -d "$out/ecnu" ]; then
    say "2/5 Training ECNU's C2CNet (tiny), to be interrupted on the way"
    "${train[@]}" &
    trap 'kill $! 2>/dev/null' EXIT
    until [ -d "$out/ecnu/checkpoints/2000" ]; do
      kill -0 $! 2>/dev/null || { wait $!; exit 1; }
      sleep 0.5
    done
    say '    Interrupting it now (SIGTERM) ...'
    kill -TERM $! 2>/dev/null || true
    wait $!
    trap - EXIT
    say '    ... and starting the same command again: it resumes'
  else
    say "2/5 Training: $out/ecnu exists, going on from there (delete $out to start afresh)"
  fi
  "${train[@]}"
  say '3/5 Evaluating on the test split, all frames, with simple filters beside'
  "$python" -m vqm_jax.eval --workdir="$out/ecnu" --baselines
  say '4/5 Enhancing a compressed video'
  "$python" -m vqm_jax.prepare.demo_videos --output="$out/videos"
  "$python" -m vqm_jax.enhance --workdir="$out/ecnu" --input="$out/videos/coffee_compressed.mp4" \
    --output="$out/videos/coffee_restored.mp4" --compare --overwrite
  say "5/5 Done in $((SECONDS - started)) s"
  cat "$out/ecnu/eval/test/table.md"
  cat <<TEXT

A fitted 5x5 linear filter gets nearly all of the tiny network's gain on these rendered scenes: the demo shows that the
loop works, not what the systems of the paper can do.

  pictures (input | output | target | error)   $out/ecnu/eval/test/pictures/
  pictures during training                     $out/ecnu/samples/
  video                                        $out/videos/coffee_restored.mp4
  side by side                                 $out/videos/coffee_restored_compare.mp4
  curves                                       $out/ecnu/metrics.jsonl, or tensorboard --logdir=$out
TEXT
}

case "${1:-demo}" in
  demo) setup; demo ;;
  test) setup; shift; exec .venv/bin/python -m pytest "$@" ;;
  bench) setup; for file in benchmarks/*.py; do say "$file"; .venv/bin/python "$file"; done ;;
  setup) setup ;;
  *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac
