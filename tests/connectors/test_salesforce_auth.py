"""Settings that tell what is missing, and the flows that get a token."""

import json
import threading
import time
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError
from salesforce_stub import NOW, Stub, error, serving

from connectors.errors import CrmAuthError, CrmProtocolError, CrmUnavailableError
from connectors.http import RetryPolicy, network_trouble, scrub
from connectors.salesforce.auth import audience
from connectors.salesforce.client import Client
from connectors.salesforce.settings import SalesforceSettings

POLICY = RetryPolicy(sleep=lambda seconds: None)


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def org(stub):
    with serving(stub) as url:
        yield url


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def pem(key, tmp_path):
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


def settings(url="https://acme.my.salesforce.com", **keys):
    return SalesforceSettings(**{"name": "sales", "crm": "salesforce", "instance_url": url, **keys})


CREDENTIALS = {"client_id": "id", "client_secret": "right-secret"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "needs client_id and client_secret"),
        ({"auth": "jwt", "client_id": "x"}, "needs username and private_key_file"),
        ({"auth": "session"}, "needs access_token"),
        ({"auth": "jwt", "client_id": "x", "username": "u", "private_key_file": "/no/key.pem"}, "there is no private_key_file /no/key.pem"),
        ({**CREDENTIALS, "instance_url": "http://acme.my.salesforce.com"}, "must start with https://"),
        ({**CREDENTIALS, "instance_url": "acme.my.salesforce.com"}, "must be an address"),
        ({**CREDENTIALS, "instance_url": "https://acme.my.salesforce.com/lightning/page"}, "must end after the host name"),
        ({**CREDENTIALS, "instance_url": "https://acme.lightning.force.com"}, "https://acme.my.salesforce.com"),
        ({**CREDENTIALS, "instance_url": "https://u:p@acme.my.salesforce.com"}, "user name or password"),
        ({**CREDENTIALS, "api_version": "sixty"}, 'must look like "60.0"'),
        ({**CREDENTIALS, "quota_share": 0}, "greater than 0"),
    ],
)
def test_mistakes_in_settings_are_told_with_their_fix(keys, said):
    with pytest.raises(ValidationError) as caught:
        settings(**({"url": keys.pop("instance_url")} if "instance_url" in keys else {}), **keys)
    assert said in str(caught.value) and "right-secret" not in str(caught.value)


def test_secrets_do_not_show():
    assert "right-secret" not in repr(settings(**CREDENTIALS))


@pytest.mark.parametrize("version", ["60", "60.0", "v60.0", 60, 60.0])
def test_versions_are_written_in_many_ways(version):
    assert settings(**CREDENTIALS, api_version=version).api_version == "60.0"


def test_where_tokens_come_from(pem):
    by_key = {"auth": "jwt", "client_id": "x", "username": "u", "private_key_file": pem}
    assert settings(**CREDENTIALS).token_host == "https://acme.my.salesforce.com"
    assert settings(**by_key).token_host == "https://login.salesforce.com"
    assert settings("https://acme--uat.sandbox.my.salesforce.com", **by_key).token_host == "https://test.salesforce.com"
    assert settings("https://acme.my.salesforce.mil", **by_key).token_host == "https://acme.my.salesforce.mil"
    assert settings("http://127.0.0.1:8080", **by_key).token_host == "http://127.0.0.1:8080"
    assert settings(**by_key, login_url="https://acme.my.salesforce.com/").token_host == "https://acme.my.salesforce.com"


def test_audience_is_the_login_address_not_the_my_domain():
    assert audience("https://acme.my.salesforce.com") == "https://login.salesforce.com"
    assert audience("https://acme--uat.sandbox.my.salesforce.com") == "https://test.salesforce.com"
    assert audience("https://acme.my.salesforce.mil") == "https://acme.my.salesforce.mil"


def limits(client):
    return client.call("org", "limits/")


def test_jwt_goes_by_the_servers_clock_when_ours_is_refused(stub, org, pem, key):
    stub.now = NOW + timedelta(days=3000)
    client = Client(settings(org, auth="jwt", client_id="consumer", username="u@acme.example", private_key_file=pem), POLICY)
    client.connect()
    claims = jwt.decode(stub.forms[0]["assertion"], key.public_key(), ["RS256"], audience=org)
    assert (claims["iss"], claims["sub"]) == ("consumer", "u@acme.example") and 0 < claims["exp"] - time.time() <= 180

    client = Client(client.settings, POLICY)
    stub.answer("oauth2/token", 400, {"error": "invalid_grant", "error_description": "expired authorization code"})
    client.connect()
    claims = jwt.decode(stub.forms[1]["assertion"], key.public_key(), ["RS256"], audience=org, options={"verify_exp": False})
    assert abs(claims["exp"] - (stub.now + timedelta(minutes=3)).timestamp()) < 5

    stub.answer("oauth2/token", 400, {"error": "invalid_grant", "error_description": "expired authorization code"}, times=9)
    with pytest.raises(CrmAuthError):
        Client(client.settings, POLICY).connect()
    assert len(stub.faults) == 7  # one try by each clock


def test_file_that_is_no_key(org, tmp_path):
    file = tmp_path / "key.pem"
    file.write_text("-----BEGIN PRIVATE KEY-----\nZm9v\n-----END PRIVATE KEY-----\n")
    client = Client(settings(org, auth="jwt", client_id="c", username="u", private_key_file=file), POLICY)
    with pytest.raises(CrmAuthError, match="RSA private key") as caught:
        client.connect()
    assert "Zm9v" not in str(caught.value)


