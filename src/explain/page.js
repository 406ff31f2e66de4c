"use strict";
const listing = document.getElementById("listing");
const about = document.getElementById("about");
const rows = [...listing.children];
const copiers = new Map();
rows.forEach(row => {
  for (const [source] of copiesOf(row)) {
    if (!copiers.has(source)) copiers.set(source, []);
    copiers.get(source).push(row);
  }
});

// The row that made each copied value, and the entry of the value in the table if it has one.
function copiesOf(row) {
  return (row.dataset.copies || "").split(" ").filter(Boolean).map(copy => {
    const [at, value] = copy.split(":");
    return [document.getElementById("r" + at), value && document.getElementById("v" + value)];
  }).filter(([source]) => source);
}

const text = (row, name) => row.querySelector("." + name).textContent;

function tell(row) {
  document.querySelectorAll(".source, .copier").forEach(lit => lit.classList.remove("source", "copier"));
  const copies = copiesOf(row);
  const said = copies.map(([source, value]) => {
    source.classList.add("source");
    const what = value ? text(value, "value") + " (" + text(value, "id") + ")" : text(source, "val");
    return "copies " + what + ", made by " + text(source, "op") + " at byte " + text(source, "at");
  });
  const taken = copiers.get(row) || [];
  taken.forEach(copier => copier.classList.add("copier"));
  if (taken.length) said.push("copied by " + taken.length + " instructions, the first at byte " + text(taken[0], "at"));
  const plain = "makes or changes " + text(row, "val");
  about.textContent = "Byte " + text(row, "at") + ", " + text(row, "op") + ": " + (said.join("; ") || plain);
  const plot = document.getElementById("plot");
  const x = rows.indexOf(row) / plot.dataset.group;
  for (const end of ["x1", "x2"]) document.getElementById("here").setAttribute(end, x);
}

let current = rows[0];
function go(row) {
  if (!row) return;
  current.tabIndex = -1;
  current = row;
  row.tabIndex = 0;
  row.focus();
  row.scrollIntoView({ block: "nearest" });
}
const rowOf = event => event.target.closest && event.target.closest(".row");
listing.addEventListener("mouseover", event => rowOf(event) && tell(rowOf(event)));
listing.addEventListener("focusin", event => {
  const row = rowOf(event);
  if (!row) return;
  current.tabIndex = -1;
  current = row;
  row.tabIndex = 0;
  tell(row);
});
const visited = [];
listing.addEventListener("keydown", event => {
  const row = rowOf(event);
  if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
  const at = rows.indexOf(row);
  const to = {
    ArrowDown: () => rows[at + 1], ArrowUp: () => rows[at - 1], Home: () => rows[0], End: () => rows[rows.length - 1],
    PageDown: () => rows[Math.min(at + 25, rows.length - 1)], PageUp: () => rows[Math.max(at - 25, 0)],
    Backspace: () => visited.pop(),
    Enter: () => {
      const target = copiesOf(row).map(([source]) => source)[0] || (copiers.get(row) || [])[0];
      if (target) visited.push(row);
      return target;
    },
  }[event.key];
  if (!to) return;
  event.preventDefault();
  go(to());
});
document.getElementById("plot").addEventListener("click", event => {
  const box = event.currentTarget.getBoundingClientRect();
  go(rows[Math.min(rows.length - 1, Math.round((event.clientX - box.left) / box.width * rows.length))]);
});
document.querySelectorAll("td.id a").forEach(link => link.addEventListener("click", event => {
  event.preventDefault();
  go(document.querySelector(link.getAttribute("href")));
}));

// The table: search and sorting.
const body = document.querySelector("#values tbody");
const search = document.getElementById("search");
const subjects = document.getElementById("subjects");
const values = [...body.rows].map(row => ({ row, text: row.textContent.toLowerCase() }));
function filter() {
  const wanted = search.value.toLowerCase();
  let n = 0;
  for (const { row, text } of values) {
    row.hidden = !text.includes(wanted) || (subjects.checked && row.dataset.subject !== "1");
    n += !row.hidden;
  }
  document.getElementById("n").textContent = n + " of " + values.length;
}
search.addEventListener("input", filter);
subjects.addEventListener("change", filter);
filter();
document.querySelectorAll("#values th").forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const isNumber = ["uses", "saved"].includes(head.dataset.key);
  const first = isNumber ? "descending" : "ascending";
  const other = isNumber ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  document.querySelectorAll("#values th").forEach(th => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const key = row => {
    const cell = row.cells[column].textContent;
    return isNumber ? (cell === "" ? -Infinity : +cell) : cell;
  };
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => isNumber ? (a < b ? -1 : +(a > b)) : a.localeCompare(b, "en", { numeric: true });
  values.map(({ row }) => [key(row), row]).sort(([a], [b]) => sign * compare(a, b)).forEach(([, row]) => body.append(row));
}));
