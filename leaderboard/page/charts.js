// The charts: Vega-Lite specifications of leaderboard/charts.py, given rows and the page's colours.

const MOST = 400; // points of a chart
const HEIGHT = 380; // pixels, as all that follow
const HEIGHT_OF_TASK = 16;
const LETTERS = 11;
const LEGEND = 120; // an item
const drawn = new Map(); // id of a chart -> {wanted, view}: what it shows, so that it is drawn anew only when that changes

/** Draw what is not yet drawn, `height` pixels high. */
function drawChart(id, spec, rows, height, theme) {
  const wanted = JSON.stringify([spec, rows, theme]);
  if (drawn.get(id)?.wanted === wanted) return;
  clearChart(id);
  const box = element("div", { class: "drawing" });
  byId(id).append(box);
  const sized = {
    ...spec,
    height,
    width: "container",
    autosize: { type: "fit-x", contains: "padding" },
    datasets: { rows },
  };
  const view = window.vegaEmbed(box, sized, {
    actions: false,
    ast: true,
    renderer: "svg",
    config: chartColours(),
    patch: (vega) => fitted(vega, box.clientWidth),
    tooltip: { theme },
    logLevel: 1, // errors: that no row has a bar is none
  });
  drawn.set(id, { wanted, view });
}

function clearChart(id) {
  drawn.get(id)?.view.then((result) => result.finalize()); // it listens to the window's size
  drawn.delete(id);
  byId(id).replaceChildren();
}

/** What a specification cannot say: labels that keep apart (laid_out in leaderboard/charts.py), a legend that fits. */
function fitted(vega, width) {
  const apart = (mark) => {
    const update = { ...mark.encode.update, fontSize: { value: LETTERS } };
    return { ...mark, transform: DATA.labels.transform, encode: { ...mark.encode, update } };
  };
  const marks = vega.marks.map((mark) => (mark.name === DATA.labels.name ? apart(mark) : mark));
  const most = Math.max(1, Math.floor(width / LEGEND));
  const legends = vega.legends?.map((legend) => ({
    ...legend,
    columns: legend.columns && Math.min(legend.columns, most),
  }));
  return { ...vega, marks, legends };
}

function chartColours() {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const font = "system-ui, sans-serif";
  return {
    background: "transparent",
    font,
    view: { stroke: line },
    text: { color: ink, fill: ink, font },
    axis: {
      labelColor: soft,
      titleColor: ink,
      gridColor: line,
      domainColor: soft,
      tickColor: soft,
      labelFontSize: 12,
      titleFontSize: 12,
      titleFontWeight: 500,
      labelFont: font,
      titleFont: font,
    },
    legend: { labelColor: ink, titleColor: ink, labelFontSize: 12, labelFont: font, titleFont: font },
  };
}

function drawSize(state, theme) {
  const { board, metric } = state;
  const { name, title } = board.aggregates[metric];
  byId("metric").replaceChildren(
    ...board.aggregates.map((aggregate, place) =>
      element("option", { value: aggregate.name, selected: place === metric }, aggregate.title),
    ),
  );
  const known = [...state.ranked, ...state.unverified, ...state.unranked].filter(
    (row) => row.size !== null && row.size > 0 && row.aggregates[metric] !== null,
  );
  const rows = known.slice(0, MOST).map((row) => sizeRow(board, metric, row));
  byId("size-caption").textContent =
    rows.length === 0
      ? "No entry of known size in this view."
      : `The ${known.length > MOST ? `first ${MOST} rows` : "rows"} of the tables above whose dataset size is known: ${several(rows.length, "point")}.`;
  byId("size-table").replaceChildren(
    plainTable(
      `Dataset size and ${title}`,
      ["Method", "", "#Dataset", "#Kept", `#${title}`, "#Rank"],
      rows.map((row, place) => [
        named(row.label),
        DATA.kinds[row.kind],
        size(row.size),
        percent(row.share),
        score(row.score),
        rank(known[place]),
      ]),
    ),
  );
  return rows.length ? drawChart("size-chart", board.charts.size[name], rows, HEIGHT, theme) : clearChart("size-chart");
}

function sizeRow(board, metric, row) {
  const [low, high] = interval(board, metric, row);
  return {
    label: row.method,
    kind: row.kind,
    size: row.size,
    share: row.share,
    score: row.aggregates[metric],
    low,
    high,
    rank: row.rank,
  };
}

