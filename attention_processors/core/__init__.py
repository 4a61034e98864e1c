"""Core of all methods: conditions, branches, strengths, adapters, and the processor that runs them."""
