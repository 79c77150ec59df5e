"""A report's page, read as a browser does."""

from selectolax.lexbor import LexborHTMLParser


def cards(page: LexborHTMLParser) -> dict[str, str]:
    """The figures at its head, by their names."""
    return {card.css("dt")[0].text(): card.css("b")[0].text() for card in page.css(".cards div")}


def rows(page: LexborHTMLParser, caption: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell: its other cells, as a reader sees them."""
    table = next(
        one for one in page.css("table") if (found := one.css_first("caption")) and found.text() == caption
    )
    cells = [[cell.text(strip=True) for cell in row.css("th, td:not(.bar)")] for row in table.css("tbody tr")]
    return {first: [one for one in others if one] for first, *others in cells}
