"""The resources as pydantic models: the only source of `crds/`."""
