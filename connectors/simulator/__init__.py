"""Two simulated CRMs on loopback HTTP, with a believable company in them: for the demo, training, rehearsals and tests."""
