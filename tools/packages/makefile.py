"""Reads what a feed Makefile declares: variables, and the text between define and endef. Runs nothing of it."""

from __future__ import annotations

import re
from pathlib import Path

_ASSIGNMENT = re.compile(r"([A-Za-z0-9_]+)\s*(:=|\?=|\+=|=)\s*(.*)")
_VARIABLE = re.compile(r"\$\(([A-Za-z0-9_]+)\)")


class Makefile:
    """One feed Makefile. ``given`` are variables that OpenWrt's own files would set."""

    def __init__(self, path: Path, given: dict[str, str]) -> None:
        self.path = path
        self.variables = {"CURDIR": str(path.parent), **given}
        self.blocks: dict[str, str] = {}
        self.packages: list[str] = []
        """Names in the order of their BuildPackage, without the -src twins."""
        self._read(path.read_text(encoding="utf-8"))

    def value(self, name: str) -> str:
        """A variable, expanded. Raises KeyError."""
        return self.expand(self.variables[name])

    def expand(self, text: str) -> str:
        """Replace ``$(NAME)``, and ``$(abspath PATH)``; unknown names stay as they are."""
        for _ in range(8):  # deeper nesting than any of ours
            before = text
            text = _VARIABLE.sub(lambda match: self.variables.get(match[1], match[0]), text)
            text = re.sub(r"\$\(abspath ([^()$]+)\)", lambda match: str(Path(match[1]).resolve()), text)
            if text == before:
                break
        return text

    def block(self, name: str) -> str:
        """The text of ``define name``, "" where there is none; ``$$`` is ``$`` in it, as make would have it."""
        return self.blocks.get(name, "").replace("$$", "$")

    def field(self, package: str, name: str) -> str:
        """One assignment of ``define Package/NAME``, or of what that calls; "" where it is not set."""
        for block in (f"Package/{package}", *self._called(f"Package/{package}")):
            for line in _joined(self.blocks.get(block, "")):
                match = _ASSIGNMENT.fullmatch(line.strip())
                if match and match[1] == name:
                    return " ".join(self.expand(match[3]).split())
        return ""

    def _called(self, block: str) -> list[str]:
        return re.findall(r"\$\(call ([^,)]+)\)", self.blocks.get(block, ""))

    def _read(self, text: str) -> None:
        name = ""
        body: list[str] = []
        for line in text.splitlines():
            if name:
                if line == "endef":
                    self.blocks[name], name, body = "".join(body), "", []
                else:
                    body.append(line + "\n")
            elif line.startswith("define "):
                name = line.removeprefix("define ").strip()
            elif match := re.fullmatch(r"\$\(eval \$\(call BuildPackage,(.+)\)\)", line):
                if not match[1].endswith("-src"):
                    self.packages.append(match[1])
            elif (match := _ASSIGNMENT.fullmatch(line)) and (match[2] != "?=" or match[1] not in self.variables):
                self.variables[match[1]] = match[3]


def _joined(text: str) -> list[str]:
    """Lines, with those that end in a backslash continued."""
    return re.sub(r"\\\n\s*", " ", text).splitlines()
