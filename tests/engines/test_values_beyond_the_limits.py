"""Values of version 0.1.0 may exceed limits that came later. They are kept, read and made smaller."""

import json
from pathlib import Path

from running import running

from leasehold.limits import MAX_CONTAINERS

COUNT = MAX_CONTAINERS + 5_000
BODY = "[" + ",".join(["[]"] * COUNT) + "]"


def test_a_value_with_too_many_lists_can_be_read_and_made_smaller(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"large": json.loads(BODY)}))
    with running(data) as server:
        assert server.value("large") == [[]] * COUNT
        assert server.put("another", BODY).status_code == 413
        replaced = server.patch("large", '[{"op":"replace","path":"/0","value":1}]', kind="json-patch")
        assert replaced.status_code == 200
        grown = server.patch("large", '[{"op":"add","path":"/-","value":[[]]}]', kind="json-patch")
        assert (grown.status_code, grown.json()["error"]) == (413, "too_large")
    with running(data) as server:
        assert server.value("large") == [1, *[[]] * (COUNT - 1)]
