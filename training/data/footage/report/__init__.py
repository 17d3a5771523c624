"""The report on a manifest: a page that opens from disk, and the pictures of the nodes."""
