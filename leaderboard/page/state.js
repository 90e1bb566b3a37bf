// What is shown is said by the address: #track=filtering&scale=medium&q=… so that a link or "back" brings it back.
// Whatever changes the view goes through `go`; only the address's change draws.

const DEFAULTS = {
  track: "",
  scale: "",
  q: "",
  published: "yes",
  unofficial: "yes",
  sort: "rank",
  order: "",
  rows: "50",
  metric: "average",
  baseline: "",
  other: "",
  compare: "",
};
const STEP = 100; // rows that "show more" adds

function readLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value]));
}

/** Change some of the choices. The board is always named: an empty fragment would scroll to the top. */
function go(changes, replace = false) {
  const { board } = settled();
  const link = { ...readLink(), track: board.track, scale: board.scale, ...changes };
  const given = Object.entries(link).filter(([name, value]) => value !== DEFAULTS[name]);
  const hash = `#${new URLSearchParams(given)}`;
  if (replace) location.replace(hash);
  else location.hash = hash;
}

/** What the address says, with what makes no sense on this board left out. */
function settled() {
  const link = readLink();
  const board = chosenBoard(link);
  const known = (ids) => ids.filter((id) => board.byId.has(id)).map((id) => board.byId.get(id));
  const metric = Math.max(
    0,
    board.aggregates.findIndex(({ name }) => name === link.metric),
  );
  const state = {
    ...link,
    board,
    metric,
    published: link.published === "yes",
    unofficial: link.unofficial === "yes",
    column: columns(board).find(({ key }) => key === link.sort) ?? columns(board)[0],
    shown: Math.max(1, Number.parseInt(link.rows, 10) || 50),
    compare: known([...new Set(link.compare.split(","))]).slice(0, 2),
    baseline: known([link.baseline]).find((row) => row.scores.length) ?? largest(board),
  };
  state.descending = (link.order || state.column.order) === "descending";
  return { ...state, ...view(state) };
}

function chosenBoard({ track, scale }) {
  const onTrack = BOARDS.filter((board) => board.track === track);
  const holding = (kind) => BOARDS.find((board) => board.rows.some((row) => row.kind === kind));
  const first = holding("entry") ?? holding("unverified") ?? BOARDS[0];
  return onTrack.find((board) => board.scale === scale) ?? onTrack[0] ?? first;
}

/** The entry with scores that is nearest to no filtering at all: whoever kept most. Unverified ones where no others are. */
function largest(board) {
  const scored = board.rows.filter((row) => row.scores.length && row.kind !== "unranked");
  const verified = scored.filter((row) => row.kind !== "unverified");
  return (verified.length ? verified : scored).reduce((best, row) => (best === null || (row.size ?? 0) > (best.size ?? 0) ? row : best), null);
}

/** The rows of the three tables, searched and sorted, and the methods, searched. */
function view(state) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) => words.every((word) => row.words.includes(word));
  const found = state.board.rows.filter(fits);
  const ranked = found.filter((row) => row.kind === "entry" || (row.kind === "published" && state.published));
  const apart = (kind) => (state.unofficial ? sorted(found.filter((row) => row.kind === kind), state) : []);
  return {
    ranked: sorted(ranked, state),
    unverified: apart("unverified"),
    unranked: apart("unranked"),
    methods: state.board.methods.filter(fits),
  };
}

function sorted(rows, { column, descending }) {
  const sign = descending ? -1 : 1;
  const order = (a, b) => {
    const [one, other] = [column.value(a), column.value(b)];
    if (one === null || other === null) return (one === null) - (other === null); // what is missing comes last
    const difference = typeof one === "string" ? one.localeCompare(other) : one - other;
    return sign * difference;
  };
  return [...rows].sort((a, b) => order(a, b) || a.place - b.place);
}
