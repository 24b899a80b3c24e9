"""What must not reach a log: credentials in addresses and values of secret variables."""

import os
import re

# SQLAlchemy takes passwords with slashes in them, so after a colon everything up to the last @
# is taken for one. A path begins with a slash (sqlite:///a@b.db) and is left alone.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/:'\"]*:[^\s'\"]*|[^\s/'\"]+)@")
_QUERY = re.compile(
    r"(?<=[?&])(\w*(?:password|passwd|pwd|token|secret|key|signature)=)[^&\s'\"]*", re.IGNORECASE
)
_VARIABLE = re.compile(r"(PASSWORD|PASSWD|SECRET|_TOKEN|API_?KEY|ACCESS_?KEY)$")
_SHORTEST = 8  # a shorter value ("none", "true") would be struck out of innocent words


def without_secrets(text: str) -> str:
    """The text without credentials; a URI stays usable, ``http://u:p@host`` is ``http://host``.

    Struck out are the credentials of every URI in the text, query arguments named like a secret,
    and the values of environment variables named like a secret (``..._PASSWORD``, ``..._TOKEN``).
    """
    text = _QUERY.sub(r"\1***", _CREDENTIALS.sub("", text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _VARIABLE.search(name.upper()):
            text = text.replace(value, "***")
    return text
