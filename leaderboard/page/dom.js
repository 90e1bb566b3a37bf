// Elements. Text from submissions reaches the document as text nodes only.

const NONE = "–";
const byId = (id) => document.getElementById(id);

/** element("td", {class: "number"}, "0.5"). Attributes that are null or false are left out; `onclick` listens. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null));
  return node;
}

/** A name that turns no neighbour around, whichever way it is written, and is cut to a few lines. */
function named(text) {
  return element("bdi", { class: "text", title: text.length > 60 ? text : null }, text);
}

function outside(url, ...children) {
  return url === null ? children : element("a", { href: url, rel: "nofollow noopener noreferrer" }, ...children);
}

function number(text, attributes = {}) {
  return element("td", { ...attributes, class: `number ${attributes.class ?? ""}` }, text);
}

/** A table of texts; columns whose name starts with "#" hold numbers, the first column names the row. */
function plainTable(caption, columns, rows) {
  const head = columns.map((title) =>
    element("th", { scope: "col", class: title.startsWith("#") ? "number" : null }, title.replace("#", "")),
  );
  const body = rows.map((cells) =>
    element(
      "tr",
      {},
      cells.map((cell, place) => {
        if (place === 0) return element("th", { scope: "row", class: "name" }, cell);
        return columns[place].startsWith("#") ? number(cell) : element("td", {}, cell);
      }),
    ),
  );
  return element(
    "table",
    {},
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, element("tr", {}, head)),
    element("tbody", {}, body),
  );
}

/** Draw anew what may hold the focus, and give it back to the element of the same id. */
function keepingFocus(draw) {
  const { id } = document.activeElement;
  draw();
  if (id && document.activeElement.id !== id) byId(id)?.focus({ preventScroll: true });
}
