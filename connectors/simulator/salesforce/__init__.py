"""A Salesforce org on loopback: what the real one does towards its API clients, with the state in DuckDB."""

from connectors.simulator.salesforce.org import SalesforceOrg
from connectors.simulator.salesforce.projection import load_company

__all__ = ["SalesforceOrg", "load_company"]
