"""Settings that tell what is missing, and the flows that get a token."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError
from salesforce_stub import NOW, Stub, error, serving

from connectors.errors import CrmAuthError, CrmProtocolError, CrmUnavailableError
from connectors.http import RetryPolicy, network_trouble, scrub
from connectors.salesforce.auth import ROTATES
from connectors.salesforce.client import Client
from connectors.salesforce.extract import pull
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
        ({**CREDENTIALS, "instance_url": "acme.my.salesforce.com"}, 'with its scheme: "https://acme.my.salesforce.com"'),
        ({**CREDENTIALS, "instance_url": "acme.my.salesforce.com/home"}, 'with its scheme: "https://acme.my.salesforce.com"'),
        ({**CREDENTIALS, "instance_url": "not an address"}, "must be an address"),
        (
            {**CREDENTIALS, "instance_url": "https://acme.my.salesforce.com/lightning/page"},
            'must end after the host name: "https://acme.my.salesforce.com"',
        ),
        ({**CREDENTIALS, "instance_url": "https://login.salesforce.com"}, "the login page of all orgs"),
        ({**CREDENTIALS, "login_url": "https://test.salesforce.com"}, 'does not serve auth = "client_credentials"'),
        ({**CREDENTIALS, "login_url": "https://acme.lightning.force.com"}, 'the API answers at "https://acme.my.salesforce.com"'),
        ({**CREDENTIALS, "audience": "https://login.salesforce.com"}, 'audience is for auth = "jwt" only'),
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


@pytest.mark.parametrize(
    ("seen", "right"),
    [
        ("https://acme.lightning.force.com", "acme.my.salesforce.com"),
        ("acme.lightning.force.com/lightning/o/Opportunity/list", "acme.my.salesforce.com"),
        ("https://ACME--uat.sandbox.lightning.force.com/lightning/page/home", "acme--uat.sandbox.my.salesforce.com"),
        ("https://acme.develop.lightning.force.com", "acme.develop.my.salesforce.com"),
        ("https://acme.my.salesforce-setup.com/lightning/setup/SetupOneHome/home", "acme.my.salesforce.com"),
        ("https://acme--uat.sandbox.my.salesforce-setup.com", "acme--uat.sandbox.my.salesforce.com"),
        ("https://acme--c.vf.force.com/apex/page", "acme.my.salesforce.com"),
        ("https://acme--uat--c.sandbox.vf.force.com", "acme--uat.sandbox.my.salesforce.com"),
        ("https://base.lightning.crmforce.mil", "base.my.salesforce.mil"),
        ("https://acme.lightning.sfcrmapps.cn", "acme.my.sfcrmproducts.cn"),
    ],
)
def test_the_address_that_a_browser_shows_is_answered_with_the_right_one(seen, right):
    with pytest.raises(ValidationError) as caught:
        settings(seen, **CREDENTIALS)
    assert f'the API answers at "https://{right}"' in str(caught.value)
    assert settings(f"https://{right}", **CREDENTIALS).token_host == f"https://{right}"


LOGIN, TEST = "https://login.salesforce.com", "https://test.salesforce.com"


@pytest.mark.parametrize(
    ("org", "shared"),
    [
        ("https://acme.my.salesforce.com", LOGIN),
        ("https://acme-dev-ed.develop.my.salesforce.com", LOGIN),
        ("https://acme.trailblaze.my.salesforce.com", LOGIN),
        ("https://eu42.salesforce.com", LOGIN),
        ("https://acme--uat.sandbox.my.salesforce.com", TEST),
        ("https://acme--uat.cs42.my.salesforce.com", TEST),
        ("https://brave-otter-1234.scratch.my.salesforce.com", TEST),
        ("https://cs42.salesforce.com", TEST),
        ("https://usa2s.sfdc-y37hzm.salesforce.com", TEST),
        ("https://acme.my.sfcrmproducts.cn", "https://login.sfcrmproducts.cn"),
        ("https://acme--uat.sandbox.my.sfcrmproducts.cn", "https://test.sfcrmproducts.cn"),
    ],
)
def test_jwt_asks_the_clouds_login_address_first_and_the_org_itself_after_it(pem, org, shared):
    by_key = settings(org, auth="jwt", client_id="x", username="u", private_key_file=pem)
    assert by_key.token_places == ((shared, shared), (org, shared), (org, org))
    assert settings(org, **CREDENTIALS).token_places == ((org, org),)  # other flows know only the org


def test_jwt_of_a_military_org_of_this_machine_and_as_configured(pem):
    by_key = {"auth": "jwt", "client_id": "x", "username": "u", "private_key_file": pem}
    mil, own = "https://base.my.salesforce.mil", "https://acme.my.salesforce.com"
    assert settings(mil, **by_key).token_places == ((mil, mil), (mil, LOGIN))
    assert settings("http://127.0.0.1:8080", **by_key).token_places == (("http://127.0.0.1:8080", "http://127.0.0.1:8080"),)
    assert settings(**by_key, login_url=own + "/").token_places == ((own, LOGIN), (own, own))
    assert settings(**by_key, login_url=own, audience="https://site.acme.example/customers/").token_places == (
        (own, "https://site.acme.example/customers"),
    )


def test_jwt_goes_on_to_the_org_where_the_shared_login_address_does_not_know_the_app(stub, org, pem, key, monkeypatch):
    """External client apps since Spring '26, and GovCloud: one token for the run, and the place is remembered."""
    stub.now = datetime.now(UTC)
    places = ((org, "https://login.salesforce.com"), (org, "https://gov.my.salesforce.com"), (org, org))
    monkeypatch.setattr(SalesforceSettings, "token_places", property(lambda self: places))
    stub.answer("oauth2/token", 400, {"error": "app_not_found", "error_description": "External client app is not installed in this org"})
    client = Client(settings(org, auth="jwt", client_id="consumer", username="u@acme.example", private_key_file=pem), POLICY)
    client.connect()
    stub.tokens.clear()
    client.call("Opportunity", "sobjects/Opportunity/describe")
    told = [jwt.decode(f["assertion"], options={"verify_signature": False})["aud"] for f in stub.forms]
    assert told == ["https://gov.my.salesforce.com"] * 2  # the first was refused before the stub noted it

    stub.answer("oauth2/token", 400, {"error": "app_not_found", "error_description": "External client app is not installed in this org"})
    stub.answer("oauth2/token", 400, {"error": "invalid_grant", "error_description": "user hasn't approved this consumer"})
    stub.answer("oauth2/token", 400, {"error": "invalid_grant", "error_description": "audience is invalid"})
    with pytest.raises(CrmAuthError, match="Pre-authorize the user"):  # what the place that knows the app has to say
        Client(client.settings, POLICY).connect()

    stub.answer("oauth2/token", 400, {"error": "inactive_user", "error_description": "user is inactive"})
    with pytest.raises(CrmAuthError, match="activate it"):
        Client(client.settings, POLICY).connect()
    assert not stub.faults  # and nowhere else is asked


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


