# What the scripts of arrays have in common; they source it. It goes to the checkout, finds the interpreter, and sets
# `part` to the word part=i/n of an element, and to none outside an array. Elements are counted, whatever their numbers
# are, and by the step too, as in --array=0-30:2.
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
python=${PYTHON:-.venv/bin/python}
part=()
if test -n "${SLURM_ARRAY_TASK_ID:-}"; then
    step=${SLURM_ARRAY_TASK_STEP:-1}
    step=$((step > 0 ? step : 1))
    count=$(((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN) / step + 1))
    part=("part=$(((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / step + 1))/$count")
fi
