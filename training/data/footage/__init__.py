"""From raw footage to a manifest: shots, their scores, what is kept and why, and pictures of it."""
