"""`export --follow`: results as Parquet files in object storage, in the order of settlement, each once."""
