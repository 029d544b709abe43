"""What the API server reads from the certificates."""

from datetime import UTC, datetime
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.x509.oid import NameOID
from localcluster.certificates import Authority, KeyPair

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def load(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def test_a_client_certificate_carries_user_and_group() -> None:
    subject = load(Authority(NOW).client("system:node:lab", "system:nodes")).subject
    assert [item.value for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:lab"]
    assert [item.value for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:nodes"]


def test_a_serving_certificate_names_hosts_and_addresses() -> None:
    certificate = load(Authority(NOW).serving("api", ["kubernetes"], [IPv4Address("10.96.0.1")]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes"]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("10.96.0.1")]


def test_certificates_are_signed_by_the_authority_and_valid_now() -> None:
    authority = Authority(NOW)
    certificate = load(authority.client("administrator", "system:masters"))
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
