"use strict";
// Everything stands in the page without this: it sorts tables by their headings and hides rows that a filter leaves out.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      const key = (row) => {
        const cell = row.cells[place];
        return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
      };
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // what has no number stands last
        const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
        return rising ? order : -order;
      };
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}
const form = document.querySelector("form.filters");
if (form) {
  const rows = [...document.querySelectorAll("tr[data-device]")];
  const fill = (name, values) => {
    for (const value of [...new Set(values)].sort()) form.elements[name].append(new Option(value, value));
  };
  const quality = (row) => JSON.parse(row.dataset.quality || "{}");
  fill("device", rows.map((row) => row.dataset.device));
  fill("method", rows.map((row) => row.dataset.method));
  fill("quality", rows.flatMap((row) => Object.keys(quality(row))));
  const apply = () => {
    const { device, method, bar } = form.elements;
    const column = form.elements.quality.value;
    let shown = 0;
    for (const row of rows) {
      const value = quality(row)[column];
      const sign = column.endsWith("at most") ? -1 : 1;
      const enough = !column || (value !== undefined && (bar.value === "" || sign * value >= sign * Number(bar.value)));
      const fits = (!device.value || row.dataset.device === device.value) && (!method.value || row.dataset.method === method.value);
      row.hidden = !(fits && enough);
      shown += row.hidden ? 0 : 1;
    }
    form.querySelector("output").value = `${shown} of ${rows.length} rows`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = rows.length < 2;
  apply();
}
