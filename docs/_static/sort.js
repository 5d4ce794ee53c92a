// A click on the head of a column sorts a table of results by it; a second click turns the order.
document.addEventListener("DOMContentLoaded", () => {
  const value = (row, column) => {
    const text = row.cells[column].innerText.trim();
    const [, number, unit] = text.match(/^([\d.,]+)\s*(k|M|G|s|min|h)?/) ?? [];
    if (number === undefined) return text;
    const scale = { k: 1e3, M: 1e6, G: 1e9, min: 60, h: 3600 }[unit] ?? 1;
    return Number(number.replaceAll(",", "")) * scale;
  };
  for (const table of document.querySelectorAll("table.docutils")) {
    const [body] = table.tBodies;
    if (body === undefined || body.rows.length < 5 || table.tHead === null) continue;
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const rises = head.getAttribute("aria-sort") === "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", rises ? "ascending" : "descending");
        const sorted = [...body.rows].sort((a, b) => {
          const [x, y] = [a, b].map((row) => value(row, head.cellIndex));
          if (x === "" || y === "") return (x === "") - (y === ""); // what is not known comes last
          const order =
            typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
          return rises ? order : -order;
        });
        body.append(...sorted);
      });
    }
  }
});
