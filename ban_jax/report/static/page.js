// Comfort only: sorting, filtering, opening all sections. The page says everything
// without it.
(function () {
  "use strict";
  const table = document.querySelector(".verdicts");
  const tools = document.querySelector(".tools");
  const sections = Array.from(document.querySelectorAll("details.candidate"));

  function sectionOf(anchor) {
    const body = anchor && document.getElementById(anchor);
    return body && body.closest("details");
  }

  function reveal() {
    const section = sectionOf(location.hash.slice(1));
    if (section) {
      section.open = true;
      section.scrollIntoView();
    }
  }

  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", function () {
    sections.forEach(function (section) { section.open = true; });
  });
  reveal();
  if (!table || !tools) return;

  tools.hidden = false;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const wanted = tools.querySelector("input");
  const verdict = tools.querySelector("select");

  function filter() {
    const words = wanted.value.toLowerCase();
    rows.forEach(function (row) {
      const isHidden =
        (verdict.value && row.dataset.verdict !== verdict.value) ||
        !row.textContent.toLowerCase().includes(words);
      const section = sectionOf(row.dataset.anchor);
      // The narrow layout gives rows a display of their own, which beats `hidden`.
      row.style.display = isHidden ? "none" : "";
      if (section) section.style.display = isHidden ? "none" : "";
    });
  }

  wanted.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  tools.querySelector("button").addEventListener("click", function () {
    const open = sections.some(function (section) { return !section.open; });
    sections.forEach(function (section) { section.open = open; });
    this.textContent = open ? "Close all" : "Open all";
  });

  // A cell sorts by its data-sort, where an empty one is the least, or by its text.
  function sortKey(row, column) {
    const cell = row.cells[column];
    const told = cell.dataset.sort;
    if (told === undefined) return cell.textContent.toLowerCase();
    return told === "" ? -Infinity : Number(told);
  }

  table.querySelectorAll("thead th").forEach(function (head, column) {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", function () {
      const isAscending = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("th").forEach(function (other) {
        other.removeAttribute("aria-sort");
      });
      head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      rows
        .slice()
        .sort(function (one, other) {
          const first = sortKey(one, column);
          const second = sortKey(other, column);
          return (first < second ? 1 : first > second ? -1 : 0) * (isAscending ? -1 : 1);
        })
        .forEach(function (row) { body.appendChild(row); });
    });
  });
})();
