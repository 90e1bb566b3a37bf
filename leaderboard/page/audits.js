// Who is in a subset and who is out, where its author had it audited.

/** The audits of the entries that were chosen, with their groups on one axis. */
function auditsOf(rows) {
  const audited = rows.filter(({ audit }) => audit !== null);
  const reach = reachOfAudits(audited.map(({ audit }) => audit));
  return audited.map((row) =>
    element(
      "section",
      { class: "audit", "aria-label": `Who is in and who is out: ${row.method}` },
      element("h3", {}, "Who is in, who is out", rows.length > 1 ? [": ", named(row.method)] : null),
      element("p", {}, auditWords(row.audit)),
      row.audit.different.length ? auditTable(row.audit, reach) : null,
      row.audit.amplification.length ? element("p", { class: "soft" }, amplified(row.audit)) : null,
    ),
  );
}

/** What the strips span: every interval, and what is kept of all. */
function reachOfAudits(audits) {
  const ends = audits.flatMap(({ base, different }) => [base, ...different.flatMap(({ low, high }) => [low, high])]);
  return [Math.min(1, ...ends), Math.max(0, ...ends)];
}

function auditWords({ pool, base, groups, less, more, different }) {
  const some =
    less + more > different.length ? `, here the ${different.length} that are farthest from what is kept of all` : "";
  return [
    `Of the pool's ${size(pool)} rows the subset keeps ${share(base)}. `,
    `Of ${several(groups, "group")} that were looked at, ${less} are kept less often than the rest `,
    `and ${more} more often, beyond chance${some}.`,
    different.length
      ? " Dot and band are the share kept and its interval of 95 %, the mark is the share kept of all."
      : null,
  ];
}

function auditTable({ base, different }, reach) {
  const [least, most] = reach;
  const at = (value) => `${((100 * (value - least)) / (most - least || 1)).toFixed(1)}%`;
  const body = different.map(({ attribute, group, raw, ratio, low, high }) => [
    [named(group), element("small", {}, named(attribute), `, ${several(raw, "row")}`)],
    [
      element("strong", {}, share(ratio)),
      element("small", {}, ` (${share(low)} to ${share(high)})`),
      element("span", {
        class: `strip gain ${ratio < base ? "out" : "in"}`,
        "aria-hidden": "true",
        style: `--at:${at(ratio)};--from:${at(low)};--to:${at(high)};--zero:${at(base)}`,
      }),
    ],
  ]);
  const table = plainTable("Groups of which another share is kept than of the rest", ["Group", "#Kept"], body);
  return element("div", { class: "scroll", role: "region", "aria-label": "Groups", tabindex: "0" }, table);
}

/** Whether rarer groups are cut more, by attribute. */
function amplified({ amplification }) {
  const told = amplification.map(
    ({ attribute, r, p, groups }) =>
      `${attribute} r = ${r.toFixed(2).replace("-", "−")}, p = ${chance(p)} (${groups} groups)`,
  );
  return `Share kept against size of the group, r above 0 where rarer ones are cut more: ${told.join("; ")}.`;
}

const share = (value) => `${(100 * value).toFixed(1)} %`;
const chance = (p) => (p < 0.001 ? p.toExponential(0) : p.toFixed(3));
