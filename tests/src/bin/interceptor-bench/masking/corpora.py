"""The corpora of the masking bench, the same from run to run: `corpora.py FOLDER`.

A: sentences of presidio-evaluator's own generator, with the places of what is to be found.
B: a table of forty columns, eight of them labelled, as tab-separated text.
C: cells of a business in which nothing is to be found.
D: secrets, each in a line as they are found in.
"""

import base64
import contextlib
import datetime
import hashlib
import json
import pathlib
import random
import string
import sys
import uuid

from faker import Faker
from presidio_evaluator.data_generator import PresidioSentenceFaker

SEED = 42
folder = pathlib.Path(sys.argv[1])


def sentences():
    with contextlib.redirect_stdout(sys.stderr):
        faker = PresidioSentenceFaker(locale="en_US", lower_case_ratio=0.05, random_seed=SEED)
        made = faker.generate_new_fake_sentences(1500)
    return [
        {"text": one.full_text, "spans": [[s.start_position, s.end_position, s.entity_type] for s in one.spans]}
        for one in made
    ]


LABELLED = ["mail", "phone", "card", "iban", "ssn", "address", "person", "ip"]
PLAIN = [
    ("order_no", lambda r, f: f"ORD-{r.randrange(10**7):07d}"),
    ("sku", lambda r, f: "".join(r.choices(string.ascii_uppercase, k=3)) + f"-{r.randrange(10**5):05d}"),
    ("status", lambda r, f: r.choice(["open", "paid", "shipped", "returned", "on hold"])),
    ("quantity", lambda r, f: str(r.randrange(1, 500))),
    ("price", lambda r, f: f"{r.randrange(10**6) / 100:.2f}"),
    ("currency", lambda r, f: r.choice(["EUR", "USD", "GBP", "CHF", "JPY"])),
    ("placed", lambda r, f: moment(r).isoformat(sep=" ")),
    ("due", lambda r, f: moment(r).date().isoformat()),
    ("uuid", lambda r, f: str(uuid.UUID(int=r.getrandbits(128), version=4))),
    ("digest", lambda r, f: hashlib.sha256(r.randbytes(8)).hexdigest()),
    ("commit", lambda r, f: hashlib.sha1(r.randbytes(8)).hexdigest()[: r.choice([7, 12, 40])]),
    ("version", lambda r, f: ".".join(str(r.randrange(40)) for _ in range(3))),
    ("build", lambda r, f: f"{r.randrange(1, 130)}.0.{r.randrange(1000, 7000)}.{r.randrange(10, 250)}"),
    ("path", lambda r, f: "/srv/" + "/".join(f.words(3)) + r.choice([".csv", ".parquet", ".log"])),
    ("note", lambda r, f: f.sentence(nb_words=r.randrange(3, 14))),
    ("job", lambda r, f: f.job()),
    ("colour", lambda r, f: f.color_name()),
    ("weight", lambda r, f: f"{r.random() * 100:.3f} kg"),
    ("size", lambda r, f: f"{r.randrange(10, 200)}x{r.randrange(10, 200)}x{r.randrange(10, 200)}"),
    ("epoch", lambda r, f: str(r.randrange(1_600_000_000, 1_800_000_000))),
    ("millis", lambda r, f: str(r.randrange(1_600_000_000_000, 1_800_000_000_000))),
    ("micros", lambda r, f: str(r.randrange(1_600_000_000_000_000, 1_800_000_000_000_000))),
    ("snowflake", lambda r, f: str(r.randrange(10**18, 18 * 10**17))),
    ("tracking", lambda r, f: "1Z" + "".join(r.choices(string.ascii_uppercase + string.digits, k=16))),
    ("barcode", lambda r, f: barcode(r)),
    ("invoice", lambda r, f: f"INV-{r.randrange(2015, 2027)}-{r.randrange(10**6):06d}"),
    ("batch", lambda r, f: moment(r).strftime("%Y%m%d") + f"{r.randrange(10**6):06d}"),
    ("ratio", lambda r, f: repr(r.random())),
    ("coordinate", lambda r, f: f"{r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f}"),
    ("bool", lambda r, f: r.choice(["t", "f"])),
    ("clock", lambda r, f: moment(r).time().isoformat()),
    ("json", lambda r, f: json.dumps({"id": r.randrange(10**6), "tags": f.words(2), "ok": True, "at": moment(r).isoformat()})),
]


