"""The frame of the report: style and script inline, nothing fetched."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
  style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
:root { --ink: #1f2937; --muted: #6b7280; --line: #e5e7eb; --red: #b91c1c; --blue: #2563eb }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  color: var(--ink); background: #f6f7f9; margin: 0 auto; max-width: 1180px; padding: 28px }
h1 { font-size: 28px; margin: 0 } h2 { font-size: 20px; margin: 36px 0 12px }
h3 { font-size: 16px; margin: 0 0 6px } p { margin: 4px 0 10px; max-width: 80ch }
header p, .muted, figcaption { color: var(--muted) }
.muted { font-size: 13px }
article, .failure { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 16px }
.failure { border-left: 4px solid var(--red); padding: 12px 16px }
.failure p { font-family: ui-monospace, monospace; font-size: 13px; margin: 6px 0;
  max-width: none; overflow-wrap: anywhere; white-space: pre-wrap }
pre { font-size: 12px; overflow: auto; max-height: 360px; background: #f6f7f9; padding: 10px }
summary { cursor: pointer; color: var(--muted); font-size: 13px }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 18px; min-width: 130px; color: var(--muted); font-size: 13px }
.tile b { display: block; font-size: 26px; line-height: 1.2; color: var(--ink) }
.tile.none b { color: #9ca3af } .tile.ok b { color: #047857 }
.tile:not(.ok, .none, .missing, .inapplicable) b { color: var(--red) }
.badge, .tag { border-radius: 99px; padding: 1px 9px; font-size: 12px; font-weight: 600;
  background: #fee2e2; color: var(--red); vertical-align: 1px }
.badge.control { background: #fef3c7; color: #92400e }
.tag { background: #eef2ff; color: #4338ca; font-weight: 500 }
.wide { overflow-x: auto; margin: 8px 0 }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: 12.5px;
  cursor: pointer; white-space: nowrap; user-select: none }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, td:first-child { white-space: nowrap } tbody tr:hover { background: #f9fafb }
th.up::after { content: " ▲" } th.down::after { content: " ▼" }
.delta { font-size: 12.5px; color: var(--muted) }
.lost { font-size: 12.5px; color: var(--red) }
.figures { display: flex; flex-wrap: wrap; gap: 8px 32px; margin-top: 10px }
figure { margin: 0; max-width: 100% } figcaption { font-size: 12.5px; margin-top: 2px }
svg { display: block }
@media print { body { background: #fff; padding: 0 } article { break-inside: avoid } }
</style></head>
<body>
{body}
<script>
// A click on a column's head sorts its table; numbers by their value, names by the alphabet.
document.querySelectorAll("th").forEach(th => th.addEventListener("click", () => {
  const row = th.parentNode, at = [...row.children].indexOf(th);
  const down = th.classList.contains("up");
  const body = th.closest("table").tBodies[0];
  const value = tr => {
    const {textContent, dataset} = tr.children[at];
    return dataset.v === undefined ? textContent : dataset.v === "" ? NaN : +dataset.v;
  };
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (typeof x === "string") return x.localeCompare(y);
    if (isNaN(x) || isNaN(y)) return (isNaN(x) - isNaN(y)) * (down ? -1 : 1);
    return x - y;
  };
  const rows = [...body.rows].sort(order);
  if (down) rows.reverse();
  body.append(...rows);
  [...row.children].forEach(h => h.classList.remove("up", "down"));
  th.classList.add(down ? "down" : "up");
}));
</script>
</body></html>
"""
