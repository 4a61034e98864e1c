"""What all methods share: conditions, branches, strengths, adapters, and the processor that runs them."""
