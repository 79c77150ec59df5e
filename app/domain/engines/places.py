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

STATE_NAMES = {
    "AL": "Alabama",
    "AK": "Alaska",
    "AZ": "Arizona",
    "AR": "Arkansas",
    "CA": "California",
    "CO": "Colorado",
    "CT": "Connecticut",
    "DE": "Delaware",
    "DC": "District of Columbia",
    "FL": "Florida",
    "GA": "Georgia",
    "HI": "Hawaii",
    "ID": "Idaho",
    "IL": "Illinois",
    "IN": "Indiana",
    "IA": "Iowa",
    "KS": "Kansas",
    "KY": "Kentucky",
    "LA": "Louisiana",
    "ME": "Maine",
    "MD": "Maryland",
    "MA": "Massachusetts",
    "MI": "Michigan",
    "MN": "Minnesota",
    "MS": "Mississippi",
    "MO": "Missouri",
    "MT": "Montana",
    "NE": "Nebraska",
    "NV": "Nevada",
    "NH": "New Hampshire",
    "NJ": "New Jersey",
    "NM": "New Mexico",
    "NY": "New York",
    "NC": "North Carolina",
    "ND": "North Dakota",
    "OH": "Ohio",
    "OK": "Oklahoma",
    "OR": "Oregon",
    "PA": "Pennsylvania",
    "RI": "Rhode Island",
    "SC": "South Carolina",
    "SD": "South Dakota",
    "TN": "Tennessee",
    "TX": "Texas",
    "UT": "Utah",
    "VT": "Vermont",
    "VA": "Virginia",
    "WA": "Washington",
    "WV": "West Virginia",
    "WI": "Wisconsin",
    "WY": "Wyoming",
}
"""By USPS code: the fifty states, and DC."""

STATES = frozenset(STATE_NAMES)

WITHOUT_OVERVIEW = frozenset("BL BV CN CU ET GF GP IR IS LK MF MQ NC PF PM RE TF WF YT".split())  # noqa: SIM905
"""Where Google search shows no AI overview."""

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