def test_refresh_token_that_rotates_is_followed(stub, org):
    client = Client(settings(org, auth="refresh_token", client_id="id", refresh_token="first"), POLICY)
    stub.answer("oauth2/token", 200, {"access_token": "T9", "instance_url": org, "refresh_token": "second"})
    client.connect()  # T9 is not known to the stub: the first call refreshes
    stub.tokens.add("T1")
    client.call("Opportunity", "sobjects/Opportunity/describe")
    assert [form["refresh_token"] for form in stub.forms] == ["second"] and client.tokens.rotates


@pytest.mark.parametrize(
    ("body", "fix"),
    [
        ({"error": "invalid_client_id", "error_description": "client identifier invalid"}, "Check client_id"),
        ({"error": "invalid_grant", "error_description": "no client credentials user enabled"}, "run-as user"),
        ({"error": "invalid_grant", "error_description": "request not supported on this domain"}, "My Domain"),
        ({"error": "something_new", "error_description": "who knows"}, "Check client_id and client_secret"),
    ],
)
def test_refusals_of_the_token_endpoint_come_with_their_fix(stub, org, body, fix):
    stub.answer("oauth2/token", 400, body, times=2)
    with pytest.raises(CrmAuthError) as caught:
        Client(settings(org, **CREDENTIALS), POLICY).connect()
    assert fix in str(caught.value) and caught.value.code == body["error"] and "right-secret" not in str(caught.value)


def test_endpoint_that_reads_credentials_from_the_form_only(stub, org):
    stub.answer("oauth2/token", 400, {"error": "invalid_client_id", "error_description": "client identifier invalid"})
    stub.arm("oauth2/token", lambda h: h.send(200, {"access_token": "T0", "instance_url": org}) or True)
    seen = []
    stub.arm("describe", lambda h: seen.append(h.headers["Authorization"]))
    client = Client(settings(org, **CREDENTIALS), POLICY)
    client.call("Opportunity", "sobjects/Opportunity/describe")
    assert seen == ["Bearer T0"]
    assert client.tokens._grant()[0] == {"grant_type": "client_credentials", "client_id": "id", "client_secret": "right-secret"}


def test_wrong_secret_is_tried_in_both_places_and_no_further(stub, org):
    with pytest.raises(CrmAuthError, match="client_secret"):
        Client(settings(org, **{**CREDENTIALS, "client_secret": "wrong"}), POLICY).connect()
    assert [form.get("client_secret") for form in stub.forms] == [None, "wrong"]


@pytest.mark.parametrize("named", [{}, {"instance_url": None}, {"instance_url": "https://acme.invalid"}])
def test_we_stay_at_instance_url_whatever_the_token_answer_names(stub, org, named):
    stub.answer("oauth2/token", 200, {"access_token": "T0", "token_type": "Bearer", **named})
    client = Client(settings(org, **CREDENTIALS), POLICY)
    assert client.call("Opportunity", "sobjects/Opportunity/describe")["name"] == "Opportunity"


@pytest.mark.parametrize("body", ["<html>", {"hello": 1}, []])
def test_host_that_issues_no_tokens(stub, org, body):
    stub.answer("oauth2/token", 200, body)
    with pytest.raises(CrmProtocolError, match="login_url"):
        Client(settings(org, **CREDENTIALS), POLICY).connect()


def test_token_endpoint_that_stays_down(stub, org):
    stub.answer("oauth2/token", 503, "<html>", times=9)
    with pytest.raises(CrmUnavailableError, match="503"):
        Client(settings(org, **CREDENTIALS), POLICY).connect()


def test_one_sign_in_for_all_threads(stub, org):
    client = Client(settings(org, **CREDENTIALS), POLICY)
    client.connect()
    stub.tokens.clear()
    stub.arm("oauth2/token", lambda h: time.sleep(0.1) or False)
    threads = [threading.Thread(target=lambda: client.call("x", "sobjects/Opportunity/describe")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stub.issued == 2 and client.budget.daily_limit == 10000


def test_netrc_does_not_replace_our_token(stub, org, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client = Client(settings(org, **CREDENTIALS), POLICY)
    client.call("x", "sobjects/Opportunity/describe")
    assert stub.issued == 1


def test_http_adapter_serves_loopback_only(org):
    client = Client(settings(org, **CREDENTIALS), POLICY)
    adapter = client.session.get_adapter(org.replace("http://", "https://") + "/services/data/")
    assert type(adapter).__name__ == "Loopback"
    assert type(client.session.get_adapter("https://acme.my.salesforce.com/x")).__name__ == "HTTPAdapter"


def test_non_json_401_is_not_a_crash(stub, org):
    stub.answer("describe", 401, "<html>")
    assert Client(settings(org, **CREDENTIALS), POLICY).call("x", "sobjects/Opportunity/describe")["name"] == "Opportunity"


def test_errors_without_a_body(stub, org):
    stub.answer("describe", 400, json.dumps(error("X")[0]))
    from connectors.salesforce.client import Refused

    with pytest.raises(Refused) as caught:
        Client(settings(org, **CREDENTIALS), POLICY).call("x", "sobjects/Opportunity/describe")
    assert caught.value.code == "X"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer 00D1!AQ.secretsecret",
        "https://x/services/oauth2/token?client_secret=secretsecret&a=b",
        '{"access_token":"secretsecret"}',
        "session 00D000000000001!AQsecretsecret failed",
    ],
)
def test_scrubbing(text):
    assert "secretsecret" not in scrub(text)


def test_trouble_is_told_without_the_url():
    import requests

    try:
        requests.get("http://127.0.0.1:9/path?q=secret", timeout=2)
    except requests.RequestException as caught:
        trouble = network_trouble(caught, "http://127.0.0.1:9")
    assert trouble.kind == "refused" and not trouble.sent and "secret" not in trouble.what + trouble.fix