def test_refresh_token_that_rotates_is_followed_within_the_run_and_told(stub, org, tmp_path):
    config = settings(org, auth="refresh_token", client_id="id", refresh_token="first")
    stub.answer("oauth2/token", 200, {"access_token": "T9", "instance_url": org, "refresh_token": "second"})
    client = Client(config, POLICY)  # T9 is not known to the stub: the first call refreshes
    pull(config, run_id="r1", landing=tmp_path, since={}, client=client)
    assert [form["refresh_token"] for form in stub.forms] == ["second"] and client.tokens.rotates
    notices = [json.loads(m.read_text())["notice"] or "" for m in tmp_path.glob("sales/r1/*/manifest.json")]
    assert [n for n in notices if "the app rotates refresh tokens" in n] == [ROTATES] and "second" not in "".join(notices)

    stub.answer("oauth2/token", 400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}, times=2)
    with pytest.raises(CrmAuthError, match="turn rotation off"):
        Client(config, POLICY).connect()


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


def at_once(*works):
    """Run all of it in threads that start together; gives what was raised."""
    gate, raised = threading.Barrier(len(works)), []

    def one(work):
        gate.wait()
        try:
            work()
        except CrmAuthError as error:
            raised.append(error)

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return raised


def ways_to_call(client, tmp_path):
    """Eight calls of all kinds: describe, REST pages, Bulk jobs and Bulk results."""
    client.call("org", "jobs/query", method="POST", json={"operation": "query", "query": "SELECT Id FROM Opportunity"})
    job = "jobs/query/750000000000000AAA"
    query = f"{client.data}/queryAll/?q=SELECT+Id+FROM+Opportunity"
    return [
        lambda: client.call("Opportunity", "sobjects/Opportunity/describe"),
        lambda: client.call("Account", "sobjects/Opportunity/describe"),
        lambda: client.fetch("Opportunity", query),
        lambda: client.fetch("Task", query),
        lambda: client.call("Opportunity", job),
        lambda: client.download("Opportunity", f"{client.data}/{job}/results?locator=0", tmp_path / "0.csv"),
        lambda: client.download("Opportunity", f"{client.data}/{job}/results?locator=2", tmp_path / "1.csv"),
        lambda: client.fetch("Opportunity", f"{client.data}/{job}/resultPages"),
    ]


