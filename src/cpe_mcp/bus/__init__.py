"""ubus, OpenWrt's message bus: the daemon's private object ``cpe-mcp.daemon`` and its events."""
