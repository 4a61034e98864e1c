"""Dataset of emoji drawings: thousands of subjects by several designers, with sketches, regions and captions."""
