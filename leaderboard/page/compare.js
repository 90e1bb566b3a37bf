// One chosen entry in detail, or two against each other.

function drawComparison(state) {
  const [a, b] = state.compare;
  const words = "Tick two rows of the tables above to compare them, or one to see its details.";
  const parts = b
    ? versus(state.board, a, b)
    : a
      ? [besides(facts(state.board, [a]), scoresOf(state.board, a), auditsOf([a]))]
      : [element("p", {}, words)];
  byId("comparison").replaceChildren(...parts);
  drawTray(a, b);
}

/** What was chosen, always in sight: the tables are long. */
function drawTray(a, b) {
  const tray = byId("tray");
  tray.hidden = !a;
  if (!a) return tray.replaceChildren();
  return tray.replaceChildren(
    element("span", {}, named(a.method), ...(b ? [" against ", named(b.method)] : [": tick another to compare"])),
    element(
      "button",
      { type: "button", id: "tray-show", onclick: () => reveal("comparison-section") },
      b ? "Compare" : "Details",
    ),
    element("button", { type: "button", id: "tray-clear", onclick: () => go({ compare: "" }) }, "Clear"),
  );
}

const besides = (...parts) => element("div", { class: "besides" }, parts);

function reveal(id) {
  byId(id).focus({ preventScroll: true });
  byId(id).scrollIntoView();
}

function facts(board, rows) {
  const lines = [
    ["Rank", (row) => (row.kind === "entry" ? rank(row) : DATA.kinds[row.kind])],
    ["Author", (row) => named(row.author)],
    ["Dataset", (row) => (row.size === null ? NONE : row.size.toLocaleString("en"))],
    ["Kept of the pool", (row) => percent(row.share)],
    ["Seed", (row) => String(row.seed ?? NONE)],
    ["Trained", (row) => row.finished ?? NONE],
    ["Unreadable samples", (row) => (row.bad === null ? NONE : row.bad.toLocaleString("en"))],
    ["Overlap with evaluation pictures", overlap],
    ["Version", (row) => row.version ?? NONE],
    [
      "Write-up",
      (row) =>
        row.link === null
          ? NONE
          : outside(row.link, "open", element("span", { class: "unseen" }, ` the write-up of ${row.method}`)),
    ],
    ["Notes", (row) => (row.notes.length ? reasons(row.notes) : NONE)],
    ["Known by", (row) => element("code", {}, row.id)],
  ];
  const body = lines.map(([title, text]) => [title, ...rows.map(text)]);
  return framed("Facts", plainTable("Facts", ["", ...rows.map((row) => named(row.method))].map(String), body), rows);
}

/** A table below names of entries, which are elements and so cannot be plainTable's titles. */
function framed(title, table, rows) {
  const heads = table.tHead.rows[0].cells;
  rows.forEach((row, place) => heads[place + 1].replaceChildren(named(row.method)));
  heads[0].replaceChildren(title);
  return element("div", { class: "scroll", role: "region", "aria-label": title, tabindex: "0" }, table);
}

function scoresOf(board, a) {
  const aggregates = board.aggregates.map(({ title }, place) => [
    title,
    withError(a.aggregates[place], a.errors[place]),
  ]);
  const tasks = a.scores.length
    ? board.tasks.map(({ name }, place) => [name, withError(a.scores[place], a.task_errors[place] ?? null)])
    : [];
  return framed("Scores", plainTable("Scores", ["", "#"], [...aggregates, ...tasks]), [a]);
}

function versus(board, a, b) {
  const aggregates = board.aggregates.map(({ title }, place) =>
    against(title, a.aggregates[place], b.aggregates[place], aggregateMargin(board, place, a, b)),
  );
  const both = a.scores.length > 0 && b.scores.length > 0;
  const tasks = !both
    ? []
    : board.tasks.map(({ name }, place) => against(name, a.scores[place], b.scores[place], taskMargin(place, a, b)));
  const table = element(
    "table",
    { class: "versus" },
    element("caption", { class: "unseen" }, "Difference of the two, against noise"),
    element("thead", {}, element("tr", {}, versusHeads(a, b))),
    element("tbody", {}, aggregates),
    element("tbody", {}, tasks),
  );
  return [
    element("p", {}, verdicts(both ? tasks : aggregates, both ? "tasks" : "aggregates", a)),
    element(
      "p",
      { class: "soft" },
      "Noise: for an aggregate, what seeds and the sampling of test images explain; for a single task, sampling alone, as nobody knows what seeds do to it.",
    ),
    besides(
      facts(board, [a, b]),
      element("div", { class: "scroll", role: "region", "aria-labelledby": "comparison-title", tabindex: "0" }, table),
    ),
    besides(auditsOf([a, b])),
  ];
}

function versusHeads(a, b) {
  const head = (...children) => element("th", { scope: "col", class: "number" }, children);
  return [
    element("th", { scope: "col" }, "Score"),
    head("Difference"),
    element("th", { scope: "col" }, "Verdict"),
    head(named(a.method)),
    head(named(b.method)),
    head("Noise"),
  ];
}

function against(title, one, other, noise) {
  const verdict = judged(one, other, noise);
  const words = { unknown: NONE, within: "within noise", better: "▲ better", worse: "▼ worse" }[verdict];
  const doubt = noise === null && (verdict === "better" || verdict === "worse") ? " (noise unknown)" : "";
  return element(
    "tr",
    { class: verdict },
    element("th", { scope: "row" }, title),
    number(verdict === "unknown" ? NONE : signed(one - other)),
    element("td", { class: "verdict" }, words, doubt),
    number(score(one)),
    number(score(other)),
    number(score(noise)),
  );
}

function judged(one, other, noise) {
  if (one === null || other === null) return "unknown";
  if (Math.abs(one - other) <= (noise ?? 0)) return "within";
  return one > other ? "better" : "worse";
}

function verdicts(rows, things, a) {
  const count = (verdict) => rows.filter((row) => row.className === verdict).length;
  return [
    named(a.method),
    ` is better on ${count("better")}, worse on ${count("worse")} and within noise on ${count("within")} of ${rows.length} ${things}.`,
  ];
}
