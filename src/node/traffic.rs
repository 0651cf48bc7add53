//! What a node's traffic ports are besides plain HTTP: TLS, and the files it needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ceilings::Ceilings;
use super::options::NodeError;
use crate::model::network::Network;
use crate::proxy::certificates::Certificates;
use crate::proxy::listener::Tls;
use crate::proxy::target_tls::TargetTls;

/// What a node's traffic ports are told besides where plain HTTP is spoken.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficOptions {
    /// Where clients reach it over TLS.
    pub(crate) listen_tls: Vec<SocketAddr>,
    /// What they are shown there.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// Balancers that say who their clients are.
    pub(crate) announcers: Vec<Network>,
    /// Whom it believes behind `https` targets, PEM files; none: the roots of the web.
    pub(crate) target_authorities: Vec<PathBuf>,
    /// What it shows to targets that ask who it is: a PEM file.
    pub(crate) target_identity: Option<PathBuf>,
    pub(crate) ceilings: Ceilings,
}

impl TrafficOptions {
    /// Finds everything that does not fit together.
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        if self.listen_tls.is_empty() != self.certificates.is_none() {
            wrong.push("--listen-tls and --certificate need each other".to_string());
        }
    }

    /// How targets are spoken TLS with.
    pub(super) fn target_tls(&self) -> Result<Arc<TargetTls>, NodeError> {
        TargetTls::new(&self.target_authorities, self.target_identity.as_deref())
            .map(Arc::new)
            .map_err(|why| NodeError::Settings(vec![format!("TLS with targets: {why}")]))
    }

    /// For the traffic threads; `addresses` is where they listen, TLS last.
    pub(super) fn tls(&self, addresses: &[SocketAddr]) -> Option<Tls> {
        let certificates = self.certificates.clone()?;
        let plain = addresses.len().saturating_sub(self.listen_tls.len());
        Some(Tls { addresses: addresses[plain..].to_vec(), certificates })
    }
}

/// Reads certificates anew when their files change, until the node ends.
pub(super) async fn keep_fresh(certificates: Arc<Certificates>, mut ended: watch::Receiver<bool>) {
    let mut last = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        let read = certificates.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || read.reload()).await else { return };
        let failed = read.as_ref().err().map(ToString::to_string);
        match (&failed, read) {
            (None, Ok(true)) => tracing::info!("new certificates are in force"),
            // Said once, not every time the files are looked at.
            (Some(why), _) if failed != last => {
                tracing::error!(%why, "the certificates are not usable; the last good ones stay");
            }
            _ => {}
        }
        last = failed;
    }
}

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);
