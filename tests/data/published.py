"""Files as their owners publish them, made of a few rows."""

import gzip
import io
import json
import tarfile
import zipfile
from datetime import UTC, datetime

import polars as pl

# User, item, rating, Unix time; users and items are numbers that are written in each set's way.
Rows = list[tuple[int, int, int, int]]


def rows(n: int = 6, at: int = 1_546_400_000) -> Rows:
    """Each of n users took each of n items, a day apart: a 5-core for n of 5 and more."""
    return [
        (u, i, 1 + (u + i) % 5, at + 86_400 * i) for u in range(1, n + 1) for i in range(1, n + 1)
    ]


def written(rows: Rows, separator: str, header: str = "", letter: str = "") -> bytes:
    lines = [
        separator.join((f"{letter}{u}", f"{letter}{i}", str(r), str(t))) for u, i, r, t in rows
    ]
    return "".join(f"{line}\n" for line in ([header] if header else []) + lines).encode()


def zipped(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def movielens(folder: str, file: str, content: bytes) -> bytes:
    return zipped(**{f"{folder}/": b"", f"{folder}/README": b"of it", f"{folder}/{file}": content})


def reviews(rows: Rows) -> bytes:
    return gzip.compress(
        "".join(
            json.dumps(
                {
                    "reviewerID": f"A{u}",
                    "asin": f"00{i}",
                    "reviewerName": 'J. "x"',
                    "helpful": [0, 1],
                    "reviewText": "good,\nand \\ bad",
                    "overall": float(r),
                    "unixReviewTime": t,
                    "reviewTime": "01 2, 2019",
                }
            )
            + "\n"
            for u, i, r, t in rows
        ).encode()
    )


def yelp(rows: Rows) -> bytes:
    content = "".join(
        json.dumps(
            {
                "review_id": f"r{u}-{i}",
                "user_id": f"u_{u}",
                "business_id": f"b-{i}",
                "stars": float(r),
                "text": "Ä\n",
                "date": datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            }
        )
        + "\n"
        for u, i, r, t in rows
    ).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name in ("yelp_academic_dataset_business.json", "yelp_academic_dataset_review.json"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def steam(rows: Rows) -> bytes:
    lines = [
        f"{{u'username': u'n {u}', u'hours': 5.0, u'text': u'it\\'s', u'product_id': u'{i}0', "
        f"u'date': u'{datetime.fromtimestamp(t, UTC):%Y-%m-%d}', u'early_access': False}}\n"
        for u, i, _, t in rows
    ]
    return gzip.compress("".join(lines).encode())


def gowalla(rows: Rows) -> bytes:
    lines = [
        f"{u}\t{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%SZ}\t30.23\t-97.79\t{i}\n"
        for u, i, _, t in rows
    ]
    return gzip.compress("".join(lines).encode())


def retailrocket(rows: Rows) -> bytes:
    lines = [f"{t}000,{u},view,{i},\n" for u, i, _, t in rows]
    events = "timestamp,visitorid,event,itemid,transactionid\n" + "".join(lines)
    return zipped(**{"category_tree.csv": b"categoryid,parentid\n", "events.csv": events.encode()})


def yambda(rows: Rows) -> bytes:
    frame = pl.DataFrame(
        {
            "uid": [r[0] for r in rows],
            "timestamp": [r[3] for r in rows],
            "item_id": [r[1] for r in rows],
        },
        schema_overrides=dict.fromkeys(("uid", "timestamp", "item_id"), pl.UInt32),
    ).with_columns(is_organic=pl.lit(1, pl.UInt8))
    made = io.BytesIO()
    frame.write_parquet(made)
    return made.getvalue()


def dat(folder: str):
    return lambda rows: movielens(folder, "ratings.dat", written(rows, "::"))


def csv(rows: Rows) -> bytes:
    return written(rows, ",", letter="0")


def ml_20m(rows: Rows) -> bytes:
    content = written(rows, ",", header="userId,movieId,rating,timestamp")
    return movielens("ml-20m", "ratings.csv", content)


# Name in the registry -> what its owners publish.
LAYOUTS = {
    "ml-100k": lambda rows: movielens("ml-100k", "u.data", written(rows, "\t")),
    "ml-1m": dat("ml-1m"),
    "ml-1m-sasrec": dat("ml-1m"),
    "ml-10m": dat("ml-10M100K"),
    "ml-20m": ml_20m,
    "beauty": reviews,
    "sports": reviews,
    "toys": reviews,
    "yelp": yelp,
    "amazon-beauty": csv,
    "amazon-beauty-sasrec": csv,
    "retailrocket": retailrocket,
    "yambda": yambda,
    "steam": steam,
    "gowalla": gowalla,
}
