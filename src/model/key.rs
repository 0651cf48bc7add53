//! Ed25519 keys and signatures over domain-tagged bytes, and the chain from one key to the next.
//!
//! Knows nothing of where a key is kept. Invariant: no two kinds of statement share a domain tag,
//! so a signature over one can never be taken for another.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use super::ids::{ClusterId, Epoch};

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// A signature by some key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

/// A private key; never shown.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

/// What a signature is about; its tag opens the signed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A ledger's head.
    Head,
    /// A head with a tick.
    Beacon,
    /// A branch point between epochs.
    Branch,
    /// A link from one cluster key to the next.
    Link,
    /// An author certificate.
    Author,
    /// An override.
    Override,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Domain::Head => b"tradewind/head/v1\0",
            Domain::Beacon => b"tradewind/beacon/v1\0",
            Domain::Branch => b"tradewind/branch/v1\0",
            Domain::Link => b"tradewind/link/v1\0",
            Domain::Author => b"tradewind/author/v1\0",
            Domain::Override => b"tradewind/override/v1\0",
        }
    }
}

impl PrivateKey {
    /// The key with this seed; the seed must come from a cryptographic source of randomness.
    pub fn from_seed(seed: [u8; 32]) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(&seed))
    }

    /// The seed, for the file it is kept in.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a statement of this domain.
    pub fn sign(&self, domain: Domain, statement: &[u8]) -> Signature {
        Signature(self.0.sign(&tagged(domain, statement)).to_bytes())
    }
}

impl PublicKey {
    /// Whether `signature` is this key's over this statement of this domain.
    pub fn verifies(&self, domain: Domain, statement: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&tagged(domain, statement), &signature).is_ok()
    }

    /// The cluster whose first key this is.
    pub fn cluster(&self) -> ClusterId {
        ClusterId(blake3::derive_key("tradewind cluster id v1", &self.0))
    }

    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<PublicKey> {
        let text = text.trim();
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0u8; 32];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(PublicKey(key))
    }
}

/// One step of key rotation: the old key says who the new one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLink {
    /// The fleet.
    pub cluster: ClusterId,
    /// 1 for the first rotation, then one more each time.
    pub serial: u64,
    /// The key that signs this link.
    pub old: PublicKey,
    /// The key that takes over.
    pub new: PublicKey,
    /// The first epoch that the new key signs; the old one signs none from here on.
    pub first_epoch: Epoch,
    /// By the old key.
    pub signature: Signature,
}

impl KeyLink {
    /// Signs a link from `old` to `new`.
    pub fn sign(old: &PrivateKey, new: PublicKey, at: (ClusterId, u64, Epoch)) -> KeyLink {
        let (cluster, serial, first_epoch) = at;
        let signature = Signature([0; 64]);
        let link = KeyLink { cluster, serial, old: old.public(), new, first_epoch, signature };
        KeyLink { signature: old.sign(Domain::Link, &link.statement()), ..link }
    }

    /// Whether the old key really said so.
    pub fn holds(&self) -> bool {
        self.old.verifies(Domain::Link, &self.statement(), &self.signature)
    }

    fn statement(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(112);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.serial.to_be_bytes());
        bytes.extend_from_slice(&self.new.0);
        bytes.extend_from_slice(&self.first_epoch.0.to_be_bytes());
        bytes
    }
}

fn tagged(domain: Domain, statement: &[u8]) -> Vec<u8> {
    let tag = domain.tag();
    let mut bytes = Vec::with_capacity(tag.len() + statement.len());
    bytes.extend_from_slice(tag);
    bytes.extend_from_slice(statement);
    bytes
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_domain_and_bytes_only() {
        let key = PrivateKey::from_seed([7; 32]);
        let signature = key.sign(Domain::Head, b"statement");
        assert!(key.public().verifies(Domain::Head, b"statement", &signature));
        assert!(!key.public().verifies(Domain::Beacon, b"statement", &signature));
        assert!(!key.public().verifies(Domain::Head, b"statemenT", &signature));
        assert_eq!(PublicKey::parse(&key.public().to_string()), Some(key.public()));
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = PrivateKey::from_seed([0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
    }
}
