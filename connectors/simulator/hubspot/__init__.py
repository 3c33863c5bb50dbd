"""A simulated HubSpot: the state of a portal in DuckDB, and an HTTP app that answers as api.hubapi.com does."""

from connectors.simulator.hubspot.errors import ApiError
from connectors.simulator.hubspot.limits import RateLimits
from connectors.simulator.hubspot.load import load_company
from connectors.simulator.hubspot.portal import HubSpotPortal

__all__ = ["ApiError", "HubSpotPortal", "RateLimits", "load_company"]
