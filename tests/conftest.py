"""For all tests."""

from hypothesis import settings

# Machines are shared and noisy: how long an example takes says nothing of the code. Each test has a time-out.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
