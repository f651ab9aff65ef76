"""Candidates from a seed: people who look for work and describe themselves.

Beside `staffing_data` (workers on the books) these speak in sentences, change fields, leave
things out, and name what they did rather than the role's own terms.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from datetime import timedelta

from scripts.staffing_data import CITIES, FIRST_NAMES, LAST_NAMES, ROLES, SHIFTS, TODAY

CANDIDATE_COLUMNS = (
    "candidate_id",
    "first_name",
    "last_name",
    "email",
    "source",
    "status",
    "wanted_role",
    "headline",
    "about",
    "years_experience",
    "expected_rate",
    "city",
    "state",
    "zip",
    "shift",
    "willing_to_travel",
    "applied_on",
    "last_contact",
)
SOURCES = ("job board", "referral", "walk-in", "career fair", "website", "former worker")
STATUSES = ("new", "screened", "interviewed", "offered", "placed", "declined", "do not contact")
WEIGHTS = (30, 22, 14, 7, 15, 9, 3)
OPENINGS = (
    "I have worked with {a} and {b}",
    "My last job was mostly {a}, with some {b}",
    "People ask me when it comes to {a}",
    "For the past years I did {a} and {b} every day",
    "I learned {a} on the job and would like to do more {b}",
)
MIDDLES = (
    "in a team of {n}",
    "for a small firm",
    "for a large site with {n} people",
    "under time pressure, with few mistakes",
    "and trained {n} newcomers",
)
ENDINGS = (
    "I am reliable and come on time.",
    "I can start at once.",
    "I need two weeks' notice.",
    "I would rather not work weekends.",
    "I have my own transport.",
    "References on request.",
    "",
)
# Hours that somebody prefers, in their own words; "any" needs none.
HOURS = {"day": "days", "evening": "evenings", "night": "nights", "weekend": "weekends", "any": ""}


def generate_candidates(rows: int, seed: int = 1) -> Iterator[tuple[str, ...]]:
    """Candidates as text fields in the order of `CANDIDATE_COLUMNS`; empty where unknown."""
    dice = random.Random(f"candidates-{seed}")
    for number in range(1, rows + 1):
        first, last = dice.choice(FIRST_NAMES), dice.choice(LAST_NAMES)
        role, low, high, skills, certificates = dice.choice(ROLES)
        city, state, zip_base = dice.choice(CITIES)
        years = min(30, int(dice.expovariate(0.2)))
        a, b = dice.sample(skills, 2)
        held = dice.choice(certificates) if certificates and dice.random() < 0.4 else ""
        shift = dice.choice(SHIFTS)
        # Some come from another field and say so.
        former = dice.choice(ROLES)[0] if dice.random() < 0.2 else role
        served = "new to it" if not years else f"{years} year{'s' if years > 1 else ''}"
        headline = f"{former} with {held}" if held else f"{former}, {served}"
        if former != role:
            headline = f"{former} who wants to become {role}"
        about = f"{dice.choice(OPENINGS).format(a=a, b=b)} {dice.choice(MIDDLES)}. ".format(
            n=dice.randint(3, 60)
        )
        about += " ".join(
            part
            for part in (
                f"I prefer {HOURS[shift]}." if HOURS[shift] and dice.random() < 0.6 else "",
                dice.choice(ENDINGS),
            )
            if part
        )
        applied = TODAY - timedelta(days=dice.randint(0, 365))
        contacted = applied + timedelta(days=dice.randint(0, 60)) if dice.random() < 0.7 else None
        rate = low + (high - low) * min(1.0, years / 15) + dice.uniform(-1.0, 3.0)
        yield (
            f"C-{number:06d}",
            first,
            last,
            f"{first}.{last}.{number}@example.org".lower().replace("'", ""),
            dice.choice(SOURCES),
            dice.choices(STATUSES, WEIGHTS)[0],
            role,
            headline,
            about.strip(),
            str(years),
            f"{rate:.2f}" if dice.random() < 0.85 else "",
            city,
            state,
            f"{zip_base + dice.randint(0, 39):05d}",
            shift,
            "true" if dice.random() < 0.3 else "false",
            applied.isoformat(),
            min(contacted, TODAY).isoformat() if contacted else "",
        )


def write_candidates(rows: int, seed: int = 1) -> Iterator[bytes]:
    """The candidates as CSV with a header, in pieces of a few thousand rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CANDIDATE_COLUMNS)
    for count, row in enumerate(generate_candidates(rows, seed), start=1):
        writer.writerow(row)
        if count % 4000 == 0:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()
