(function () {
  "use strict";

  // Without this script every row, size and figure is there to be read; it only chooses among them and sorts.
  document.documentElement.classList.add("scripted");

  const plural = (count, one) => count + " " + one + (count === 1 ? "" : "s");

  function sortable(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const body = table.tBodies[0];
    const given = Array.from(body.rows);

    function value(row, column) {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value;
    }

    function compared(a, b, column, sign) {
      const [x, y] = [value(a, column), value(b, column)];
      if (x === "" || y === "") {
        return (x === "") - (y === ""); // what has no figure comes last, whichever way
      }
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : Number(x) - Number(y);
      return sign * (order || 0); // infinities alike: NaN
    }

    function sort(head, column) {
      const ways = head.dataset.first === "ascending" ? ["ascending", "descending"] : ["descending", "ascending"];
      const way = head.getAttribute("aria-sort") === ways[0] ? ways[1] : ways[0];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1;
      body.append(...given.slice().sort((a, b) => compared(a, b, column, sign)));
    }

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(head, column));
      head.append(button);
    });
  }

  function explanations(table) {
    const picker = document.getElementById("class-picker");
    const slider = document.getElementById("rho-slider");
    const larger = document.getElementById("larger");
    const rows = Array.from(table.tBodies[0].rows);
    const images = new Set(rows.map((row) => row.dataset.image));

    function choose() {
      const chosen = new Set();
      rows.forEach((row) => {
        row.hidden = !row.dataset.shownFor.split(" ").includes(picker.value);
        if (!row.hidden) {
          chosen.add(row.dataset.image);
        }
      });
      const rest = images.size - chosen.size;
      const without = rest ? "; for the others this class was not explained" : "";
      document.getElementById("shown").textContent =
        "Showing " + chosen.size + " of " + plural(images.size, "image") + without + ".";
    }

    function resize() {
      const sizes = slider.dataset.values.split(" ").map(Number);
      const text = slider.dataset.texts.split("|")[slider.value];
      document.getElementById("rho-value").textContent = text;
      slider.setAttribute("aria-valuetext", text);
      table.querySelectorAll("td.sizes").forEach((cell) => show(cell, sizes[slider.value]));
    }

    function show(cell, size) {
      const pictures = Array.from(cell.children);
      const away = (picture) => Math.abs(Number(picture.dataset.rho) - size);
      const nearest = pictures.reduce((best, picture) => (away(picture) < away(best) ? picture : best));
      pictures.forEach((picture) => { picture.hidden = picture !== nearest; });
    }

    picker.addEventListener("change", choose);
    larger.addEventListener("change", () => table.classList.toggle("large", larger.checked));
    document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("controls").hidden = false;
    choose();
    larger.dispatchEvent(new Event("change"));
    if (slider) {
      slider.addEventListener("input", resize);
      resize();
    }
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("#explanations").forEach(explanations);
})();
