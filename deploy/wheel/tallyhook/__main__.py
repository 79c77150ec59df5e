"""`python -m tallyhook`."""

from tallyhook import main

if __name__ == "__main__":
    main()
