"""A tour of a report in a browser: every folder is opened, every figure, table and caption seen."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import browser

from dpmedbench import report

LINKS = "[...document.querySelectorAll('#app nav li a')]"
EYE = "document.querySelector('nav ul table a[href=\"#\"]')"
IMAGE = "document.querySelector('.h-screen > .p-3 > img')"


@contextlib.contextmanager
def opened(html: Path):
    """The report in a tab; at the end nothing failed in it, and nothing was asked of a network."""
    with browser.opened() as tab:
        tab.open(html)
        tab.wait(f"typeof app !== 'undefined' && {LINKS}.length > 3")
        yield tab
        assert tab.errors == []
        assert tab.requests
        assert [url for url in tab.requests if not url.startswith(browser.LOCAL)] == []


def visit(tab: browser.Page) -> list[str]:
    """Open everything that the folders list; the paths of it, in the order it stands."""
    seen = []
    for category in tab.script("Object.keys(categories)"):
        subcategories = tab.script(f"Object.keys(categories[{category!r}])")
        for subcategory in subcategories:
            tab.script("app.setView({navbarMode: 'menu'})")
            _click(tab, category)
            if len(subcategories) > 1:
                _click(tab, subcategory)
            paths = tab.script(f"categories[{category!r}][{subcategory!r}]")
            tab.wait(f"document.querySelectorAll('nav tbody tr').length === {len(paths)}")
            for path in paths:
                tab.script(f"app.showResultInfo({path!r})")
                _captioned(tab, path)
                _shown(tab, path)
            seen += paths
    return seen


def expected(html: Path) -> set[str]:
    """Names of what a report of segmentation has: every page, figure and picture of scans."""
    figures = {path.name for path in (html.parent / "figures").rglob("*.svg")}
    return {*(f"{name}.html" for name in report.PAGES), *figures, "scans.png"}


def _click(tab: browser.Page, text: str) -> None:
    tab.wait(f"{LINKS}.some(link => link.textContent === {text!r})")
    tab.script(f"{LINKS}.find(link => link.textContent === {text!r}).click()")


def _captioned(tab: browser.Page, path: str) -> None:
    """The caption in the description that is open was filled in and rendered whole."""
    words = tab.wait("document.querySelector('nav .prose')?.innerText")
    assert len(words) > 60, path
    assert "System Message" not in words, (path, words)
    assert "{" not in words, (path, words)


def _shown(tab: browser.Page, path: str) -> None:
    """Click the eye in the description that is open: all of the figure or table is shown."""
    tab.script(f"{EYE}.click()")
    tab.wait(f"app.state.contentPath === results[{path!r}].data_uri")
    if tab.script(f"results[{path!r}].mime_type") == "text/html":
        tab.wait("document.querySelector('iframe')?.src === app.state.contentPath")
        page = base64.b64decode(tab.script("app.state.contentPath.split(';base64,')[1]"))
        assert b"</table>" in page or b"Nothing to show" in page, path
    else:
        tab.wait(f"{IMAGE}?.src === app.state.contentPath && {IMAGE}.complete")
        assert tab.script(f"{IMAGE}.naturalWidth > 100 && {IMAGE}.width > 100"), path