def moment(r):
    return datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=r.randrange(6 * 365 * 86400))


def barcode(r):
    digits = [int(d) for d in f"{r.randrange(10**12):012d}"]
    check = -sum(d * (1 if place % 2 == 0 else 3) for place, d in enumerate(digits)) % 10
    return "".join(map(str, digits)) + str(check)


def table(rows):
    Faker.seed(SEED)
    r, f = random.Random(SEED), Faker("en_US")
    personal = {
        "mail": f.email, "phone": f.phone_number, "card": f.credit_card_number, "iban": f.iban, "ssn": f.ssn,
        "address": lambda: f.street_address(), "person": f.name, "ip": f.ipv4,
    }
    lines = []
    for _ in range(rows):
        # The word makes each value one that stands nowhere else.
        labelled = [f"zq{r.getrandbits(40):010x} {personal[name]()}" for name in LABELLED]
        lines.append("\t".join(labelled + [make(r, f) for _, make in PLAIN]))
    return lines


def cells(count):
    Faker.seed(SEED + 1)
    r, f = random.Random(SEED + 1), Faker("en_US")
    return [PLAIN[place % len(PLAIN)][1](r, f) for place in range(count)]


def random_numbers(count):
    """What no form tells from a card: told apart from C, and counted by itself."""
    r = random.Random(SEED + 2)
    return ["".join(r.choices(string.digits, k=r.randrange(12, 20))) for _ in range(count)]


def secrets(each):
    r = random.Random(SEED + 3)
    letters = string.ascii_letters + string.digits

    def some(count, alphabet=letters):
        return "".join(r.choices(alphabet, k=count))

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    kinds = {
        "aws": lambda: "AKIA" + some(16, string.ascii_uppercase + "234567"),
        "github": lambda: "ghp_" + some(36),
        "github fine": lambda: "github_pat_" + some(22) + "_" + some(59),
        "gitlab": lambda: "glpat-" + some(20),
        "slack": lambda: f"xoxb-{r.randrange(10**11, 10**12)}-{r.randrange(10**11, 10**12)}-{some(24)}",
        "stripe": lambda: "sk_live_" + some(24),
        "google": lambda: "AIza" + some(35, letters + "_-"),
        "npm": lambda: "npm_" + some(36),
        "pypi": lambda: "pypi-AgEIcHlwaS5vcmc" + some(60, letters + "_-"),
        "hugging face": lambda: "hf_" + some(34),
        "jwt": lambda: ".".join([part({"alg": "HS256", "typ": "JWT"}), part({"sub": some(8), "n": r.randrange(10**6)}), some(43)]),
        "private key": lambda: "-----BEGIN RSA PRIVATE KEY-----\n" + "\n".join(some(64) for _ in range(6)) + "\n-----END RSA PRIVATE KEY-----",
        "url": lambda: f"postgres://{some(6)}:{some(12)}@db.{some(5).lower()}.internal:5432/app",
        "dsn": lambda: f"password={some(14)}",
        "in base64": lambda: base64.b64encode(f"key ghp_{some(36)}".encode()).decode(),
        "in hex": lambda: f"key ghp_{some(36)}".encode().hex(),
    }
    around = ["{}", "export TOKEN={}", '{{"token": "{}"}}', "curl -H 'Authorization: Bearer {}' x", "  key: {}\n", "# old: {} (revoked)"]
    made = []
    for kind, make in kinds.items():
        for _ in range(each):
            value = make()
            line = r.choice(around)
            text = line.format(value)
            start = text.index(value)
            made.append({"text": text, "spans": [[start, start + len(value), kind]]})
    return made


def main():
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.json").write_text(json.dumps(sentences()))
    columns = LABELLED + [name for name, _ in PLAIN]
    (folder / "b.json").write_text(json.dumps({"labelled": LABELLED, "columns": columns, "rows": table(1000)}))
    (folder / "c.json").write_text(json.dumps(cells(200_000)))
    (folder / "numbers.json").write_text(json.dumps(random_numbers(20_000)))
    (folder / "d.json").write_text(json.dumps(secrets(50)))


main()
