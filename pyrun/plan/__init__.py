"""PURE: (Spec, Facts) -> Plan. Planners read nothing and change nothing."""
