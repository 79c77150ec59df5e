"""The command doctor: looks at all that a run needs. Changes nothing."""
