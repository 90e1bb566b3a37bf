// Who wins, by how much, in words.

function drawLeader({ board }) {
  const entries = board.rows.filter((row) => row.kind === "entry");
  const published = board.rows.find((row) => row.kind === "published");
  const lines = entries.length
    ? leading(board, entries)
    : [element("p", { class: "headline" }, "No ranked entry yet.")];
  const gained = board.methods.find(({ low }) => low !== null);
  if (gained) lines.push(element("p", {}, overSeeds(board, gained)));
  if (published) lines.push(element("p", {}, againstPublished(board, entries[0], published)));
  byId("leader").replaceChildren(...lines, figures(board, entries));
}

function leading(board, entries) {
  const [first] = entries;
  const others = entries.filter((row) => row.method !== first.method || row.author !== first.author); // not its seeds
  const tied = others.filter((row) => row.rank === 1);
  const behind = others.find((row) => row.rank > 1);
  const name = element("strong", {}, named(first.method));
  const headline = tied.length
    ? [
        name,
        ` has the highest average, ${score(first.aggregates[0])}, but noise does not set it apart from `,
        listed(tied),
        ".",
      ]
    : [name, ` leads with an average of ${score(first.aggregates[0])}.`];
  if (entries.length === 1) headline.push(" It is the only ranked entry.");
  return [
    element("p", { class: "headline" }, headline),
    ...(behind ? [element("p", {}, lead(board, first, behind, tied.length))] : []),
  ];
}

function lead(board, first, behind, tied) {
  const difference = first.aggregates[0] - behind.aggregates[0];
  const noise = aggregateMargin(board, 0, first, behind);
  const words = noise ? `, ${(difference / noise).toFixed(1)} times what noise explains (${score(noise)})` : "";
  return [
    tied ? "The first that is clearly behind is " : "It is ahead of ",
    named(behind.method),
    tied ? `, at ${score(behind.aggregates[0])}: ` : " by ",
    `${score(difference)}${words}.`,
  ];
}

/** What the best method with several seeds gains. */
function overSeeds(board, method) {
  const baseline = board.methods.find((other) => other.baseline);
  return [
    `Over ${several(method.seeds, "seed")}, `,
    named(method.method),
    " gains ",
    element("strong", {}, signed(method.gain)),
    ` (${minus(method.low)} to ${minus(method.high)}) over `,
    named(baseline.method),
    ".",
  ];
}

/** "A, B and 3 others" */
function listed(rows) {
  const names = rows.slice(0, 2).map((row) => named(row.method));
  const others = rows.length - names.length;
  const parts = others ? [...names, `${several(others, "other")}`] : names;
  return parts.flatMap((part, place) => [place === 0 ? null : place === parts.length - 1 ? " and " : ", ", part]);
}

function againstPublished(board, first, published) {
  const value = published.aggregates[0];
  if (value === null) return [];
  const start = ["The best published result, ", named(published.method), `, has ${score(value)}`];
  if (!first) return [...start, "."];
  const difference = first.aggregates[0] - value;
  const noise = aggregateMargin(board, 0, first, published);
  const words =
    noise !== null && Math.abs(difference) <= noise
      ? "within noise of the leader"
      : `${score(Math.abs(difference))} ${difference > 0 ? "less" : "more"} than the leader`;
  return [...start, `, ${words}.`];
}

function figures(board, entries) {
  const first = entries[0];
  const noise = board.noise[0];
  const facts = [
    ["Ranked entries", entries.length.toLocaleString("en")],
    ...(first
      ? [
          [
            "Leader's dataset",
            first.share === null ? size(first.size) : `${size(first.size)} (${percent(first.share)} of the pool)`,
          ],
        ]
      : []),
    ...(first && board.aggregates.length > 1
      ? [["Leader's ImageNet", score(first.aggregates[board.aggregates.findIndex(({ name }) => name === "imagenet")])]]
      : []),
    ["Seeds alone differ by", noise === null ? "not known" : `up to ${score(noise)}`],
  ];
  return element(
    "dl",
    { class: "figures" },
    facts.map(([title, text]) => element("div", {}, element("dt", {}, title), element("dd", {}, text))),
  );
}
