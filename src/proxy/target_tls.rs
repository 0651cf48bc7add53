//! TLS with targets: whom this node believes there, and who it says it is.
//!
//! A target is verified, always: against the roots of the web, or against the authorities that the
//! node was given in their place. There is no switch to turn that off.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http1_target::connection::Stream;
use super::reply::Failure;

/// How TLS is spoken with targets.
pub(crate) struct TargetTls {
    /// Offers HTTP/2 and HTTP/1.1.
    any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for exchanges that HTTP/2 cannot carry.
    http1: Arc<ClientConfig>,
}

/// Files that cannot be used.
#[derive(Debug)]
pub(crate) struct Unusable {
    path: PathBuf,
    why: Flaw,
}

#[derive(Debug)]
enum Flaw {
    Pem(rustls::pki_types::pem::Error),
    NoCertificate,
    Tls(rustls::Error),
}

impl TargetTls {
    /// Believes `authorities` (PEM files; none: the roots of the web), and shows `identity` (a
    /// PEM file with a chain and its key) to targets that ask.
    pub(crate) fn new(
        authorities: &[PathBuf],
        identity: Option<&Path>,
    ) -> Result<TargetTls, Unusable> {
        let mut roots = RootCertStore::empty();
        for path in authorities {
            for root in certificates(path)? {
                roots.add(root).map_err(unusable(path, Flaw::Tls))?;
            }
        }
        if authorities.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let tls = unusable(identity.unwrap_or(Path::new("TLS")), Flaw::Tls);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(&tls)?
            .with_root_certificates(roots);
        let mut any = match identity {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let key = PrivateKeyDer::from_pem_file(path).map_err(unusable(path, Flaw::Pem))?;
                builder.with_client_auth_cert(certificates(path)?, key).map_err(&tls)?
            }
        };
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut http1 = any.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TargetTls { any: Arc::new(any), http1: Arc::new(http1) })
    }

    /// Comes to terms with a target that must be `name`; says whether it speaks HTTP/2.
    pub(super) async fn connect<T>(
        &self,
        stream: T,
        name: &str,
        http1_only: bool,
    ) -> Result<(TlsStream<T>, bool), Failure>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_string()).map_err(|_| Failure::TlsCertificate)?;
        let config = if http1_only { &self.http1 } else { &self.any };
        let connecting = TlsConnector::from(config.clone()).connect(name, stream);
        let stream = connecting.await.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            match inner {
                Some(rustls::Error::InvalidCertificate(_)) => Failure::TlsCertificate,
                _ => Failure::TlsFailed,
            }
        })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, http2))
    }
}

/// A connection that says its end before it is closed, as far as it can at once (RFC 9112, section
/// 9.8); what is dropped while it says more does not wait.
pub(super) struct Farewell<T: Stream> {
    stream: TlsStream<T>,
    broken_off: bool,
}

impl<T: Stream> Farewell<T> {
    pub(super) fn new(stream: TlsStream<T>) -> Farewell<T> {
        Farewell { stream, broken_off: false }
    }
}

impl<T: Stream> Stream for Farewell<T> {
    fn break_off(&mut self) {
        self.broken_off = true;
        self.stream.get_mut().0.break_off();
    }
}

impl<T: Stream> Drop for Farewell<T> {
    fn drop(&mut self) {
        if !self.broken_off {
            let mut cx = Context::from_waker(Waker::noop());
            // It may have been said already, or not be heard any more.
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
        }
    }
}

impl<T: Stream> AsyncRead for Farewell<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: Stream> AsyncWrite for Farewell<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<CertificateDer<'static>> = read.map_err(unusable(path, Flaw::Pem))?;
    if read.is_empty() {
        return Err(Unusable { path: path.to_path_buf(), why: Flaw::NoCertificate });
    }
    Ok(read)
}

fn unusable<E>(path: &Path, flaw: impl Fn(E) -> Flaw) -> impl Fn(E) -> Unusable {
    move |why| Unusable { path: path.to_path_buf(), why: flaw(why) }
}

impl std::fmt::Debug for TargetTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetTls")
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match &self.why {
            Flaw::Pem(why) => write!(f, "{path} cannot be read as PEM: {why}"),
            Flaw::NoCertificate => write!(f, "{path} has no certificate"),
            Flaw::Tls(why) => write!(f, "{path} cannot be used: {why}"),
        }
    }
}

impl std::error::Error for Unusable {}
