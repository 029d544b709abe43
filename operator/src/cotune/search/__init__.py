"""Which candidates are tried: the space of an experiment's parameters and the samplers over it."""
