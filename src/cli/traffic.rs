//! Flags of a node's traffic ports, and what they come to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::model::network::Network;
use crate::node::TrafficOptions;
use crate::proxy::certificates::Certificates;

#[derive(Debug, Args)]
pub(crate) struct TrafficArguments {
    /// Where clients connect over TLS (repeatable)
    #[arg(
        long = "listen-tls",
        env = "TRADEWIND_LISTEN_TLS",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    listen_tls: Vec<SocketAddr>,
    /// A certificate chain with its key in PEM (the key may stand beside it in a file ending in
    /// .key), or a directory of .pem and .crt files; chosen by the name asked for, the first for
    /// want of one; watched (repeatable)
    #[arg(
        long = "certificate",
        env = "TRADEWIND_CERTIFICATE",
        value_name = "PATH",
        value_delimiter = ','
    )]
    certificates: Vec<PathBuf>,
    /// A network of balancers that begin each connection with a PROXY header (repeatable)
    #[arg(
        long = "proxy-protocol",
        env = "TRADEWIND_PROXY_PROTOCOL",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    proxy_protocol: Vec<String>,
    /// Whom to believe behind https targets in place of the web's authorities, in PEM (repeatable)
    #[arg(
        long = "target-ca",
        env = "TRADEWIND_TARGET_CA",
        value_name = "FILE",
        value_delimiter = ','
    )]
    target_ca: Vec<PathBuf>,
    /// A certificate chain with its key in PEM for https targets that ask who this node is
    #[arg(long = "target-certificate", env = "TRADEWIND_TARGET_CERTIFICATE", value_name = "FILE")]
    target_certificate: Option<PathBuf>,
}

impl TrafficArguments {
    /// Typed settings; everything that is wrong goes to `note`.
    pub(crate) fn options(&self, note: &mut impl FnMut(String)) -> TrafficOptions {
        let mut certificates = None;
        if !self.certificates.is_empty() {
            match Certificates::read(self.certificates.clone()) {
                Ok(read) => certificates = Some(Arc::new(read)),
                Err(why) => note(format!("--certificate {why}")),
            }
        }
        let mut announcers = Vec::new();
        for network in &self.proxy_protocol {
            match Network::parse(network) {
                Some(network) => announcers.push(network),
                None => note(format!(
                    "--proxy-protocol {network:?} is not a network such as 10.0.0.0/8"
                )),
            }
        }
        TrafficOptions {
            announcers,
            listen_tls: self.listen_tls.clone(),
            certificates,
            target_authorities: self.target_ca.clone(),
            target_identity: self.target_certificate.clone(),
        }
    }
}
