"""Names of grid zones as Electricity Maps and ISO 3166-2 have them, and what codecarbon's tables have for them."""

from __future__ import annotations

from typing import Final

PROVINCES: Final = {
    "AB": "alberta",
    "BC": "british columbia",
    "MB": "manitoba",
    "NB": "new brunswick",
    "NL": "newfoundland and labrador",
    "NS": "nova scotia",
    "NT": "northwest territories",
    "NU": "nunavut",
    "ON": "ontario",
    "PE": "prince edward island",
    "QC": "quebec",
    "SK": "saskatchewan",
    "YT": "yukon",
}
"""Canadian provinces and territories by the second part of their code, ISO 3166-2."""
US_GROUPS: Final = {"CAL": "california", "FLA": "florida", "NY": "new york", "TEX": "texas"}
"""Groups of balancing areas (`US-CAL-CISO`) that are those of one state. The other groups hold several states."""
WHOLE_COUNTRY: Final = {"DE-LU": "DEU"}
"""Bidding zones that are a country and little more."""
_NORDIC: Final = ("SE", "NO", "FI")


def table_name(zone: str) -> tuple[str, str] | None:
    """What the tables call a zone, and what a reader must know of that; None where they have nothing in its place.

    Args:
        zone: such as `US-CAL-CISO`, `US-CA`, `CA-ON`, `SE-SE3` or `CN-BJ`; in any case.

    Examples:
        >>> table_name("CA-ON")
        ('ontario', '')
        >>> table_name("US-CAL-CISO")
        ('california', 'zone US-CAL-CISO: mean of its state california')
    """
    code = zone.strip().upper()
    country, _, rest = code.partition("-")
    group, _, area = rest.partition("-")
    if country == "US" and area and group in US_GROUPS:
        return US_GROUPS[group], f"zone {code}: mean of its state {US_GROUPS[group]}"
    if country == "US" and len(rest) == 2:
        return rest.lower(), ""
    if country == "CA" and rest in PROVINCES:
        return PROVINCES[rest], ""
    if country in _NORDIC and rest.startswith(country):
        return rest.lower(), ""
    if country == "CN" and len(rest) == 2:
        return code.lower(), ""
    return None
