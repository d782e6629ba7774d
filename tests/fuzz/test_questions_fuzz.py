"""Questions with any arguments: an answer or one ApiError, nothing else. The daemon behind it has no WANs and no workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpe_mcp.control.ask import ApiError
from cpe_mcp.settings import parse_router
from cpe_mcp.upstream.answers import Answers
from cpe_mcp.upstream.control import Control

pytestmark = pytest.mark.fuzz


class NoPaths:
    """A path manager without WANs."""

    def wans(self) -> tuple[()]:
        return ()

    def scheme(self) -> tuple[str, str]:
        return ("adaptive", "no-wan")

    def report(self) -> list[dict[str, Any]]:
        return []

    def bytes_by_wan(self) -> dict[str, Any]:
        return {}

    def warnings(self) -> list[str]:
        return []

    def names_work(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


class NoRadius:
    def status(self) -> dict[str, Any]:
        return {"enabled": False, "accepted": False, "text": "", "detail": ""}


async def reload() -> dict[str, Any]:
    return {}


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.lists(st.integers())
PLAUSIBLE = st.sampled_from(
    ["8.8.8.8", "::1", "fe80::1%lo", "0:17", "localhost", "a" * 70 + ".x", "\0", "dsl", "1.2.3"]
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["dest", "port", "client", "limit", "filter", "id", "wan", "used_gb"]),
    VALUES | PLAUSIBLE,
    max_size=4,
)
METHODS = ("status", "paths", "history", "flows", "records", "concentrators", "why", "drop", "quota")


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(METHODS), ARGUMENTS)
def test_any_question_is_answered_or_refused_in_a_sentence(method: str, args: dict[str, Any]) -> None:
    async def body() -> None:
        # No name is looked up here: what the resolver says is not what this is about.
        asyncio.get_running_loop().getaddrinfo = no_name  # type: ignore[assignment,method-assign]
        control = Control(
            parse_router(f"config global 'global'\n\toption run_dir '{Path('/nowhere')}'\n"),
            NoPaths(),
            congestion_controls=[],
        )
        answers = Answers(control, "settings", radius=NoRadius, reload=reload)
        try:
            reply = await answers.methods()[method](args)
        except ApiError as error:
            reply, said = {}, str(error)
        else:
            said = "an answer"
        assert isinstance(reply, dict)
        assert said
        assert "\n" not in said

    asyncio.run(body())


async def no_name(host: str, *args: Any, **kwargs: Any) -> Any:
    host.encode("idna")  # as the real one does
    if "\0" in host:
        raise ValueError("embedded null character")
    raise OSError(-2, "Name or service not known")
