// The ranking, the entries that are unverified or not ranked, and the sources of published results.

/** What the tables show: a title, how a row sorts, and its cell. `order` is what the first click on the title gives. */
function columns(board) {
  const scores = board.aggregates.map(({ name, title }, place) => ({
    key: name,
    title,
    order: "descending",
    value: (row) => row.aggregates[place],
    cell: (row) => aggregateCell(board, place, row),
  }));
  return [
    { key: "rank", title: "Rank", order: "ascending", value: (row) => row.place, cell: rankCell },
    {
      key: "method",
      title: "Method",
      order: "ascending",
      text: true,
      value: (row) => row.method,
      cell: (row) => methodCell(board, row),
    },
    ...scores,
    {
      key: "size",
      title: "Dataset",
      order: "ascending",
      value: (row) => row.size,
      cell: (row) => number(size(row.size), { title: row.size === null ? null : row.size.toLocaleString("en") }),
    },
    ...(board.pool
      ? [
          {
            key: "kept",
            title: "Kept",
            order: "ascending",
            value: (row) => row.share,
            cell: (row) => number(percent(row.share)),
          },
        ]
      : []),
    {
      key: "seed",
      title: "Seed",
      order: "ascending",
      value: (row) => row.seed,
      cell: (row) => number(row.seed ?? NONE),
    },
    ...(showsOverlap(board)
      ? [
          {
            key: "overlap",
            title: "Overlap",
            order: "ascending",
            value: (row) => (row.overlap === null ? null : row.overlap[0]),
            cell: (row) => number(overlap(row), { title: overlapTitle(row) }),
          },
        ]
      : []),
  ];
}

/** Whether training pictures that show evaluation pictures are told of: the rule is that of the track byod. */
const showsOverlap = (board) => board.track === "byod" || board.rows.some((row) => row.overlap !== null);

function drawRanking(state) {
  const rows = state.ranked.slice(0, state.shown);
  byId("ranking").replaceChildren(
    rows.length ? rankingTable(state, rows) : element("p", { class: "empty" }, nothing(state)),
  );
  const left = state.ranked.length - rows.length;
  byId("more").hidden = left === 0;
  byId("more").textContent = `Show ${Math.min(left, STEP)} more of ${left.toLocaleString("en")}`;
  byId("count").textContent = counted(state);
  drawUnverified(state);
  drawUnranked(state);
  drawSources(state);
}

function nothing(state) {
  return state.board.rows.length === 0 ? "No entry yet." : "No entry fits the search and the filters.";
}

function counted({ board, ranked, unverified, unranked }) {
  const all = board.rows.length;
  const parts = [
    several(ranked.filter((row) => row.kind === "entry").length, "ranked entry", "ranked entries"),
    several(ranked.filter((row) => row.kind === "published").length, "published result"),
    ...(unverified.length ? [several(unverified.length, "unverified entry", "unverified entries")] : []),
    several(unranked.length, "entry not ranked", "entries not ranked"),
  ];
  const shown = ranked.length + unverified.length + unranked.length;
  return `${parts.join(", ")}${shown < all ? ` (${shown.toLocaleString("en")} of ${all.toLocaleString("en")})` : ""}`;
}

function rankingTable(state, rows) {
  const list = columns(state.board);
  const heads = list.map((column) => headCell(state, column));
  const body = rows.map((row) =>
    element(
      "tr",
      { class: row.kind, "data-id": row.id },
      compareCell(state, row),
      list.map((column) => column.cell(row)),
    ),
  );
  return element(
    "table",
    { class: "ranking" },
    element(
      "caption",
      { class: "unseen" },
      `Ranking, ${state.board.trackTitle}, scale ${state.board.scale}. The column titles sort.`,
    ),
    element(
      "thead",
      {},
      element("tr", {}, element("th", { scope: "col" }, element("span", { class: "unseen" }, "Compare")), heads),
    ),
    element("tbody", {}, body),
  );
}

/** A title that sorts; `prefix` keeps the ids of the two tables apart. */
function headCell(state, column) {
  const chosen = column.key === state.column.key;
  const order = state.descending ? "descending" : "ascending";
  const next = chosen ? (state.descending ? "ascending" : "descending") : column.order;
  const arrow = chosen ? (state.descending ? "▾" : "▴") : "";
  const button = element(
    "button",
    {
      type: "button",
      id: `sort-${column.key}`,
      onclick: () => go({ sort: column.key, order: next === column.order ? "" : next }),
    },
    column.title,
    element("span", { class: "arrow", "aria-hidden": "true" }, arrow),
  );
  return element(
    "th",
    { scope: "col", class: column.text ? "name" : "number", "aria-sort": chosen ? order : null },
    button,
  );
}

function compareCell(state, row) {
  const box = element("input", {
    type: "checkbox",
    id: `compare-${row.id}`,
    "aria-label": `Compare ${row.method}`,
    onchange: (event) => choose(state, row, event.target.checked),
  });
  box.checked = state.compare.includes(row);
  return element("td", { class: "pick" }, box);
}

/** Two can be compared: a third takes the place of the one chosen first. */
function choose(state, row, wanted) {
  const others = state.compare.filter((other) => other !== row);
  go({ compare: (wanted ? [...others, row].slice(-2) : others).map(({ id }) => id).join(",") });
}

function rankCell(row) {
  return row.kind === "entry" ? number(rank(row), { class: "rank" }) : number("", { class: "rank" });
}

