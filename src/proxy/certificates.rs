//! The certificates that clients are shown, found by the name that a client asks for.
//!
//! Read from PEM files and read anew when these change; files that are not usable leave the last
//! good certificates in force. A connection keeps what it was shown: nothing here ends it. Each
//! certificate has a TLS configuration of its own, so a session that began under one is never
//! resumed under another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// All certificates of a node, as they are now.
pub(crate) struct Certificates {
    paths: Vec<PathBuf>,
    shown: ArcSwap<Shown>,
}

/// All certificates at one moment.
pub(crate) struct Shown {
    /// Invariant: never empty; the first is for clients that name nobody known.
    all: Vec<Arc<Certificate>>,
    exact: HashMap<String, usize>,
    /// `example.com` for `*.example.com`.
    wildcard: HashMap<String, usize>,
    content: blake3::Hash,
}

/// One certificate, with its key.
pub(crate) struct Certificate {
    /// Lower-case DNS names, wildcards with their `*.`.
    names: Vec<String>,
    config: Arc<ServerConfig>,
}

/// What a client was shown when it connected.
pub(crate) struct Identity {
    shown: Arc<Shown>,
    certificate: Arc<Certificate>,
    /// Whether the client asked for a name that the certificate has.
    named: bool,
}

/// Files that cannot be used. Whatever was in force still is.
#[derive(Debug)]
pub(crate) struct Unusable {
    path: PathBuf,
    why: Flaw,
}

#[derive(Debug)]
enum Flaw {
    Read(std::io::Error),
    Pem(rustls::pki_types::pem::Error),
    NoCertificate,
    Names,
    Tls(rustls::Error),
}

impl Certificates {
    /// Reads files, each with a chain and its key (which may stand beside it in a file that ends
    /// in `.key`), and directories of such files ending in `.pem` or `.crt`.
    pub(crate) fn read(paths: Vec<PathBuf>) -> Result<Certificates, Unusable> {
        let shown = ArcSwap::from_pointee(Shown::parse(&contents(&paths)?)?);
        Ok(Certificates { paths, shown })
    }

    /// Reads the files again; true when they had changed.
    pub(crate) fn reload(&self) -> Result<bool, Unusable> {
        let contents = contents(&self.paths)?;
        if digest(&contents) == self.shown.load().content {
            return Ok(false);
        }
        self.shown.store(Arc::new(Shown::parse(&contents)?));
        Ok(true)
    }

    /// For a client that asks for this name, or for none.
    pub(crate) fn choose(&self, name: Option<&str>) -> Identity {
        let shown = self.shown.load_full();
        let lower = name.map(str::to_ascii_lowercase);
        let found = lower.and_then(|name| shown.find(name.trim_end_matches('.')));
        let certificate = shown.all[found.unwrap_or(0)].clone();
        Identity { shown, certificate, named: found.is_some() }
    }
}

impl Identity {
    /// How TLS is spoken with this client.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.certificate.config.clone()
    }

    /// Whether requests for this host (lower case, no port) belong on the connection: the
    /// certificate has the name, or the client was shown the first one for want of another and
    /// there is still no other (RFC 9110, section 15.5.20).
    pub(crate) fn serves(&self, host: &str) -> bool {
        let covers = self.certificate.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => host.split_once('.').is_some_and(|(_, rest)| rest == suffix),
            None => name == host,
        });
        covers || !self.named && self.shown.find(host).is_none()
    }
}

impl Shown {
    fn parse(contents: &[Content]) -> Result<Shown, Unusable> {
        let all = contents
            .iter()
            .map(|content| match Certificate::parse(content) {
                Ok(certificate) => Ok(Arc::new(certificate)),
                Err(why) => Err(Unusable { path: content.path.clone(), why }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.names {
                // The first one that has a name is the one for it.
                match name.strip_prefix("*.") {
                    Some(suffix) => wildcard.entry(suffix.to_string()).or_insert(index),
                    None => exact.entry(name.clone()).or_insert(index),
                };
            }
        }
        Ok(Shown { all, exact, wildcard, content: digest(contents) })
    }

    /// A wildcard stands for one label (RFC 9525, section 6.3).
    fn find(&self, name: &str) -> Option<usize> {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied()
    }
}

impl Certificate {
    fn parse(content: &Content) -> Result<Certificate, Flaw> {
        let chain = CertificateDer::pem_slice_iter(&content.chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Flaw::Pem)?;
        let first = chain.first().ok_or(Flaw::NoCertificate)?;
        let names = webpki::EndEntityCert::try_from(first)
            .map_err(|_| Flaw::Names)?
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect();
        let key = content.key.as_ref().unwrap_or(&content.chain);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(Flaw::Pem)?;
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(Flaw::Tls)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Flaw::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are resumed on every traffic thread, and nothing is kept for them here.
        config.ticketer = ring::Ticketer::new().map_err(Flaw::Tls)?;
        Ok(Certificate { names, config: Arc::new(config) })
    }
}

/// A file with a certificate, as read.
struct Content {
    path: PathBuf,
    chain: Vec<u8>,
    /// Where the key stands in a file of its own.
    key: Option<Vec<u8>>,
}

fn contents(paths: &[PathBuf]) -> Result<Vec<Content>, Unusable> {
    let mut all = Vec::new();
    for path in paths {
        let unusable = |why| Unusable { path: path.clone(), why: Flaw::Read(why) };
        if !path.is_dir() {
            all.push(content(path).map_err(unusable)?);
            continue;
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<PathBuf> =
            entries.map_err(unusable)?.iter().map(std::fs::DirEntry::path).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "pem" || end == "crt"));
        files.sort();
        for file in files {
            all.push(content(&file).map_err(unusable)?);
        }
    }
    if all.is_empty() {
        let path = paths.first().cloned().unwrap_or_default();
        return Err(Unusable { path, why: Flaw::NoCertificate });
    }
    Ok(all)
}

fn content(path: &Path) -> std::io::Result<Content> {
    let beside = path.with_extension("key");
    let key = beside.is_file().then(|| std::fs::read(&beside)).transpose()?;
    Ok(Content { path: path.to_path_buf(), chain: std::fs::read(path)?, key })
}

fn digest(contents: &[Content]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for content in contents {
        for part in [&content.chain, content.key.as_ref().unwrap_or(&Vec::new())] {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
    }
    hasher.finalize()
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificates({:?})", self.paths)
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match &self.why {
            Flaw::Read(why) => write!(f, "{path} cannot be read: {why}"),
            Flaw::Pem(why) => write!(f, "{path} is no certificate with its key in PEM: {why}"),
            Flaw::NoCertificate => write!(f, "{path} has no certificate"),
            Flaw::Names => write!(f, "{path}: the certificate is not of X.509 version 3"),
            Flaw::Tls(why) => write!(f, "{path}: certificate and key cannot be used: {why}"),
        }
    }
}

impl std::error::Error for Unusable {}
