"""Design files: one image as JSON, its reader and schema, and the run that makes the image."""