def test_one_sign_in_for_all_threads(stub, org, tmp_path):
    """Eight threads meet an expired token at the same time, by describe, REST and Bulk: one of them signs in, once."""
    client = Client(settings(org, **CREDENTIALS), POLICY)
    works = ways_to_call(client, tmp_path)
    for _ in range(2):  # tokens that expire once more are followed as well
        before = stub.issued
        stub.tokens.clear()
        stub.arm("oauth2/token", lambda h: time.sleep(0.1) or False)
        assert at_once(*works) == []
        assert stub.issued == before + 1
    assert client.budget.daily_limit == 10000


def test_a_401_that_stays_ends_after_few_sign_ins_in_every_thread(stub, org, tmp_path):
    client = Client(settings(org, **CREDENTIALS), POLICY)
    works = ways_to_call(client, tmp_path)
    before = stub.issued
    stub.answer("/services/data/v60.0/", 401, error("INVALID_SESSION_ID"), times=500)
    raised = at_once(*works)
    assert len(raised) == 8 and all("refuses the token each time" in str(e) and "IP and session policies" in str(e) for e in raised)
    assert stub.issued - before <= 3 and stub.calls("/services/data/v60.0/") < 50


def test_credentials_that_are_revoked_amid_a_pull_are_tried_once_for_all_threads(stub, org, tmp_path):
    client = Client(settings(org, **CREDENTIALS), POLICY)
    works = ways_to_call(client, tmp_path)
    stub.tokens.clear()
    stub.secret = "another"
    before = len(stub.forms)
    raised = at_once(*works)
    assert len(raised) == 8 and all(e.code == "invalid_client" for e in raised)
    assert len(stub.forms) - before == 2  # in the header and in the form


def test_one_resource_that_stays_401_ends_although_others_are_accepted(stub, org, tmp_path):
    client = Client(settings(org, **CREDENTIALS), POLICY)
    *_, results, _, _ = works = ways_to_call(client, tmp_path)
    stub.answer("results", 401, error("INVALID_SESSION_ID"), times=500)
    over = threading.Event()

    def doomed():
        try:
            results()
        finally:
            over.set()

    def busy():
        while not over.is_set():
            works[0]()

    raised = at_once(doomed, busy, busy)
    assert len(raised) == 1 and stub.calls("results") == 4 and stub.issued <= 5


def test_api_version(stub, org):
    """The newest that both know; the configured one as it is; one that the org does not have is told with those that it has."""
    stub.versions = ["31.0", "59.0", "60.0", "99.0"]
    client = Client(settings(org, **CREDENTIALS), POLICY)
    client.connect()
    assert client.data == "/services/data/v60.0"
    client = Client(settings(org, **CREDENTIALS, api_version="59"), POLICY)
    client.connect()
    assert client.data == "/services/data/v59.0"
    for version, said in [("29.0", "29.0: Salesforce has retired it"), ("100.0", "100.0: it is newer than the org"), ("45.0", "version 45.0\n")]:
        with pytest.raises(CrmProtocolError, match=said) as caught:
            Client(settings(org, **CREDENTIALS, api_version=version), POLICY).connect()
        assert "take one from 31.0 to 99.0" in str(caught.value) and stub.issued == 2  # before anything is sent


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
