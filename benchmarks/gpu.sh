#!/usr/bin/env bash
# What can be said on a machine with a GPU alone, in eight minutes at most, as one text file to paste into RESULTS.md:
#
#     benchmarks/gpu.sh [--limit SECONDS] [FILE] [OPTION …]
#
# FILE is gpu.txt by default; options go to both runs of experiments/base.toml, as --set train.epochs=1. The interpreter
# is $PYTHON, python3 by default, with what setup.cfg asks for; nothing is installed. A part that fails or takes too long
# is noted, and the next one follows; the exit status is 1 then. What matters most comes first, for a short limit.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
root=$PWD
python=${PYTHON:-python3}
limit=470
if [ "${1:-}" = --limit ]; then
    limit=$2
    shift 2
fi
case ${1:-gpu.txt} in
/*) out=${1} ;;
*) out=$root/${1:-gpu.txt} ;;
esac
[ $# = 0 ] || shift
options=("$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 COLUMNS=120
SECONDS=0
failed=0

part() { # TITLE SECONDS LINES COMMAND …: a title, the last lines of what the command says, and how it ended
    local title=$1 most=$2 lines=$3 left=$((limit - SECONDS)) began=$SECONDS status
    shift 3
    ((most = most < left ? most : left))
    status='not begun, for no time is left'
    if ((most > 0)); then
        timeout --kill-after=5 "$most" "$@" > "$work/said" 2>&1
        status=$?
        ((status == 124 || status == 137)) && status="$status, stopped after $most s"
    fi
    [ "$status" = 0 ] || failed=1
    {
        printf '\n## %s\n\n' "$title"
        [ -f "$work/said" ] && tail -n "$lines" "$work/said"
        printf '\n(exit status %s; %s s)\n' "$status" $((SECONDS - began))
    } >> "$out"
    rm -f "$work/said"
    echo "$title: exit status $status" >&2
}

environment() {
    nvidia-smi
    "$python" -m yeastexp doctor || local broken=1
    "$python" -c 'import torch; assert torch.cuda.is_available(), "PyTorch sees no GPU"' && return "${broken:-0}"
}

trained() { # FOLDER OPTION …: run the experiment there, which ends with a table of its scores
    mkdir -p "$work/$1" && cd "$work/$1" || return
    "$python" -m yeastexp run "$root/experiments/base.toml" "${@:2}"
}

compared() {
    cd "$work" || return
    sha256sum {first,second}/runs/base/001/checkpoints/best.pt
    cmp {first,second}/runs/base/001/checkpoints/best.pt && echo 'best.pt: the same bytes' || local other=1
    cmp {first,second}/runs/base/001/per_image.csv && echo 'per_image.csv: the same bytes' || local other=1
    return "${other:-0}"
}

export -f environment trained compared
export python root work
printf '# yeastexp on a GPU, %s, revision %s\n' "$(date -u +%F)" "$(git rev-parse --short HEAD 2> /dev/null)" > "$out"
part 'Environment' 45 60 bash -c environment
# Without pytest-xdist, and whatever new versions of other packages warn of.
part 'pytest -m gpu' 140 80 "$python" -m pytest -o addopts= -p no:cacheprovider -W default -m gpu -rs -v --durations=5 tests/gpu
part 'python -m benchmarks gpu' 170 60 "$python" -m benchmarks gpu
part 'python -m yeastexp run experiments/base.toml' 60 60 bash -c 'trained "$@"' - first "${options[@]}"
part 'The same again' 60 60 bash -c 'trained "$@"' - second "${options[@]}"
part 'Whether both ended in the same bytes' 10 20 bash -c compared
exit "$failed"
