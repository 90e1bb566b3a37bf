// The heat map of tasks: a table, so that it can be read, copied and listened to, with its cells coloured.

const COLUMNS = 12; // entries that are shown
const STRONGEST = 0.1; // the difference with the deepest colour

function drawTasks(state) {
  const { board, baseline } = state;
  const scored = board.rows.filter((row) => row.scores.length);
  byId("tasks-controls").hidden = baseline === null;
  byId("tasks").hidden = baseline === null;
  if (baseline === null) {
    byId("tasks-note").textContent = "No entry with scores of single tasks.";
    return;
  }
  drawBaselines(scored, baseline);
  const chosen = [...state.compare, ...state.ranked, ...state.unverified, ...state.unranked].filter(
    (row) => row.scores.length && row !== baseline,
  );
  const rows = [...new Set(chosen)].slice(0, COLUMNS);
  byId("tasks-note").textContent =
    `In points of 100: blue is better than ${baseline.method}, orange is worse, pale is within the sampling error. ` +
    `The columns are the first ${COLUMNS} rows of the tables above that have such scores, after those ticked; search and sort to choose others.`;
  byId("tasks").replaceChildren(taskTable(board, baseline, rows));
}

function drawBaselines(scored, baseline) {
  const select = byId("baseline");
  const listed = scored.slice(0, 500);
  if (!listed.includes(baseline)) listed.push(baseline);
  select.replaceChildren(
    ...listed.map((row) =>
      element(
        "option",
        { value: row.id, selected: row === baseline },
        `${row.rank === null ? "" : `${rank(row)}. `}${row.method.slice(0, 60)}`,
      ),
    ),
  );
}

function taskTable(board, baseline, rows) {
  const heads = [baseline, ...rows].map((row, place) =>
    element("th", { scope: "col", class: place ? "number" : "number base" }, named(row.method)),
  );
  const groups = [...new Set(board.tasks.map(({ group }) => group))];
  const bodies = groups.map((group) =>
    element(
      "tbody",
      {},
      element(
        "tr",
        { class: "group" },
        element("th", { scope: "rowgroup", colspan: rows.length + 2 }, element("span", {}, group)),
      ),
      board.tasks.map((task, place) => (task.group === group ? taskRow(task, place, baseline, rows) : null)),
    ),
  );
  return element(
    "table",
    { class: "tasks" },
    element("caption", { class: "unseen" }, `Difference of each task's score to ${baseline.method}, in points of 100`),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Task"), heads)),
    bodies,
  );
}

function taskRow(task, place, baseline, rows) {
  return element(
    "tr",
    {},
    element("th", { scope: "row", title: task.metric }, task.name),
    number(score(baseline.scores[place]), { class: "base" }),
    rows.map((row) => taskCell(row, place, baseline)),
  );
}

function taskCell(row, place, baseline) {
  const [value, base] = [row.scores[place], baseline.scores[place]];
  if (value === null || base === null) return number(value === null ? NONE : score(value));
  const difference = value - base;
  const noise = taskMargin(place, row, baseline);
  const weak = noise !== null && Math.abs(difference) <= noise;
  const strength = weak ? 0 : Math.min(1, Math.abs(difference) / STRONGEST);
  return number(points(difference), {
    class: weak ? "weak" : difference > 0 ? "better" : "worse",
    style: `--strength:${(100 * strength).toFixed(0)}%`,
    title: `${row.method}: ${withError(value, row.task_errors[place] ?? null)}${weak ? ", within the sampling error" : ""}`,
  });
}
