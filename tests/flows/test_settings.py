"""plumbline.toml: what an admin writes, and what is said when it is wrong."""

import re

import pytest

from flows.errors import ConfigError, UnknownSource
from flows.settings import load_settings

GOOD = """
[warehouse]
path = "data/plumbline.duckdb"

[business]
timezone = "Europe/Berlin"
currency = "EUR"

[sources.sales]
crm = "salesforce"
instance_url = "https://acme.my.salesforce.com"
client_id = "${SF_CLIENT_ID}"
client_secret = "${SF_CLIENT_SECRET}"

[sources.sales.stages."*"]
"Verbal" = "negotiation"

[sources.inbound]
crm = "hubspot"
access_token = "${HUBSPOT_TOKEN}"

[rules.no_recent_activity]
days = { negotiation = 7 }
"""
ENVIRONMENT = {"SF_CLIENT_ID": "id", "SF_CLIENT_SECRET": "s3cret-value", "HUBSPOT_TOKEN": "t0ken-value"}


@pytest.fixture
def load(tmp_path):
    def load(text, environment=ENVIRONMENT):
        file = tmp_path / "plumbline.toml"
        file.write_text(text, encoding="utf-8")
        return load_settings(file, environment)

    return load


def refused(load, text, environment=ENVIRONMENT):
    with pytest.raises(ConfigError) as error:
        load(text, environment)
    return str(error.value)


def test_a_good_file_is_read_with_secrets_from_the_environment(load, tmp_path):
    settings = load(GOOD)
    assert list(settings.sources) == ["sales", "inbound"]
    assert settings.sources["sales"].client_secret.get_secret_value() == "s3cret-value"
    assert settings.sources["sales"].stages == {"*": {"Verbal": "negotiation"}}
    assert settings.rules == {"no_recent_activity": {"days": {"negotiation": 7}}}
    assert settings.writeback.mode == "off"


def test_relative_paths_are_relative_to_the_file(load, tmp_path):
    settings = load(GOOD)
    assert settings.warehouse.path == tmp_path / "data/plumbline.duckdb"
    assert settings.warehouse.published == tmp_path / "data/published/plumbline.duckdb"


def test_secrets_are_not_shown_with_the_settings(load):
    assert "s3cret-value" not in repr(load(GOOD))
    assert "t0ken-value" not in repr(load(GOOD))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('currency = "EUR"', 'currencyy = "EUR"'), r"\[business\] currencyy: unknown key\. Did you mean currency\?"),
        (('timezone = "Europe/Berlin"', 'timezone = "Europe/Berlinn"'), r"\[business\] timezone: .*did you mean 'Europe/Berlin'"),
        (("[business]", "[bussiness]"), r"bussiness: unknown table\. Did you mean business\?"),
        (
            ('crm = "hubspot"', 'crm = "hubsport"'),
            r"\[sources\.inbound\] crm: is 'hubsport'\. Write crm = \"salesforce\" or crm = \"hubspot\"",
        ),
        (('crm = "hubspot"\n', ""), r"\[sources\.inbound\] crm: is missing"),
        (("https://acme.my.salesforce.com", "http://acme.my.salesforce.com"), r"\[sources\.sales\] instance_url: .*https://"),
        (('client_id = "${SF_CLIENT_ID}"\n', ""), r"\[sources\.sales\].*client_credentials.* needs client_id"),
        (('path = "data/plumbline.duckdb"', "path = 5"), r"\[warehouse\] path: "),
        (('path = "data/plumbline.duckdb"', 'path = "same"\npublished = "same"'), r"path and published are the same file"),
        (("[sources.inbound]", "[sources.In:bound]"), r"not valid TOML"),
        (
            ('"Verbal" = "negotiation"', '"Verbal" = "negotation"'),
            r"\[sources\.sales\] stages: 'Verbal' cannot stand for 'negotation'\. Did you mean negotiation\?",
        ),
        (("[sources.inbound]", '[sources."In bound"]'), r"\[sources\.In bound\]: a source's name is small letters"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_fix(load, change, said):
    assert change[0] in GOOD
    assert re.search(said, refused(load, GOOD.replace(*change)))


def test_an_unset_variable_is_named_with_the_key_and_the_command(load):
    message = refused(load, GOOD, {"SF_CLIENT_ID": "id", "SF_CLIENT_SECRET": ""})
    assert "sources.sales.client_secret: the environment variable SF_CLIENT_SECRET is empty. Run: export SF_CLIENT_SECRET=…" in message
    assert "sources.inbound.access_token: the environment variable HUBSPOT_TOKEN is not set" in message


def test_all_mistakes_are_told_at_once_and_none_repeats_a_secret(load):
    text = GOOD.replace('client_secret = "${SF_CLIENT_SECRET}"', 'client_secret = ["s3cret-value"]').replace(
        'currency = "EUR"', 'currency = "euro"'
    )
    message = refused(load, text)
    assert "[business] currency" in message
    assert "[sources.sales] client_secret" in message
    assert "s3cret-value" not in message


def test_a_missing_file_says_how_to_give_one(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)There is no configuration file .*--config FILE or \$PLUMBLINE_CONFIG"):
        load_settings(tmp_path / "nowhere.toml")


def test_the_file_is_found_by_option_then_variable_then_here(tmp_path, monkeypatch):
    from flows.settings import find_file

    monkeypatch.delenv("PLUMBLINE_CONFIG", raising=False)
    assert str(find_file(None)) == "plumbline.toml"
    monkeypatch.setenv("PLUMBLINE_CONFIG", "/etc/plumbline.toml")
    assert str(find_file(None)) == "/etc/plumbline.toml"
    assert find_file(tmp_path) == tmp_path


def test_an_unknown_source_is_told_with_the_ones_that_exist(load):
    settings = load(GOOD)
    with pytest.raises(UnknownSource, match=r"No source is called 'sale'\. Did you mean sales\?\n.* has: sales, inbound"):
        settings.chosen(["sale"])
    assert [source.name for source in settings.chosen(["inbound"])] == ["inbound"]


def test_a_configuration_without_sources_says_what_to_add(load):
    with pytest.raises(ConfigError, match=r"Add a table \[sources\.NAME\]"):
        load("").chosen(None)
