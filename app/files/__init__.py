"""Files that people take away: exports, archives of disputes, and how a file is there whole or not at all."""
