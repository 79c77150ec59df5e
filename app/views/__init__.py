"""What is known about runs and accounts, as JSON documents. Imports no typer and no rich, draws nothing."""
