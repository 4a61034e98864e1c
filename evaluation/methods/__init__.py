"""One evaluation per method."""
