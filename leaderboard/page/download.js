// The view as a file.

function asCsv(state) {
  const { board } = state;
  const heads = [
    "kind",
    "rank",
    "rank_last",
    "method",
    "author",
    "dataset_size",
    "share",
    "seed",
    ...board.aggregates.flatMap(({ name }) => [name, `${name}_stderr`]),
    ...board.tasks.flatMap(({ name }) => [name, `${name} stderr`]),
  ];
  const lines = [...state.ranked, ...state.unverified, ...state.unranked].map((row) => [
    row.kind,
    row.rank,
    row.last,
    row.method,
    row.author,
    row.size,
    row.share,
    row.seed,
    ...board.aggregates.flatMap((_, place) => [exact(row.aggregates[place]), exact(row.errors[place])]),
    ...board.tasks.flatMap((_, place) => [exact(row.scores[place]), exact(row.task_errors[place])]),
  ]);
  return [heads, ...lines].map((cells) => cells.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

/** Spreadsheets run what starts with =, +, - or @ as a formula; a quote in front makes it text. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t]/.test(value) ? `'${value}` : value;
  return /[",\r\n']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const exact = (value) => (value === null || value === undefined ? null : Number(value.toFixed(5)));

function asJson(state) {
  const { board } = state;
  const named = (list, values) => Object.fromEntries(list.map(({ name }, place) => [name, exact(values[place])]));
  const entries = [...state.ranked, ...state.unverified, ...state.unranked].map((row) => ({
    kind: row.kind,
    rank: row.rank,
    rank_last: row.last,
    method: row.method,
    author: row.author,
    writeup: row.link,
    dataset_size: row.size,
    seed: row.seed,
    notes: row.notes,
    id: row.id,
    aggregates: named(board.aggregates, row.aggregates),
    aggregates_stderr: named(board.aggregates, row.errors),
    tasks: named(board.tasks, row.scores),
    tasks_stderr: named(board.tasks, row.task_errors),
  }));
  return `${JSON.stringify({ track: board.track, scale: board.scale, entries }, null, 1)}\n`;
}

function save(name, kind, text) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  const anchor = element("a", { href: url, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const fileName = ({ board }, suffix) => `poolbench-${board.track}-${board.scale}.${suffix}`;
