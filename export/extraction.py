"""Features of many images; see `slotcon_client.extraction`."""

from slotcon_client.errors import ExtractionError, RequestError, Unavailable
from slotcon_client.extraction import Failed, Images, extract, report
from slotcon_client.tables import Rows

__all__ = [
    "ExtractionError",
    "Failed",
    "Images",
    "RequestError",
    "Rows",
    "Unavailable",
    "extract",
    "report",
]
