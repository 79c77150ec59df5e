"""The emulator without its HTTP: tasks, their life, deliveries, limits."""
