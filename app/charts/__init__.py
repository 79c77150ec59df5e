"""Charts and figures as people see them, of the report and of the page. Pure: no I/O, no clock."""
