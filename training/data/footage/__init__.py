"""From raw footage to a manifest: shots, what they look like and how they move, and which of them to train on."""
