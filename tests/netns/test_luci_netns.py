"""What the tests of LuCI's pages take for the daemon's answers has the fields of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import luci_answers
import pytest
from relay_world import SERVER4, World
from test_answers_netns import download, fetch, question, until
from test_upstream_netns import Router

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    directory = tmp_path_factory.mktemp("luci")
    world = World(directory, "luci", bare=True)
    try:
        world.start_concentrator()
        router = Router(world, directory)
        router.wait("Interception:  on")
        yield router
    finally:
        world.close()


def foreign(assumed: Any, real: Any, where: str = "") -> list[str]:
    """Fields of ``assumed`` that ``real`` has not, or has with another type. Of lists, the first rows are compared."""
    if isinstance(assumed, dict) and isinstance(real, dict):
        missing = [f"{where}.{name}" for name in assumed if name not in real]
        return missing + [
            row for name in assumed if name in real for row in foreign(assumed[name], real[name], f"{where}.{name}")
        ]
    if isinstance(assumed, list) and isinstance(real, list):
        return foreign(assumed[0], real[0], f"{where}[0]") if assumed and real else []
    numbers = (int, float)
    if assumed is None or real is None or type(assumed) is type(real):
        return []
    if isinstance(assumed, numbers) and isinstance(real, numbers) and bool not in (type(assumed), type(real)):
        return []
    return [f"{where}: {type(assumed).__name__} is {type(real).__name__}"]


def test_the_pages_are_tested_with_answers_as_they_are(router: Router) -> None:
    assert foreign({"a": 1, "b": [{"c": ""}]}, {"a": True, "b": [{}]}) == [".a: int is bool", ".b[0].c"]
    port = router.world.serve(download)
    with router.world.connect(SERVER4, port) as client:
        fetch(client)
        live = until(3, "no flow", lambda: question(router, "flows", filter=f":{port}")["flows"])
        assert foreign(luci_answers.flow(), live[0]) == []
        assert foreign(luci_answers.why({"id": "0:7"}), question(router, "why", id=live[0]["id"])) == []
    records = until(4, "no record", lambda: question(router, "records", filter=f":{port}")["flows"])
    assumed = luci_answers.records({})["flows"][0]
    assumed["bytes_by_wan"] = {"one": assumed["bytes_by_wan"]["dsl"]}
    assert foreign(assumed, records[0]) == []
    for method in ("status", "history", "check", "speedtest", "support"):
        reply = luci_answers.everything()[method]
        assert foreign(reply, question(router, method), method) == []
    why = luci_answers.why({"dest": "203.0.113.1"})
    assert foreign(why, question(router, "why", dest="203.0.113.1")) == []