function methodCell(board, row) {
  const badge = row.kind === "published" ? element("span", { class: "badge" }, "published") : null;
  const cites = row.sources.map((place) =>
    element(
      "sup",
      {},
      outside(board.citations[place].url, element("span", { class: "unseen" }, "source "), String(place + 1)),
    ),
  );
  const name = row.kind === "published" ? named(row.method) : outside(row.link, named(row.method));
  const audited = row.audit === null ? null : element("span", { class: "badge" }, "audited");
  const below = element("small", {}, named(row.author), badge, audited, cites);
  return element("th", { scope: "row", class: "name" }, name, below);
}

function aggregateCell(board, place, row) {
  const [value, error] = [row.aggregates[place], row.errors[place]];
  const small = value === null || error === null ? null : element("small", {}, ` ± ${score(error)}`);
  if (board.aggregates[place].name !== "average") {
    return number(score(value), { title: small === null ? null : withError(value, error) });
  }
  return element("td", { class: "number average" }, element("span", {}, score(value), small), strip(board, place, row));
}

/** The score as a dot between the board's lowest and highest; the band is what noise could explain of the leader's lead. */
function strip(board, place, row) {
  const leader = board.rows.find(({ kind }) => kind === "entry") ?? board.rows[0];
  const [low, high] = (board.range ??= reach(board, place));
  if (row.aggregates[place] === null || leader.aggregates[place] === null || high === low) return null;
  const at = (value) => `${(100 * Math.min(1, Math.max(0, (value - low) / (high - low)))).toFixed(1)}%`;
  const from = leader.aggregates[place] - (aggregateMargin(board, place, leader, row) ?? 0);
  return element("span", {
    class: "strip",
    "aria-hidden": "true",
    style: `--at:${at(row.aggregates[place])};--from:${at(from)};--to:${at(leader.aggregates[place])}`,
  });
}

function reach(board, place) {
  const values = board.rows.map((row) => row.aggregates[place]).filter((value) => value !== null);
  return values.length
    ? values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity])
    : [0, 0];
}

function drawUnverified(state) {
  const { board } = state;
  const heads = ["Method", ...board.aggregates.map(({ title }) => `#${title}`), "#Dataset", "#Seed"];
  const cells = (row) => [
    ...board.aggregates.map((_, place) => number(withError(row.aggregates[place], row.errors[place]))),
    number(size(row.size), { title: row.size === null ? null : row.size.toLocaleString("en") }),
    number(row.seed ?? NONE),
  ];
  drawApart(state, "unverified", "Unverified", DATA.unverified, "Entries whose evaluation data nothing pins", heads, cells);
}

function drawUnranked(state) {
  const words = "Shown, never ranked: what these entries did otherwise than the rules say.";
  const cells = (row) => [
    number(withError(row.aggregates[0], row.errors[0])),
    element("td", { class: "reasons" }, reasons(row.notes)),
  ];
  const heads = ["Method", "#Average", "Why not"];
  drawApart(state, "unranked", "Not ranked", words, "Entries that are not ranked, and why", heads, cells);
}

/** A table of entries below the ranking; heads that start with "#" are of numbers, `cells` are those beside the method. */
function drawApart(state, id, title, words, caption, titles, cells) {
  const rows = state[id].slice(0, state.shown);
  if (rows.length === 0) return byId(id).replaceChildren();
  const body = rows.map((row) =>
    element("tr", { "data-id": row.id }, compareCell(state, row), methodCell(state.board, row), cells(row)),
  );
  const heads = titles.map((head) =>
    element("th", { scope: "col", class: head.startsWith("#") ? "number" : null }, head.replace("#", "")),
  );
  const cut = state[id].length - rows.length;
  return byId(id).replaceChildren(
    element("h3", { id: `${id}-title` }, title),
    element("p", {}, words),
    element(
      "div",
      { class: "scroll", role: "region", "aria-labelledby": `${id}-title`, tabindex: "0" },
      element(
        "table",
        {},
        element("caption", { class: "unseen" }, caption),
        element(
          "thead",
          {},
          element("tr", {}, element("th", { scope: "col" }, element("span", { class: "unseen" }, "Compare")), heads),
        ),
        element("tbody", {}, body),
      ),
    ),
    ...(cut ? [element("p", {}, `And ${several(cut, "other")}.`)] : []),
  );
}

function reasons(notes) {
  const list = element(
    "ul",
    {},
    notes.map((note) => element("li", {}, named(note))),
  );
  return notes.length <= 3
    ? list
    : element("details", {}, element("summary", {}, several(notes.length, "reason")), list);
}

/** Where published numbers were read, and where their sources disagree. */
function drawSources({ board, ranked }) {
  const published = ranked.filter((row) => row.kind === "published");
  if (published.length === 0) return byId("sources").replaceChildren();
  const used = new Set(published.flatMap((row) => row.sources));
  const sources = board.citations
    .map((source, place) => (used.has(place) ? source : null))
    .map((source, place) =>
      source === null ? null : element("li", { value: place + 1 }, outside(source.url, source.text)),
    );
  const notes = published.flatMap((row) =>
    row.notes.map((note) => element("li", {}, named(row.method), ": ", named(note))),
  );
  return byId("sources").replaceChildren(
    element(
      "details",
      {},
      element("summary", {}, `Sources of the ${several(published.length, "published result")}`),
      element("p", {}, "Nobody submitted these, and nothing of them was checked here: they have a place and no rank."),
      element("ol", {}, sources),
      notes.length ? element("ul", {}, notes) : null,
    ),
  );
}