function drawAcross(state, theme) {
  const { board } = state;
  const pairs = DATA.pairs.filter(
    ({ track, scales, rows }) => track === board.track && scales.includes(board.scale) && rows.length > 1,
  );
  byId("across-section").hidden = pairs.length === 0;
  if (pairs.length === 0) return clearChart("across-chart");
  const otherOf = ({ scales }) => scales.find((scale) => scale !== board.scale);
  const pair = pairs.find((candidate) => otherOf(candidate) === state.other) ?? most(pairs);
  byId("other").replaceChildren(
    ...pairs.map((candidate) =>
      element("option", { value: otherOf(candidate), selected: candidate === pair }, otherOf(candidate)),
    ),
  );
  const [small, large] = pair.scales;
  byId("across-caption").textContent = acrossWords(pair);
  byId("across-table").replaceChildren(
    plainTable(
      `Ranks at ${small} and ${large}`,
      ["Method", `#Rank at ${small}`, `#Rank at ${large}`, `#Average at ${small}`, `#Average at ${large}`],
      pair.rows.map((row) => [named(row.label), String(row.x_rank), String(row.y_rank), score(row.x), score(row.y)]),
    ),
  );
  return drawChart("across-chart", pair.chart, pair.rows.slice(0, MOST), HEIGHT, theme);
}

const most = (pairs) => pairs.reduce((best, pair) => (pair.rows.length > best.rows.length ? pair : best));

function acrossWords({ scales: [small, large], rho, rows }) {
  const start = `${several(rows.length, "method is", "methods are")} known at both ${small} and ${large}, several seeds counted as their mean. `;
  if (rho === null) return `${start}Too few for a rank correlation.`;
  const strength =
    rho > 0.8
      ? "the small scale is a good guide"
      : rho > 0.5
        ? "the small scale is a rough guide"
        : "the small scale is no guide";
  return `${start}Spearman's rank correlation is ${rho.toFixed(2)}: ${strength}.`;
}

function drawProbes({ board }, theme) {
  byId("probes-section").hidden = board.probes === null;
  if (board.probes === null) return clearChart("probes-chart");
  const { rows, tasks, chart } = board.probes;
  const more = tasks.length > 6 ? " …" : "";
  byId("probes-caption").textContent =
    `${several(rows.length, "entry has", "entries have")} linear probes of ${several(tasks.length, "task")}: ${tasks.slice(0, 6).join(", ")}${more}.`;
  byId("probes-table").replaceChildren(
    plainTable(
      "Zero-shot and linear probe",
      ["Method", "", "#Zero-shot", "#Linear probe"],
      rows.map((row) => [named(row.label), DATA.kinds[row.kind], row.zero_shot.toFixed(3), row.probe.toFixed(3)]),
    ),
  );
  return drawChart("probes-chart", chart, rows.slice(0, MOST), HEIGHT, theme);
}

function drawCorrelations({ board }, theme) {
  const rows = board.correlations;
  const known = rows.filter(({ r }) => r !== null);
  byId("correlations-section").hidden = rows.length === 0;
  byId("correlations-details").hidden = known.length === 0;
  byId("correlations-caption").textContent = known.length
    ? correlationWords(known)
    : "Too few entries: a correlation needs four that differ.";
  if (known.length === 0) return clearChart("correlations-chart");
  const two = (value) => (value === null ? NONE : value.toFixed(2));
  byId("correlations-table").replaceChildren(
    plainTable(
      "Correlation with ImageNet",
      ["Task", "Group", "#r", "#95 % from", "#to", "#Entries"],
      rows.map((row) => [row.task, row.group, two(row.r), two(row.low), two(row.high), String(row.n)]),
    ),
  );
  return drawChart("correlations-chart", board.charts.correlations, known, known.length * HEIGHT_OF_TASK, theme);
}

function correlationWords(known) {
  const apart = known.filter(({ low, high }) => low <= 0 && high >= 0).map(({ task }) => task);
  const end =
    apart.length === 0
      ? "All of them go along with it."
      : `On ${several(apart.length, "task")} the interval includes zero, so ImageNet says nothing there: ${apart.slice(0, 6).join(", ")}${apart.length > 6 ? " …" : ""}.`;
  return `Pearson's r over the ranked entries and published results of this board, with 95 % intervals. ${end}`;
}
