// Adds a copy button to each table (as tab-separated values) and each block of code. The page reads the same without.
for (const place of document.querySelectorAll("figure.table, .code")) {
  const table = place.querySelector("table");
  const text = () => table
    ? [...table.rows].map(row => [...row.cells].map(cell => cell.textContent.trim()).join("\t")).join("\n")
    : place.querySelector("pre").textContent;
  const button = document.createElement("button");
  const name = button.textContent = table ? "Copy as TSV" : "Copy";
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(table || place.querySelector("pre"));
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = name; }, 2000);
  });
  (place.querySelector("figcaption") || place).append(button);
}
