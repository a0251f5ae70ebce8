"""Goals, search, speed, reasons and alternatives: from an exact estimate to a plan."""
