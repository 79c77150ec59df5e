"""Reads files of prompts, one record at a time. Imports the domain and nothing else of ours."""
