"""What is known about runs and accounts, as JSON documents. May import no typer and no rich."""
