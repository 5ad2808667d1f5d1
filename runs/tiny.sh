#!/usr/bin/env bash
# The whole story on a CPU in minutes: scene -> data -> stage 1 -> stage 2 -> evaluation -> question.
# The model is a toy (100,000 parameters), its answers have the right form and little truth; the commands
# are those of the real runs. Usage: runs/tiny.sh [OUT]; PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-out/tiny}"
python="${PYTHON:-.venv/bin/python}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
run() { echo "\$ spatial-ttt $*" >&2; "$python" -m spatial_ttt "$@"; }

# 1. One scene to look at.
mkdir -p "$out"
run data show 7 --out "$out/scene.html"

# 2. Homes, walks, descriptions, questions.
run data build --scenes 24 --val-scenes 4 --test-scenes 4 --seed 0 --workers 2 --fps 2 --duration 12 \
    --rooms 1-2 --size 128x96 --small-sizes 64x48 --out "$out/data"

# 3. Stage 1: dense descriptions; the window shrinks to the model's own.
recipe=(--config runs/tiny_cpu.yaml --set "out=$out" --set "data.files=[$out/data/128x96/train]"
    --set "validation.files=[$out/data/128x96/val]" --resume)
run train --stage 1 "${recipe[@]}"

# 4. Stage 2: questions, on the weights of stage 1.
run train --stage 2 "${recipe[@]}"

# 5. Held-out homes.
run eval --benchmark procedural --data "$out/data/128x96/test" --model "$out/stage2/model" \
    --out "$out/eval"

# 6. A walkthrough the model has never seen, and a question.
clip="$out/walk.mp4"
member="$(tar -tf "$out/data/128x96/test/test-000000.tar" | grep -m1 '\.mp4$')"
tar -xOf "$out/data/128x96/test/test-000000.tar" "$member" > "$clip"
run ask "$clip" "How many chair(s) are in this room?
Please answer the question using a single word or phrase." --model "$out/stage2/model" --fps 1
echo "curves: $out/stage1/curves.png $out/stage2/curves.png; report: $out/eval/report.html" >&2
