import pytest

from negrec.tracking.redaction import without_secrets


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://ann:pw@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg://ann:p/w@db/negrec", "postgresql+psycopg://db/negrec"),
        ("http://ann:p@w@host", "http://host"),
        ("at http://a:pw@h and 'http://b:pw@i'", "at http://h and 'http://i'"),
        ("http://host/?user=a&password=pw&x=1", "http://host/?user=a&password=***&x=1"),
        ("http://host/?api_key=pw", "http://host/?api_key=***"),
        # No credentials: left as they are.
        ("sqlite:////home/ann@work/mlflow.db", "sqlite:////home/ann@work/mlflow.db"),
        ("mail ann@example.org", "mail ann@example.org"),
        ("http://host:5000/a?n=1", "http://host:5000/a?n=1"),
    ],
)
def test_addresses(text: str, clean: str) -> None:
    assert without_secrets(text) == clean


def test_values_of_secret_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_PASSWORD", "correct horse")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    assert without_secrets("db: correct horse, parallel") == "db: ***, parallel"
