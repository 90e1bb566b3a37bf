// From the address to the screen, and from the controls to the address.

const THEMES = ["system", "light", "dark"];

function render() {
  const state = settled();
  document.title = `poolbench leaderboard: ${state.board.trackTitle}, scale ${state.board.scale}`;
  keepingFocus(() => {
    drawBoards(state);
    drawControls(state);
    drawLeader(state);
    drawRanking(state);
    drawMethods(state);
    drawComparison(state);
    drawTasks(state);
    drawMeaning(state);
    drawCharts(state);
  });
}

function drawBoards({ board }) {
  const tracks = [...new Map(BOARDS.map(({ track, trackTitle }) => [track, trackTitle]))];
  byId("tracks").replaceChildren(
    ...tracks.map(([track, title]) => segment("track", track, title, track === board.track)),
  );
  const scales = BOARDS.filter(({ track }) => track === board.track).map(({ scale }) => scale);
  byId("scales").replaceChildren(...scales.map((scale) => segment("scale", scale, scale, scale === board.scale)));
}

/** A radio button that looks like a part of a switch. Another board has other entries, so what was chosen there goes. */
function segment(name, value, title, checked) {
  const input = element("input", {
    type: "radio",
    name,
    value,
    id: `${name}-${value}`,
    onchange: () => go({ [name]: value, compare: "", baseline: "", rows: DEFAULTS.rows, other: "" }),
  });
  input.checked = checked;
  return element("label", {}, input, element("span", {}, title));
}

function drawControls(state) {
  const search = byId("search");
  if (search.value !== state.q) search.value = state.q;
  byId("published").checked = state.published;
  byId("unofficial").checked = state.unofficial;
}

/** After the next frame, so that the tables answer at once; in the theme of that moment. */
function drawCharts(state) {
  const theme = isDark() ? "dark" : "light";
  setTimeout(() => {
    drawSize(state, theme);
    drawProbes(state, theme);
    drawAcross(state, theme);
    drawCorrelations(state, theme);
  });
}

function drawMeaning({ board }) {
  const source = board.noiseSource;
  const lines = [
    "An entry's rank is one more than the number of entries that are better by more than noise; “2–5” says that noise leaves places 2 to 5 open. The order is by average, then by ImageNet.",
    "Noise is the largest difference seen between two seeds of one dataset together with 1.96 standard errors of the difference that the sampling of test images makes. ± is one standard error and covers sampling alone.",
    "In the column of averages the dot is the entry and the band what noise could explain of the leader's lead: a dot inside the band is tied with the leader.",
    "Every ranked entry was trained with the pinned recipe of its scale and scored on every task with complete data, the pinned ones. Entries whose data nothing pins are unverified and stand in a table of their own; the others are listed apart, with the reasons.",
  ];
  const noise = board.noise
    .flatMap((value, place) => (value === null ? [] : [`${board.aggregates[place].title} ${score(value)}`]))
    .join(", ");
  byId("meaning").replaceChildren(
    ...lines.map((line) => element("p", {}, line)),
    element(
      "p",
      {},
      noise
        ? ["Seeds alone differ by up to: ", noise, " (", outside(source.url, source.text), ")."]
        : ["How far seeds differ at this scale is not known."],
    ),
  );
}

function listen() {
  byId("search").addEventListener("input", (event) =>
    go({ q: event.target.value, rows: DEFAULTS.rows }, readLink().q !== ""),
  );
  byId("published").addEventListener("change", (event) => go({ published: event.target.checked ? "yes" : "no" }));
  byId("unofficial").addEventListener("change", (event) => go({ unofficial: event.target.checked ? "yes" : "no" }));
  byId("more").addEventListener("click", () => go({ rows: String(settled().shown + STEP) }));
  for (const name of ["metric", "baseline", "other"])
    byId(name).addEventListener("change", (event) => go({ [name]: event.target.value }));
  byId("csv").addEventListener("click", () => save(fileName(settled(), "csv"), "text/csv", asCsv(settled())));
  byId("json").addEventListener("click", () =>
    save(fileName(settled(), "json"), "application/json", asJson(settled())),
  );
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    reveal("content");
  }); // the fragment is the state's
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  window.addEventListener("hashchange", render);
}

const isDark = () => {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

/** The switch of the theme; a browser that stores nothing follows the system on the next visit. */
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    /* storing is forbidden there */
  }
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const button = byId("theme");
  button.textContent = `Theme: ${theme}`;
  button.setAttribute("aria-label", `Theme: ${theme}; change to ${next}`);
  button.onclick = () => {
    setTheme(next);
    if (BOARDS.length) render();
  };
  button.hidden = false;
}

function storedTheme() {
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    /* reading is forbidden there */
  }
  return THEMES.includes(theme) ? theme : "system";
}

setTheme(storedTheme());
if (BOARDS.length) {
  listen();
  render();
  byId("app").hidden = false;
  byId("static").remove();
}
