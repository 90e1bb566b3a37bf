// What the seeds of a method have in common, and by how much it beats training on the whole pool.

function drawMethods({ board, methods, shown }) {
  byId("methods-section").hidden = methods.length === 0;
  const rows = methods.slice(0, shown);
  const baseline = board.methods.find((method) => method.baseline);
  byId("methods-note").replaceChildren(...methodsNote(baseline));
  byId("methods").replaceChildren(methodsTable(board, baseline, rows));
  const left = methods.length - rows.length;
  byId("methods-left").textContent = left ? `And ${several(left, "other")}.` : "";
}

function methodsNote(baseline) {
  const means = "Means over seeds; ± is the standard deviation between them.";
  if (!baseline) return [means, " Nobody trained on the whole pool here, so there is nothing to gain over."];
  const interval = ", with Welch's interval of 95 %, which covers seeds alone.";
  return [means, " The gain is over ", named(baseline.method), interval];
}

function methodsTable(board, baseline, rows) {
  const columns = ["Method", "#Average", ...(baseline ? ["#Gain"] : []), "#Seeds", "#Dataset"];
  const reach = reachOfGains(board);
  const body = rows.map((row) => [
    [named(row.method), element("small", {}, named(row.author))],
    [score(row.mean), row.sd === null ? null : element("small", {}, ` ± ${score(row.sd)}`)],
    ...(baseline ? [gainCell(row, reach)] : []),
    String(row.seeds),
    element("span", { title: row.size === null ? null : row.size.toLocaleString("en") }, size(row.size)),
  ]);
  return plainTable(`Methods over their seeds, ${board.trackTitle}, scale ${board.scale}`, columns, body);
}

function gainCell(row, reach) {
  if (row.baseline) return element("span", { class: "soft" }, "baseline");
  const among = row.low === null ? null : element("small", {}, ` (${minus(row.low)} to ${minus(row.high)})`);
  return [element("strong", {}, signed(row.gain)), among, gainStrip(row, reach)];
}

/** The gain as a dot, its interval as the band, and where no gain is as a line. */
function gainStrip({ gain, low, high }, [least, most]) {
  if (least === most) return null;
  const at = (value) => `${((100 * (value - least)) / (most - least)).toFixed(1)}%`;
  return element("span", {
    class: "strip gain",
    "aria-hidden": "true",
    style: `--at:${at(gain)};--from:${at(low ?? gain)};--to:${at(high ?? gain)};--zero:${at(0)}`,
  });
}

/** What the strips of a board span: every interval, and zero. */
function reachOfGains(board) {
  const gained = board.methods.filter(({ gain }) => gain !== null);
  const ends = gained.flatMap(({ gain, low, high }) => [low ?? gain, high ?? gain]);
  return ends.reduce(([least, most], end) => [Math.min(least, end), Math.max(most, end)], [0, 0]);
}
