// The leaderboard as leaderboard/page/data.py packs it, unpacked; numbers as people read them; noise.

const DATA = JSON.parse(byId("data").textContent);
const BOARDS = DATA.boards.map(unpackedBoard);
const CONFIDENCE = 1.96; // standard errors on each side of a 95 % interval

function unpackedBoard(board) {
  const rows = board.rows.map((values, place) => unpackedRow(board, values, place));
  const methods = board.methods.map(unpackedMethod);
  return { ...board, rows, methods, byId: new Map(rows.map((row) => [row.id, row])) };
}

function unpackedMethod(packed) {
  const [mean, sd] = packed.average.map(inUnits);
  const [gain, low, high] = packed.gain?.map(inUnits) ?? [null, null, null];
  return { ...packed, mean, sd, gain, low, high, words: searched(packed) };
}

function unpackedRow(board, values, place) {
  const row = { place };
  DATA.fields.forEach((field, index) => {
    row[field] = values[index];
  });
  for (const field of ["aggregates", "errors", "scores", "task_errors"]) {
    row[field] = row[field].map(inUnits);
  }
  row.audit = unpackedAudit(row.audit);
  row.share = board.pool && row.size !== null ? row.size / board.pool : null;
  row.words = searched(row);
  return row;
}

function unpackedAudit(packed) {
  if (packed === null) return null;
  const [pool, kept, groups, less, more, different, amplification] = packed;
  return {
    pool,
    base: kept / pool,
    groups,
    less,
    more,
    different: different.map(([attribute, group, raw, ...shares]) => {
      const [ratio, low, high] = shares.map(inUnits);
      return { attribute, group, raw, ratio, low, high };
    }),
    amplification: amplification.map(([attribute, r, p, count]) => ({ attribute, r, p, groups: count })),
  };
}

function inUnits(value) {
  return value === null ? null : value * DATA.unit;
}

function searched({ method, author }) {
  return `${method}\n${author}`.toLowerCase();
}

const score = (value) => (value === null || value === undefined ? NONE : value.toFixed(3));
const points = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const minus = (value) => score(value).replace("-", "−");
const withError = (value, error) =>
  error === null || value === null ? score(value) : `${score(value)} ± ${score(error)}`;
const percent = (value) => (value === null ? NONE : `${Number((100 * value).toPrecision(value < 0.1 ? 1 : 2))} %`);
const several = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

/** 14012345 -> "14.0M" */
function size(count) {
  if (count === null) return NONE;
  for (const [unit, letter] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (count >= unit) return `${(count / unit).toFixed(1)}${letter}`;
  }
  return String(count);
}

/** Training samples that show an evaluation picture: a count, or that nobody looked. */
function overlap(row) {
  if (row.overlap === null) return row.kind === "published" ? NONE : "unknown";
  const [found, , looked, tasks] = row.overlap;
  const partly = looked < tasks ? `, ${looked} of ${several(tasks, "task")}` : "";
  return `${found === 0 ? "none" : found.toLocaleString("en")}${partly}`;
}

function overlapTitle(row) {
  if (row.overlap === null) return "Nobody has told whether its training pictures show evaluation pictures";
  const [found, samples, looked] = row.overlap;
  return `${found.toLocaleString("en")} of ${several(samples, "training sample")} may show a picture of ${several(looked, "task")}`;
}

function rank(row) {
  if (row.rank === null) return NONE;
  return row.last === null || row.last === row.rank ? String(row.rank) : `${row.rank}–${row.last}`;
}

/**
 * How far two scores can be apart by noise alone, or null where nothing is known of it: the largest difference between
 * two seeds, and 95 % of the sampling of test images (leaderboard/rank.py ranks by the same). An unknown error adds
 * nothing.
 */
function margin(seeds, one, other) {
  if (seeds === null && one === null && other === null) return null;
  return Math.hypot(seeds ?? 0, CONFIDENCE * Math.hypot(one ?? 0, other ?? 0));
}

/** The margin of an aggregate, by its place among the board's. */
const aggregateMargin = (board, place, a, b) => margin(board.noise[place], a.errors[place], b.errors[place]);

/**
 * The margin of a task: nobody knows what seeds do to a single task, so only sampling counts. Where one error is not
 * published the other stands in, as both were scored on the same images.
 */
function taskMargin(place, a, b) {
  const [one, other] = [a.task_errors[place] ?? null, b.task_errors[place] ?? null];
  return margin(null, one ?? other, other ?? one);
}

/** [low, high] of one aggregate: half of what two seeds differ by, and sampling; nulls where nothing is known. */
function interval(board, place, row) {
  const [value, error, seeds] = [row.aggregates[place], row.errors[place], board.noise[place]];
  if (value === null || (error === null && seeds === null)) return [null, null];
  const reach = Math.hypot((seeds ?? 0) / 2, CONFIDENCE * (error ?? 0));
  return [value - reach, value + reach];
}
