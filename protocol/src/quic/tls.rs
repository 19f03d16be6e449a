//! TLS in which a certificate is nothing but an Ed25519 key.
//!
//! RFC 7250 puts a bare SubjectPublicKeyInfo where a certificate chain would be: 44 bytes, of
//! which the last 32 are the key. Both sides must send one and sign the handshake with it; the
//! strict rules of [`is_signed_by`] hold here as they do for updates. Sessions are never resumed,
//! so every connection proves its keys anew.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureAlgorithm,
    SignatureScheme,
};

use super::ALPN;
use crate::id::{CoordinatorId, WorkerId};
use crate::identity::{Identity, is_signed_by};

/// The server's side: this identity, and any key that a client proves.
pub(super) fn server(identity: &Identity) -> QuicServerConfig {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the ring provider has suites for TLS 1.3")
        .with_client_cert_verifier(Arc::new(AnyKey))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity))));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    QuicServerConfig::try_from(tls).expect("the ring provider has QUIC's initial suite")
}

/// The client's side: this identity, and one pinned key. The key that the server claims is put
/// into `seen`.
pub(super) fn client(
    identity: &Identity,
    pinned: CoordinatorId,
    seen: Arc<OnceLock<CoordinatorId>>,
) -> QuicClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the ring provider has suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedKey { pinned, seen }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(identity))));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_sni = false;
    QuicClientConfig::try_from(tls).expect("the ring provider has QUIC's initial suite")
}

/// The key in what quinn calls the identity of a peer.
pub(super) fn peer_key(identity: &dyn Any) -> Option<WorkerId> {
    let certificates = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    match certificates.as_slice() {
        [certificate] => key_in(certificate),
        _ => None,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let chain = vec![CertificateDer::from(public_key_info(&identity.id()))];
    let key = Arc::new(HandshakeKey(identity.clone()));
    Arc::new(CertifiedKey::new(chain, key))
}

fn public_key_info(id: &WorkerId) -> Vec<u8> {
    [&PUBLIC_KEY_INFO_PREFIX[..], &id.0].concat()
}

fn key_in(certificate: &CertificateDer<'_>) -> Option<WorkerId> {
    let key = certificate.strip_prefix(&PUBLIC_KEY_INFO_PREFIX)?;
    Some(WorkerId(key.try_into().ok()?))
}

/// An identity as TLS wants to sign with it. TLS 1.3 puts 64 spaces and a context string before
/// what is signed, so this is never a signature of anything else.
#[derive(Clone, Debug)]
struct HandshakeKey(Identity);

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_info(&self.0.id()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// What the server checks: that there is a key. Its proof is the signature.
#[derive(Debug)]
struct AnyKey;

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        claimed_key(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_possession(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What a client checks: that the server has the pinned key and no other.
#[derive(Debug)]
struct PinnedKey {
    pinned: CoordinatorId,
    seen: Arc<OnceLock<CoordinatorId>>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = claimed_key(end_entity, intermediates)?;
        self.seen.get_or_init(|| found);
        if found != self.pinned {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_possession(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The one key that a peer sent, not proven yet.
fn claimed_key(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<WorkerId, Error> {
    match key_in(end_entity) {
        Some(key) if intermediates.is_empty() => Ok(key),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

/// Checks the peer's signature over the handshake so far.
fn check_possession(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = claimed_key(cert, &[])?;
    let signature = <&[u8; 64]>::try_from(dss.signature());
    match signature {
        Ok(signature) if dss.scheme == SignatureScheme::ED25519 && is_signed_by(&key, message, signature) => {
            Ok(HandshakeSignatureValid::assertion())
        }
        _ => Err(CertificateError::BadSignature.into()),
    }
}

/// DER of everything in an Ed25519 SubjectPublicKeyInfo before the key itself (RFC 8410).
const PUBLIC_KEY_INFO_PREFIX: [u8; 12] = [
    0x30, 0x2a, // SEQUENCE, 42 bytes
    0x30, 0x05, // SEQUENCE, 5 bytes
    0x06, 0x03, 0x2b, 0x65, 0x70, // OBJECT IDENTIFIER 1.3.101.112, Ed25519
    0x03, 0x21, 0x00, // BIT STRING, 33 bytes, no unused bits
];
