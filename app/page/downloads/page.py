"""Downloads: each table of the page to its end, in each format, read as it is sent."""

from app.api.problems import NOT_INSTALLED, Problem
from app.errors import UserError
from app.files.export import Format, refuse_without_pyarrow
from app.files.export_stream import MEDIA_TYPES, exported
from app.page.downloads.columns import shape_of_model
from app.page.downloads.tables import LISTINGS, Listing
from app.page.visit import Download, PageRoute, Visit


def format_of(visit: Visit) -> Format:
    """The one that the address names. Raises Problem where what it needs is not installed."""
    format_ = Format(visit.values["format"])
    if format_ is Format.PARQUET:
        try:
            refuse_without_pyarrow()
        except UserError as error:
            raise Problem(NOT_INSTALLED, f"{error.message}: {error.remedy}") from None
    return format_


def _route(listing: Listing) -> PageRoute:
    async def download(visit: Visit) -> Download:
        format_ = format_of(visit)
        chunks = exported(listing.rows(visit), shape_of_model(listing.model), format_)
        return Download(f"{listing.name}.{format_}", MEDIA_TYPES[format_], chunks)

    path = f"/downloads/{listing.name}.{{format:csv|jsonl|parquet}}"
    return PageRoute("GET", path, download, listing.scope, listing.query)


ROUTES = tuple(map(_route, LISTINGS))
