//! A certificate for measurements, made anew for each run: P-256, self-signed, for one name.
//!
//! All proxies of a run show the same one. Not for anything else: it is written by hand, as little
//! of X.509 (RFC 5280) as programs insist on.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING as KIND, EcdsaKeyPair, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::cli::failure::Failure;

/// The name that it is for, and that clients ask for.
pub(super) const NAME: &str = "bench.example";

/// Where a run's certificate and its key are, in PEM.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one file.
    pub(super) both: PathBuf,
}

impl Identity {
    /// The one of this folder; made when it is not there yet.
    pub(super) fn within(directory: &Path) -> Result<Identity, Failure> {
        let path = |name: &str| directory.join(name);
        let identity = Identity {
            certificate: path("certificate.pem"),
            key: path("key.pem"),
            both: path("both.pem"),
        };
        if !identity.both.exists() {
            let fail = |error: std::io::Error| Failure::failed(format!("no certificate: {error}"));
            let (certificate, key) =
                make().map_err(|why| Failure::failed(format!("no certificate: {why}")))?;
            let certificate = pem("CERTIFICATE", &certificate);
            let key = pem("PRIVATE KEY", &key);
            std::fs::write(&identity.certificate, &certificate).map_err(fail)?;
            std::fs::write(&identity.key, &key).map_err(fail)?;
            std::fs::write(&identity.both, certificate + &key).map_err(fail)?;
        }
        Ok(identity)
    }

    /// The certificate, for whoever shall believe it.
    pub(super) fn read(&self) -> Result<CertificateDer<'static>, Failure> {
        CertificateDer::from_pem_file(&self.certificate)
            .map_err(|error| Failure::failed(format!("{}: {error}", self.certificate.display())))
    }
}

/// The certificate, and its key in PKCS #8.
fn make() -> Result<(Vec<u8>, Vec<u8>), ring::error::Unspecified> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&KIND, &random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&KIND, key.as_ref(), &random)
        .map_err(|_| ring::error::Unspecified)?;
    let body = to_be_signed(pair.public_key().as_ref());
    let signature = pair.sign(&random, &body)?;
    let algorithm = der(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let certificate = der(SEQUENCE, &[&body, &algorithm, &bits(signature.as_ref())]);
    Ok((certificate, key.as_ref().to_vec()))
}

fn to_be_signed(public: &[u8]) -> Vec<u8> {
    let common_name = der(SEQUENCE, &[COMMON_NAME, &der(UTF8, &[NAME.as_bytes()])]);
    let name = der(SEQUENCE, &[&der(SET, &[&common_name])]);
    let valid = der(SEQUENCE, &[&der(TIME, &[b"200101000000Z"]), &der(TIME, &[b"491231235959Z"])]);
    let key_kind = der(SEQUENCE, &[EC_PUBLIC_KEY, P256]);
    let key = der(SEQUENCE, &[&key_kind, &bits(public)]);
    let names = der(SEQUENCE, &[&der(DNS_NAME, &[NAME.as_bytes()])]);
    let names = der(SEQUENCE, &[SUBJECT_ALT_NAME, &der(OCTETS, &[&names])]);
    let no_authority = der(OCTETS, &[&der(SEQUENCE, &[])]);
    let no_authority = der(SEQUENCE, &[BASIC_CONSTRAINTS, &[0x01, 0x01, 0xff], &no_authority]);
    let extensions = der(EXTENSIONS, &[&der(SEQUENCE, &[&no_authority, &names])]);
    let version = der(VERSION, &[&[0x02, 0x01, 0x02]]);
    let serial = [0x02, 0x01, 0x01];
    let algorithm = der(SEQUENCE, &[ECDSA_WITH_SHA256]);
    der(SEQUENCE, &[&version, &serial, &algorithm, &name, &valid, &name, &key, &extensions])
}

/// A value of ASN.1 in DER: its tag, its length, its parts.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        length @ 0..0x80 => out.push(length as u8),
        length @ 0x80..0x100 => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

/// A string of whole bytes' bits.
fn bits(bytes: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], bytes])
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTETS: u8 = 0x04;
const UTF8: u8 = 0x0c;
const TIME: u8 = 0x17;
/// Of a `GeneralName`, number 2 there.
const DNS_NAME: u8 = 0x82;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x06, 3, 0x55, 0x1d, 0x13];
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 3, 0x55, 0x1d, 0x11];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_for_its_name_and_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::within(directory.path()).unwrap();
        let first = identity.read().unwrap();
        let entity = webpki::EndEntityCert::try_from(&first).unwrap();
        assert_eq!(entity.valid_dns_names().collect::<Vec<_>>(), [NAME]);
        let again = Identity::within(directory.path()).unwrap().read().unwrap();
        assert_eq!(first, again);
    }

    #[test]
    fn lengths_of_der_grow_with_what_is_inside() {
        assert_eq!(der(0x04, &[&[7; 0x7f]])[..2], [0x04, 0x7f]);
        assert_eq!(der(0x04, &[&[7; 0x80]])[..3], [0x04, 0x81, 0x80]);
        assert_eq!(der(0x04, &[&[7; 0x101]])[..4], [0x04, 0x82, 0x01, 0x01]);
    }
}
