"""cpe-mcp: a Multipath Conversion Point for a home router, and its concentrator."""

__version__ = "0.1.0"
