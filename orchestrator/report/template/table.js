// The leaderboard: sorted, filtered and shown a page at a time, from columns.
"use strict";
(() => {
  const table = document.getElementById("trials");
  if (!table) return;
  const columns = JSON.parse(document.getElementById("data-columns").textContent);
  const byName = Object.fromEntries(columns.map((column) => [column.name, column]));
  const element = (id) => document.getElementById(id);
  const filter = element("filter"), status = element("status");
  const PAGE = 50;
  const COLOURS = {
    completed: "#0072B2", stopped: "#E69F00", running: "#009E73", paused: "#56B4E9",
    interrupted: "#CC79A7", diverged: "#D55E00", failed: "#D55E00",
  };
  let sorted = { name: "rank", descending: false }, page = 0, shown = [];

  const say = (column, value) => {
    if (value === null) return "";
    if (column.kind === "share") return value.toFixed(4);
    if (column.kind === "number") {
      const size = Math.abs(value);
      return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
    }
    return String(value);
  };
  const rows = columns[0].values.map((_, row) => row);
  const texts = []; // of rows that were searched, by row
  const textOf = (row) => (texts[row] ??= columns.map((column) => say(column, column.values[row])).join(" ").toLowerCase());

  // A condition on a row for a word of the filter: `column<value`, or text that is anywhere in the row.
  const condition = (word) => {
    const found = word.match(/^([^<>=!]+)(<=|>=|!=|<|>|=)(.+)$/);
    if (!found || !byName[found[1]]) return (row) => textOf(row).includes(word);
    const { kind, values } = byName[found[1]];
    const wanted = kind === "text" ? found[3] : Number(found[3]);
    const value = kind === "text" ? (row) => String(values[row] ?? "").toLowerCase() : (row) => values[row];
    const compare = {
      "<": (a) => a < wanted, ">": (a) => a > wanted, "<=": (a) => a <= wanted, ">=": (a) => a >= wanted,
      "=": (a) => a === wanted, "!=": (a) => a !== wanted,
    }[found[2]];
    return (row) => value(row) !== null && compare(value(row));
  };

  const choose = () => {
    const words = filter.value.toLowerCase().replace(/\s*(<=|>=|!=|<|>|=)\s*/g, "$1").split(/\s+/).filter(Boolean);
    const wanted = words.map(condition);
    if (status.value) wanted.push((row) => byName.status.values[row] === status.value);
    const { values } = byName[sorted.name], sign = sorted.descending ? -1 : 1;
    const order = (a, b) => {
      if (values[a] === values[b]) return a - b;
      if (values[a] === null || values[b] === null) return values[a] === null ? 1 : -1; // what is absent comes last
      return values[a] < values[b] ? -sign : sign;
    };
    shown = rows.filter((row) => wanted.every((holds) => holds(row))).sort(order);
    page = 0;
    draw();
  };

  const cell = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    const lines = shown.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
      const line = document.createElement("tr");
      columns.forEach((column) => {
        const text = say(column, column.values[row]);
        const made = column.name === "trial" ? cell("th", text) : cell("td", text, column.kind === "text" ? "text" : "");
        if (column.name === "trial") made.scope = "row";
        if (column.more) made.classList.add("more");
        if (column.name === "status") {
          made.classList.add("status");
          made.style.setProperty("--of", COLOURS[text]);
        }
        if (column.name === "error") {
          made.classList.add("error");
          made.title = text;
        }
        line.append(made);
      });
      return line;
    });
    table.tBodies[0].replaceChildren(...lines);
    element("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} trial${rows.length === 1 ? "" : "s"}`;
    element("page").textContent = `page ${page + 1} of ${last + 1}`;
    element("previous").disabled = page === 0;
    element("next").disabled = page === last;
    element("previous").parentElement.hidden = last === 0;
    for (const heading of table.tHead.rows[0].cells) {
      if (heading.dataset.column !== sorted.name) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
    }
  };

  const headings = document.createElement("tr");
  for (const column of columns) {
    const heading = cell("th", "", column.kind === "text" ? "text" : ""), button = cell("button", column.name);
    heading.scope = "col";
    heading.classList.toggle("more", column.more);
    heading.dataset.column = column.name;
    button.type = "button";
    button.title = column.about;
    button.addEventListener("click", () => {
      const same = sorted.name === column.name;
      sorted = { name: column.name, descending: same ? !sorted.descending : column.name === "score" };
      choose();
    });
    heading.append(button);
    headings.append(heading);
  }
  table.tHead.append(headings);
  const turn = (by) => () => {
    page += by;
    draw();
  };
  element("previous").addEventListener("click", turn(-1));
  element("next").addEventListener("click", turn(1));
  filter.addEventListener("input", choose);
  status.addEventListener("change", choose);
  choose();
  document.documentElement.dataset.table = "drawn";
})();
