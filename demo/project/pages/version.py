"""What changes with each commit of the demo."""

EDITION = "First edition"
