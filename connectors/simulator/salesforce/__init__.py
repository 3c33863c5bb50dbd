"""A Salesforce org on loopback: what the real one does towards its API clients, with the state in DuckDB."""

from connectors.simulator.salesforce.org import SalesforceOrg

__all__ = ["SalesforceOrg"]
