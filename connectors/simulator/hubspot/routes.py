"""Every path that the portal answers, each in its v3 or v4 and in its dated form, and the handler behind it."""

from __future__ import annotations

from connectors.simulator.hubspot import account, associations, objects, properties
from connectors.simulator.hubspot.call import Handler

OBJECTS = ("/crm/v3/objects", "/crm/objects/{version}")
PROPERTIES = ("/crm/v3/properties", "/crm/properties/{version}")
PIPELINES = ("/crm/v3/pipelines", "/crm/pipelines/{version}")
OWNERS = ("/crm/v3/owners", "/crm/owners/{version}")
SCHEMAS = ("/crm-object-schemas/v3/schemas", "/crm/v3/schemas", "/crm-object-schemas/{version}/schemas")
OBJECT_LINKS = ("/crm/v4/objects", "/crm/objects/{version}")
LINKS = ("/crm/v4/associations", "/crm/associations/{version}")
ACCOUNT = ("/account-info/v3", "/account-info/{version}")
CURRENCIES = ("/settings/v3/currencies", "/settings/currencies/{version}")
OAUTH = ("/oauth/v1", "/oauth/v3", "/oauth/{version}")


def table() -> list[tuple[str, str, Handler]]:
    """(method, path, handler), the more particular paths before the general ones."""
    declared: list[tuple[str, tuple[str, ...], str, Handler]] = [
        ("POST", OBJECTS, "/{object_type}/search", objects.search),
        ("POST", OBJECTS, "/{object_type}/merge", objects.merge),
        ("POST", OBJECTS, "/{object_type}/gdpr-delete", objects.gdpr_delete),
        ("POST", OBJECTS, "/{object_type}/batch/read", objects.batch_read),
        ("POST", OBJECTS, "/{object_type}/batch/create", objects.batch_create),
        ("POST", OBJECTS, "/{object_type}/batch/update", objects.batch_update),
        ("POST", OBJECTS, "/{object_type}/batch/upsert", objects.batch_upsert),
        ("POST", OBJECTS, "/{object_type}/batch/archive", objects.batch_archive),
        ("GET", OBJECTS, "/{object_type}", objects.listing),
        ("POST", OBJECTS, "/{object_type}", objects.create),
        ("GET", OBJECTS, "/{object_type}/{object_id}", objects.read),
        ("PATCH", OBJECTS, "/{object_type}/{object_id}", objects.update),
        ("DELETE", OBJECTS, "/{object_type}/{object_id}", objects.archive),
        ("GET", OBJECT_LINKS, "/{object_type}/{object_id}/associations/{to_type}", associations.listing),
        ("PUT", OBJECT_LINKS, "/{object_type}/{object_id}/associations/default/{to_type}/{to_id}", associations.create_default),
        ("PUT", OBJECT_LINKS, "/{object_type}/{object_id}/associations/{to_type}/{to_id}", associations.create),
        ("DELETE", OBJECT_LINKS, "/{object_type}/{object_id}/associations/{to_type}/{to_id}", associations.archive),
        ("POST", LINKS, "/{object_type}/{to_type}/batch/read", associations.batch_read),
        ("POST", LINKS, "/{object_type}/{to_type}/batch/create", associations.batch_create),
        ("POST", LINKS, "/{object_type}/{to_type}/batch/associate/default", associations.batch_create_default),
        ("POST", LINKS, "/{object_type}/{to_type}/batch/archive", associations.batch_archive),
        ("POST", LINKS, "/{object_type}/{to_type}/batch/labels/archive", associations.batch_archive_labels),
        ("GET", LINKS, "/{object_type}/{to_type}/labels", associations.labels),
        ("POST", LINKS, "/{object_type}/{to_type}/labels", associations.create_label),
        ("GET", PROPERTIES, "/{object_type}/groups", properties.groups),
        ("POST", PROPERTIES, "/{object_type}/groups", properties.create_group),
        ("GET", PROPERTIES, "/{object_type}/groups/{group}", properties.group),
        ("POST", PROPERTIES, "/{object_type}/batch/create", properties.batch_create),
        ("POST", PROPERTIES, "/{object_type}/batch/read", properties.batch_read),
        ("GET", PROPERTIES, "/{object_type}", properties.listing),
        ("POST", PROPERTIES, "/{object_type}", properties.create),
        ("GET", PROPERTIES, "/{object_type}/{name}", properties.read),
        ("GET", PIPELINES, "/{object_type}", properties.pipelines),
        ("GET", PIPELINES, "/{object_type}/{pipeline}", properties.pipeline),
        ("GET", PIPELINES, "/{object_type}/{pipeline}/stages", properties.stages),
        ("GET", PIPELINES, "/{object_type}/{pipeline}/stages/{stage}", properties.stage),
        ("GET", SCHEMAS, "", properties.schemas),
        ("POST", SCHEMAS, "", properties.create_schema),
        ("GET", SCHEMAS, "/{object_type}", properties.schema),
        ("GET", OWNERS, "", account.owners),
        ("GET", OWNERS, "/", account.owners),
        ("GET", OWNERS, "/{owner_id}", account.owner),
        ("GET", ACCOUNT, "/details", account.details),
        ("GET", ACCOUNT, "/api-usage/daily/private-apps", account.usage),
        ("GET", CURRENCIES, "/exchange-rates", account.exchange_rates),
        ("POST", OAUTH, "/token", account.token),
        ("GET", OAUTH, "/access-tokens/{token}", account.token_information),
    ]
    return [(method, prefix + path, handler) for method, prefixes, path, handler in declared for prefix in prefixes]
