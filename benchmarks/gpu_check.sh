#!/usr/bin/env bash
# Runs everything that needs a GPU, once, and packs the records.
#
#   gpu_check.sh [--dry-run]
#
#   --dry-run  prints the steps and checks that every file and command they name exists; needs no GPU.
#
# Variables:
#   OUT       folder for summary.txt, logs.txt, report.md and records.tar.gz; default reports/gpu-check
#   WHEELS    folder of wheels to be used as well, for a machine that reaches no package index
#   PYTHON    interpreter that holds PyTorch; default python3
#   BUDGET_S  seconds for everything, at most 470; default 460
#
# Nothing is installed into the interpreter's own environment: packages go into a temporary folder on PYTHONPATH.
# A step that fails is told in summary.txt and does not stop the others; the exit code is 1 if any failed.
set -euo pipefail

usage() {
  sed -n '2,15s/^# \{0,1\}//p' "$0"
}

dry=false
for argument in "$@"; do
  case "$argument" in
    --dry-run) dry=true ;;
    -h | --help) usage; exit 0 ;;
    *) printf 'gpu_check.sh: unknown argument %s\n' "$argument" >&2; usage >&2; exit 2 ;;
  esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
case "${OUT:-}" in
  "") out=$root/reports/gpu-check ;;
  /*) out=$OUT ;;
  *) out=$PWD/$OUT ;;
esac
wheels=${WHEELS:-}
if [[ -n $wheels && $wheels != /* ]]; then wheels=$PWD/$wheels; fi
budget_s=${BUDGET_S:-460}
if ! [[ $budget_s =~ ^[0-9]+$ ]] || ((budget_s < 60 || budget_s > 470)); then
  printf 'gpu_check.sh: BUDGET_S is 60 to 470 seconds, not %s\n' "$budget_s" >&2
  exit 2
fi
readonly pack_s=20 # kept back for the archive
cd "$root"

work=$(mktemp -d)
store=$work/records
mkdir -p "$work/logs" "$store"
SECONDS=0
failed=0
number=0

# A hub that cannot be reached costs minutes of retries; the suites use local models.
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} PYTHONUNBUFFERED=1 COLUMNS=${COLUMNS:-160}

mapfile -t suites < <(grep -lE '^# gpu-check([^[:alnum:]_-]|$)' suites/*.yaml 2>/dev/null || true)
mapfile -t projects < <(printf '%s\n' pyproject.toml plugins/*/pyproject.toml | while read -r file; do
  if [[ -f $file ]]; then dirname "$file"; fi
done)

tell() {
  printf '%s\n' "$*"
  if ! $dry; then printf '%s\n' "$*" >>"$out/summary.txt"; fi
}

# step LIMIT_S NAME COMMAND...: runs a command for at most so long, keeps its log and tells how it ended.
step() {
  local limit_s=$1 name=$2 left_s began code=0 log
  shift 2
  number=$((number + 1))
  if $dry; then
    printf '%2d. %-28s at most %3d s: %s\n' "$number" "$name" "$limit_s" "${*//$'\n'/ }"
    return
  fi
  left_s=$((budget_s - pack_s - SECONDS))
  if ((left_s < 5)); then
    tell "FAIL  $name: not run, the time of all steps is spent"
    failed=$((failed + 1))
    return
  fi
  if ((limit_s > left_s)); then limit_s=$left_s; fi
  log=$work/logs/$(printf '%02d' "$number")-${name//[^[:alnum:]._-]/_}.log
  began=$SECONDS
  timeout --kill-after=5 "$limit_s" "$@" >"$log" 2>&1 </dev/null || code=$?
  if ((code == 0)); then
    tell "ok    $name ($((SECONDS - began)) s): $(tail -n 1 "$log")"
    return
  fi
  failed=$((failed + 1))
  if ((code == 124 || code == 137)); then
    tell "FAIL  $name: ended after $limit_s s"
  else
    tell "FAIL  $name ($((SECONDS - began)) s): exit code $code"
  fi
  tail -n 15 "$log" | sed 's/^/      | /' >>"$out/summary.txt"
}

# Called at every exit: what was measured so far is packed even if this script is ended.
finish() {
  local log
  if ! $dry; then
    for log in "$work"/logs/*.log; do
      if [[ -f $log ]]; then printf '===== %s\n' "$(basename "$log")"; tail -n 2000 "$log"; fi
    done >"$out/logs.txt"
    tar -czf "$out/records.tar.gz" -C "$work" records logs || printf 'FAIL  archive\n' | tee -a "$out/summary.txt"
  fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Puts the sources on PYTHONPATH, with the metadata that entry points are found by.
use_sources() {
  local path=$root project
  for project in "${projects[@]}"; do
    if [[ -d $project/src ]]; then path=$path:$root/$project/src; fi
  done
  "$python" - "$work/metadata" "${projects[@]}" <<'PYTHON'
import sys
import tomllib
from pathlib import Path

target = Path(sys.argv[1])
for project in sys.argv[2:]:
    about = tomllib.loads((Path(project) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = target / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = []
    for group, entries in about.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (folder / "entry_points.txt").write_text("\n".join(lines))
PYTHON
  export PYTHONPATH=$path:$work/metadata${PYTHONPATH:+:$PYTHONPATH}
}

install_all() {
  local found=()
  if [[ -n $wheels ]]; then
    found=("$wheels"/*.whl)
    export PYTHONPATH=$work/wheels${PYTHONPATH:+:$PYTHONPATH}
    step 60 wheels "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/wheels" "${found[@]}"
  fi
  if $dry || ! "$python" -c 'import hatchling' 2>/dev/null; then
    use_sources
    step 20 sources "$python" -c 'import harness; print("harness", harness.__version__, "from its sources")'
    return
  fi
  local before=${PYTHONPATH:-} failures=$failed
  export PYTHONPATH=$work/site${before:+:$before}
  step 90 install "$python" -m pip install --quiet --no-index --no-deps --no-build-isolation --no-compile \
    --target "$work/site" "${projects[@]/#/$root/}"
  if ((failed > failures)); then
    export PYTHONPATH=$before
    use_sources
  fi
}

write_report() {
  local folders=("$store"/*/)
  if ! [[ -d ${folders[0]} ]] && ! $dry; then
    tell "skip  report: no run was recorded"
    return
  fi
  # shellcheck disable=SC2016 # the inner shell expands these
  step 40 report bash -c 'python=$1 report=$2; shift 2; "$python" -m harness.cli report --format md "$@" >"$report"' \
    bash "$python" "$out/report.md" "${folders[@]}"
}

