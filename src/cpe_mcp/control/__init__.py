"""The seqpacket channel between a control daemon and its relay workers, and the JSON question socket of the daemons."""
