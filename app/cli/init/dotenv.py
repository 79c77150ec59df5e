"""The text of a commented .env: what most people set first, with an example each; nothing is set by it."""

from collections.abc import Mapping

HEAD = """\
# Settings of Tallyhook. Every command that is run in this directory reads them; the environment counts more.
# As it stands nothing is set: all runs on this machine, against the local emulator, and nothing is paid.
# Remove the # before NAME=value to set it, then: tallyhook doctor
# It may hold secrets: keep it out of version control. All settings: README, "Configuration".
"""
SECTIONS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "The provider",
        (
            ("CLORO_API_KEY", "sk_live_0123456789", "the API key, from the provider's dashboard"),
            (
                "CLORO_WEBHOOK_SECRET",
                "whsec_0123456789",
                "the signing secret of webhooks, from there; while it changes several, with commas",
            ),
            (
                "PUBLIC_URL",
                "https://hooks.example.com",
                "the address at which the provider reaches web; the path /webhooks/cloro is added",
            ),
        ),
    ),
    (
        "What it may cost",
        (
            ("TALLYHOOK_BUDGET_PER_MONTH", "100000", "credits of all runs of a month, at most"),
            ("TALLYHOOK_RATE_PER_S", "500", "requests a second, at most"),
        ),
    ),
    (
        "This machine",
        (
            ("PORT", "8080", "where web listens"),
            ("TALLYHOOK_HOST", "127.0.0.1", "and on which address; 0.0.0.0 is all of them"),
            ("TALLYHOOK_DATA_DIR", ".tallyhook", "files of the embedded database and queue"),
        ),
    ),
    (
        "More than one machine",
        (
            ("DATABASE_URL", "postgresql://USER:PASSWORD@localhost:5432/tallyhook", "instead of SQLite"),
            ("REDIS_URL", "redis://localhost:6379/0", "instead of the embedded Valkey; never evicting"),
        ),
    ),
    (
        "Notices and what is kept",
        (
            ("TALLYHOOK_NOTICE_URL", "https://example.com/notices", "where notices are posted"),
            ("TALLYHOOK_NOTICE_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "and what they are signed with"),
            ("TALLYHOOK_KEEP_BODIES_DAYS", "90", "bodies of deliveries are dropped after so many days"),
        ),
    ),
)
ASKED = ("CLORO_API_KEY", "CLORO_WEBHOOK_SECRET", "PUBLIC_URL")
SECRET = frozenset({"CLORO_API_KEY", "CLORO_WEBHOOK_SECRET"})
"""Not shown while they are typed."""


def dotenv_text(given: Mapping[str, str]) -> str:
    """The file; what is given is set, everything else is an example behind a #."""
    parts = [HEAD]
    for title, settings in SECTIONS:
        parts.append(f"\n\n# ---- {title} ----\n")
        for name, example, what in settings:
            line = f"{name}={given[name]}" if given.get(name) else f"#{name}={example}"
            parts.append(f"\n# {what[0].upper()}{what[1:]}.\n{line}\n")
    return "".join(parts)


def described(name: str) -> str:
    """What a setting is."""
    return next(what for _, settings in SECTIONS for known, _, what in settings if known == name)
