// Sorting and filtering of tables that are complete without it, and the choice between light and dark.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const store = {
    get() { try { return localStorage.getItem("plumbline-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("plumbline-theme", value); } catch { /* a file opened from disk may keep nothing */ } },
  };
  const theme = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(store.get())) root.dataset.theme = store.get();
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; store.set(root.dataset.theme); show(); });
  show();

  // Where a chart is wider than its box, the newest days come first into view.
  for (const chart of document.querySelectorAll("svg.chart")) chart.parentElement.scrollLeft = chart.parentElement.scrollWidth;

  const key = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "n") return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    return (cell.dataset.v ?? cell.textContent).trim().toLowerCase();
  };
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const table = head.closest("table"), kind = head.dataset.sort, column = head.cellIndex;
      const was = head.getAttribute("aria-sort");
      const down = was ? was === "ascending" : kind === "n";
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("sum"));
      const sums = [...table.tBodies[0].rows].filter((row) => row.classList.contains("sum"));
      const keyed = rows.map((row) => [key(row, column, kind), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);  // what is missing stays last
        const order = kind === "n" ? a - b : a.localeCompare(b);
        return down ? -order : order;
      });
      table.tBodies[0].append(...keyed.map(([, row]) => row), ...sums);
    });
  }

  for (const form of document.querySelectorAll("form[data-filters]")) {
    const rows = [...document.getElementById(form.dataset.filters).tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const status = form.querySelector("output");
    const apply = () => {
      const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
      const severity = form.elements.severity ? form.elements.severity.value : "";
      let n = 0;
      rows.forEach((row, i) => {
        const fits = words.every((word) => texts[i].includes(word)) && (!severity || row.dataset.severity === severity);
        row.hidden = !fits;
        n += fits;
      });
      status.textContent = words.length || severity ? `${n.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows` : "";
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.reset();
  }
})();