# What the self-test found of the sensor, into the summary; the card itself goes into the archive.
tell_sensor() {
  local cards=("$work"/data/joule-harness/meter-cards/*.json)
  if $dry; then return; fi
  if ! [[ -f ${cards[0]} ]]; then
    tell "      no meter card: the records say 'sensor not tested'"
    return
  fi
  mkdir -p "$work/logs/meter-cards"
  cp "${cards[@]}" "$work/logs/meter-cards/"
  sed -n 's/^ *sensor: /      sensor: /p' "$work"/logs/*self-test.log | tee -a "$out/summary.txt"
}

# What the steps name, asked for where nothing is run.
check_names() {
  local missing=0 command file word words
  missing_name() { printf 'missing: %s\n' "$*"; missing=$((missing + 1)); }
  for command in "$python" timeout tar grep sed tail mktemp; do
    command -v "$command" >/dev/null || missing_name "command $command"
  done
  for file in pyproject.toml harness/cli.py benchmarks/test_{speculative,segmentation}_speed.py "${suites[@]}"; do
    [[ -f $file ]] || missing_name "file $file"
  done
  if [[ -n $wheels ]] && ! compgen -G "$wheels/*.whl" >/dev/null; then missing_name "wheels in $wheels"; fi
  "$python" -c 'import pytest' 2>/dev/null || missing_name "module pytest"
  grep -q '"gpu:' pyproject.toml || missing_name "pytest marker gpu"
  while read -r command words; do
    file=$("$python" -m harness.cli "$command" --help 2>&1) || missing_name "harness $command"
    for word in $words; do [[ $file == *"$word"* ]] || missing_name "harness $command $word"; done
  done <<'NAMES'
run --store
doctor --self-test --meter --reference
report --format
NAMES
  if ((missing > 0)); then failed=$((failed + missing)); fi
}

if ! $dry; then
  mkdir -p "$out"
  : >"$out/summary.txt"
  rm -f "$out/report.md" "$out/logs.txt" "$out/records.tar.gz"
fi

install_all
step 60 device "$python" -c '
import platform, sys, torch
print("python", platform.python_version(), "torch", torch.__version__, "cuda", torch.version.cuda)
if not torch.cuda.is_available():
    sys.exit("no CUDA device")
print(*(torch.cuda.get_device_properties(i).name for i in range(torch.cuda.device_count())), sep=", ")'
# First of all, so that the records name the card: does the energy counter see all of the time, and how late is it?
export XDG_DATA_HOME=$work/data
step 200 self-test "$python" -m harness.cli doctor --self-test --meter nvml
tell_sensor
if ((${#suites[@]} == 0)); then tell "skip  suites: none in suites/ has a line '# gpu-check'"; fi
for suite in "${suites[@]}"; do
  step $((160 / ${#suites[@]})) "suite-$(basename "$suite" .yaml)" "$python" -m harness.cli run "$suite" --store "$store"
done
step 90 gpu-tests "$python" -m pytest -q -rs -m gpu -p no:cacheprovider --continue-on-collection-errors
step 90 decoding-bandwidth "$python" -m pytest -q -s -m gpu -p no:cacheprovider benchmarks/test_speculative_speed.py
step 120 segmentation-frames "$python" -m pytest -q -s -m gpu -p no:cacheprovider benchmarks/test_segmentation_speed.py
write_report

if $dry; then check_names; fi
if ((failed > 0)); then
  if $dry; then tell "$failed missing"; else tell "$failed failed in $SECONDS s"; fi
  exit 1
fi
if $dry; then tell "every name is there"; else tell "all steps done in $SECONDS s"; fi
