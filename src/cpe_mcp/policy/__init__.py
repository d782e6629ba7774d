"""Pure decisions, each with its reason. No IO, no clock, nothing imported that a relay worker should not carry."""
