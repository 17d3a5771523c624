"""From raw footage to a manifest: where shots begin, what scores them, which are kept, and what is shown of it."""
