"""What pages are made of: small typed functions that return markup. They read nothing, and decide nothing."""
