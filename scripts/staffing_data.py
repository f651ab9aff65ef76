"""Realistic staffing rows from a seed: the same seed and size give the same bytes.

Attributes hang together as they do in life: pay follows role and experience, skills and
certificates follow role, ZIP codes follow city (some begin with a zero), a worker out on a
placement has no date of availability before its end.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta

FIRST_NAMES = (
    "Aaliyah Adam Aisha Alejandro Amara Ana Andre Anika Anthony Arjun Ava Ben Bianca Brandon "
    "Camila Carlos Chen Chloe Damian Daniel Darius Diego Elena Elijah Emma Erik Fatima Felix "
    "Gabriel Grace Hannah Hassan Henry Imani Isaac Isabella Ivan Jada Jamal James Jasmine Jin "
    "John Jorge José Julia Kai Karim Kate Keisha Kevin Kwame Laila Laura Leo Liam Lina Lucas "
    "Lucía Luis Maria Marcus Maya Mei Miguel Mohammed Naomi Nia Noah Nora Olivia Omar Oscar "
    "Priya Rachel Rafael Rosa Ryan Samir Sara Sean Sofia Søren Tariq Terrence Theo Thomas Tiana "
    "Tyrone Valentina Victor Wei William Xavier Yara Yusuf Zoe"
).split()
LAST_NAMES = (
    "Adams Ahmed Ali Allen Alvarez Anderson Bailey Baker Banks Bell Brooks Brown Bryant Butler "
    "Campbell Carter Castillo Chavez Chen Clark Coleman Collins Cooper Cruz Davis Diaz Edwards "
    "Evans Fernández Fisher Flores Foster Garcia Gomez Gonzalez Gray Green Gutierrez Hall "
    "Harris Hayes Hernandez Hill Howard Hughes Ibrahim Jackson James Jenkins Johnson Jones "
    "Jordan Kelly Kim King Kowalski Lee Lewis Li Lopez Martin Martinez Miller Mitchell Moore "
    "Morales Morgan Morris Murphy Müller Nelson Nguyen O'Brien Okafor Ortiz Parker Patel Perez "
    "Perry Peterson Phillips Powell Price Ramirez Ramos Reed Reyes Richardson Rivera Roberts "
    "Robinson Rodriguez Rogers Ross Ruiz Russell Sanchez Sanders Scott Silva Singh Smith "
    "Stewart Taylor Thomas Thompson Torres Turner Walker Wang Ward Washington Watson White "
    "Williams Wilson Wood Wright Young"
).split()
# City, state, first ZIP code of a block of 40.
CITIES = (
    ("Chicago", "IL", 60601),
    ("Aurora", "IL", 60502),
    ("Joliet", "IL", 60431),
    ("Indianapolis", "IN", 46201),
    ("Columbus", "OH", 43201),
    ("Cincinnati", "OH", 45202),
    ("Detroit", "MI", 48201),
    ("Milwaukee", "WI", 53202),
    ("Dallas", "TX", 75201),
    ("Houston", "TX", 77002),
    ("Memphis", "TN", 38103),
    ("Nashville", "TN", 37201),
    ("Atlanta", "GA", 30303),
    ("Charlotte", "NC", 28202),
    ("Newark", "NJ", 7102),
    ("Edison", "NJ", 8817),
    ("Boston", "MA", 2108),
    ("Worcester", "MA", 1602),
    ("Hartford", "CT", 6103),
    ("Phoenix", "AZ", 85003),
    ("Ontario", "CA", 91761),
    ("Sacramento", "CA", 95814),
)
# Role, pay an hour when new and when seasoned, skills, certificates.
ROLES = (
    ("Forklift Operator", 18.0, 26.0,
     ("reach truck", "cherry picker", "pallet jack", "dock loading", "RF scanner"),
     ("OSHA forklift", "OSHA 10")),
    ("Warehouse Associate", 15.5, 20.5,
     ("order picking", "packing", "cycle counting", "RF scanner", "shipping labels"),
     ("OSHA 10",)),
    ("Welder", 21.0, 34.0,
     ("MIG", "TIG", "stick", "blueprint reading", "aluminium"),
     ("AWS D1.1", "OSHA 10")),
    ("CNC Machinist", 22.0, 36.0,
     ("Fanuc", "Haas", "G-code", "micrometers", "fixture setup"),
     ("NIMS level 1", "NIMS level 2")),
    ("Electrician", 25.0, 42.0,
     ("conduit bending", "PLC", "panel wiring", "three-phase", "troubleshooting"),
     ("journeyman licence", "OSHA 30")),
    ("Registered Nurse", 34.0, 56.0,
     ("triage", "IV therapy", "charting in Epic", "telemetry", "wound care"),
     ("RN licence", "BLS", "ACLS")),
    ("Certified Nursing Assistant", 17.0, 23.0,
     ("vital signs", "patient transfer", "bathing", "feeding", "charting"),
     ("CNA", "BLS")),
    ("Medical Assistant", 18.0, 25.0,
     ("phlebotomy", "EKG", "rooming patients", "scheduling", "injections"),
     ("CMA", "BLS")),
    ("Administrative Assistant", 17.5, 27.0,
     ("calendar management", "Excel", "travel booking", "minutes", "reception"),
     ("Microsoft Office Specialist",)),
    ("Accounts Payable Clerk", 19.0, 28.5,
     ("invoice matching", "SAP", "QuickBooks", "vendor statements", "month-end close"),
     ("bookkeeper certificate",)),
    ("Customer Service Representative", 16.0, 23.0,
     ("inbound calls", "Zendesk", "de-escalation", "bilingual Spanish", "order entry"),
     ()),
    ("Delivery Driver", 18.0, 27.0,
     ("route planning", "box truck", "proof of delivery", "lift gate", "customer contact"),
     ("CDL B", "DOT medical card")),
    ("Truck Driver", 24.0, 38.0,
     ("53-foot trailer", "logbook", "backing to dock", "flatbed", "tanker"),
     ("CDL A", "hazmat", "DOT medical card")),
    ("Line Cook", 16.0, 23.0,
     ("grill", "prep", "sauté", "inventory", "food safety"),
     ("ServSafe",)),
    ("Software Developer", 48.0, 88.0,
     ("Python", "SQL", "React", "Docker", "code review"),
     ("AWS developer",)),
    ("Data Analyst", 35.0, 62.0,
     ("SQL", "Power BI", "Excel", "Python", "A/B testing"),
     ("PL-300",)),
)  # fmt: skip
SHIFTS = ("day", "evening", "night", "weekend", "any")
WORKER_COLUMNS = (
    "worker_id",
    "first_name",
    "last_name",
    "email",
    "phone",
    "role",
    "skills",
    "certifications",
    "years_experience",
    "city",
    "state",
    "zip",
    "hourly_rate",
    "shift",
    "available_from",
    "last_placement_end",
    "rating",
    "active",
    "updated_at",
    "summary",
)
TODAY = date(2026, 11, 1)


def generate_workers(rows: int, seed: int = 1) -> Iterator[tuple[str, ...]]:
    """Workers as text fields in the order of `WORKER_COLUMNS`; empty where unknown."""
    dice = random.Random(f"workers-{seed}")
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day)
    for number in range(1, rows + 1):
        first, last = dice.choice(FIRST_NAMES), dice.choice(LAST_NAMES)
        role, low, high, skills, certificates = dice.choice(ROLES)
        city, state, zip_base = dice.choice(CITIES)
        years = min(35, int(dice.expovariate(0.16)))
        rate = low + (high - low) * min(1.0, years / 15) + dice.uniform(-1.5, 1.5)
        chosen = dice.sample(skills, dice.randint(2, 4))
        held = [c for c in certificates if dice.random() < 0.35 + 0.04 * min(years, 12)]
        shift = dice.choice(SHIFTS)
        placed = dice.random() < 0.6
        ended = TODAY + timedelta(days=dice.randint(-500, 90)) if placed else None
        available = max(TODAY, ended) + timedelta(days=dice.randint(0, 21)) if ended else TODAY
        rating = f"{min(5.0, max(1.0, dice.gauss(4.1, 0.55))):.1f}" if placed else ""
        updated = midnight - timedelta(seconds=dice.randint(0, 86400 * 200))
        years_text = (
            "new to the field"
            if years == 0
            else f"{years} {'year' if years == 1 else 'years'} of experience"
        )
        summary = f"{role} in {city}, {state}, {years_text}: {', '.join(chosen)}."
        if held:
            summary += f" Holds {' and '.join(held)}."
        yield (
            f"W-{number:06d}",
            first,
            last,
            f"{first}.{last}{number}@example.com".lower().replace("'", ""),
            f"({dice.randint(201, 989)}) 555-{dice.randint(0, 9999):04d}",
            role,
            "; ".join(chosen),
            "; ".join(held),
            str(years),
            city,
            state,
            f"{zip_base + dice.randint(0, 39):05d}",
            f"{rate:.2f}",
            shift,
            available.isoformat(),
            ended.isoformat() if ended else "",
            rating,
            "true" if dice.random() < 0.9 else "false",
            updated.isoformat(sep=" "),
            summary,
        )


def write_workers(rows: int, seed: int = 1) -> Iterator[bytes]:
    """The workers as CSV with a header, in pieces of a few thousand rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(WORKER_COLUMNS)
    for count, row in enumerate(generate_workers(rows, seed), start=1):
        writer.writerow(row)
        if count % 4000 == 0:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()
