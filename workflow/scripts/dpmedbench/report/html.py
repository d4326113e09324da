"""Tables as one HTML page: it needs no network, and scripts only to sort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jinja2

from dpmedbench.verdicts import SIGNS

if TYPE_CHECKING:
    import pandas as pd

NUMBER = r"–|∞|-?[\d.,]+( \[.*\])?( an image \(.*\))?"
SHORT = 24  # characters up to which a text is not broken into lines

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; color: #1e293b; margin: 1.5rem 2rem; }
h1 { font-size: 1.4rem; margin: 0 0 .4rem; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { max-width: 60rem; margin: .3rem 0; color: #475569; }
table { margin-top: .6rem; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; max-width: 28rem; }
th { border-bottom: 2px solid #475569; position: sticky; top: 0; background: white; }
.sortable th { cursor: pointer; }
td { border-bottom: 1px solid #e2e8f0; }
.number { text-align: right; }
td.short, td.number { white-space: nowrap; }
.supported, .higher { color: #0b5394; font-weight: 600; }
.contradicted, .lower { color: #b45309; font-weight: 600; }
.cannot-be-separated, .not-run, .single-runs { color: #64748b; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ caption }}</p>
{% if not groups %}<p>Nothing to show: this run has no rows for it.</p>{% endif %}
{% for name, rows in groups.items() %}
{% if name %}<h2>{{ name }}</h2>{% endif %}
<table>
<thead><tr>
{% for column in rows.columns %}
<th scope="col"{% if numeric(rows[column]) %} class="number"{% endif %}>{{ column }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows.to_dict("records") %}
<tr>
{% for column, text in row.items() %}
{% if text in marks %}
<td class="short {{ text|replace(" ", "-") }}">{{ marks[text] }} {{ text }}</td>
{% elif numeric(rows[column]) %}
<td class="number">{{ text }}</td>
{% else %}
<td{% if text|length <= short %} class="short"{% endif %}>{{ text }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
{% endfor %}
<script>
for (const table of document.querySelectorAll("table")) {
  table.classList.add("sortable");
  const heads = table.querySelectorAll("th");
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.addEventListener("keydown", event => event.key === "Enter" && head.click());
    head.addEventListener("click", () => {
      const up = head.ariaSort !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.ariaSort = up ? "ascending" : "descending";
      const key = row => row.cells[column].textContent;
      const number = text => parseFloat(text.replace(/^[^=.]{1,9} = /, "").replaceAll(",", ""));
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const [m, n] = [x, y].map(number);
        return isNaN(m) || isNaN(n) ? isNaN(m) - isNaN(n) || x.localeCompare(y) : m - n;
      };
      const rows = [...table.tBodies[0].rows].sort(compare);
      table.tBodies[0].append(...(up ? rows : rows.reverse()));
    });
  });
}
</script>
</body>
</html>
"""


def page(title: str, caption: str, groups: Mapping[str, pd.DataFrame]) -> str:
    """The page: a table of texts under each heading of `groups`."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        title=title, caption=caption, groups=groups, marks=SIGNS, short=SHORT, numeric=_numeric
    )


def _numeric(texts: pd.Series) -> bool:
    """Whether a column holds numbers, some with an interval."""
    return texts.str.fullmatch(NUMBER).all()
