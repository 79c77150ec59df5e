"""Country and state codes as the provider takes them (C-K.10); data that changes with the provider."""

COUNTRIES = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV
    BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES
    ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE
    IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY
    MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU
    NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM
    SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE
    VG VI VN VU WF WS XK YE YT ZA ZM ZW
    """.split()  # noqa: SIM905 - two hundred quoted codes are harder to compare with the contract
)
"""ISO 3166-1 alpha-2 and XK."""

STATES = frozenset(
    """
    AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC
    ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY
    """.split()  # noqa: SIM905
)
"""USPS codes of the fifty states, and DC."""

_MEANT = {
    "UK": "GB",
    "EN": "GB or US",
    "EL": "GR",
    "JA": "JP",
    "KO": "KR",
    "ZH": "CN, HK or TW",
    "CS": "CZ",
    "DA": "DK",
    "SU": "RU",
    "EU": "the code of one country",
    "USA": "US",
    "GBR": "GB",
    "DEU": "DE",
    "GER": "DE",
    "FRA": "FR",
    "ESP": "ES",
    "ITA": "IT",
    "NLD": "NL",
    "POL": "PL",
    "PRT": "PT",
    "BRA": "BR",
    "CAN": "CA",
    "AUS": "AU",
    "IND": "IN",
    "JPN": "JP",
    "KOR": "KR",
    "MEX": "MX",
    "CHE": "CH",
    "AUT": "AT",
    "SWE": "SE",
}


def country_remedy(text: str) -> str:
    """What to write instead of something that is no country code."""
    code = text.strip().upper()
    if code in COUNTRIES:
        return f"use {code}"
    meant = _MEANT.get(code)
    return f"use {meant}" if meant else "use a code of two letters (ISO 3166-1), such as US, GB or DE"
