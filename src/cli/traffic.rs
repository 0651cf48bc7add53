//! Flags of a node's traffic ports, and what they come to.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::model::network::Network;
use crate::node::{Ceilings, TrafficOptions};
use crate::proxy::certificates::Certificates;
use crate::proxy::shedding;
use crate::wire::quantity::parse_size;

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
    /// Clients' connections at once; default: what the limit of descriptors has room for
    #[arg(long, env = "TRADEWIND_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<NonZeroU32>,
    /// Requests under way at once; one more is a 503
    #[arg(
        long,
        env = "TRADEWIND_MAX_REQUESTS",
        value_name = "N",
        default_value_t = shedding::REQUESTS
    )]
    max_requests: u32,
    /// Requests are 503s above nine tenths of this much memory; default: what the system gives
    #[arg(long, env = "TRADEWIND_MAX_MEMORY", value_name = "SIZE")]
    max_memory: Option<String>,
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
        let announcers = each(&self.proxy_protocol, Network::parse, note, |network| {
            format!("--proxy-protocol {network:?} is not a network such as 10.0.0.0/8")
        });
        let memory = self.max_memory.as_deref().and_then(|size| {
            let read = parse_size(size);
            if let Err(why) = &read {
                note(format!("--max-memory {size}: {}", why.detail));
            }
            read.ok()
        });
        let connections = self.max_connections.and_then(|most| usize::try_from(most.get()).ok());
        TrafficOptions {
            ceilings: Ceilings { connections, requests: Some(self.max_requests), memory },
            announcers,
            listen_tls: self.listen_tls.clone(),
            certificates,
            target_authorities: self.target_ca.clone(),
            target_identity: self.target_certificate.clone(),
        }
    }
}

/// What each of these texts means; those that mean nothing are noted.
pub(super) fn each<T>(
    texts: &[String],
    read: impl Fn(&str) -> Option<T>,
    note: &mut impl FnMut(String),
    wrong: impl Fn(&str) -> String,
) -> Vec<T> {
    let mut all = Vec::new();
    for text in texts {
        match read(text) {
            Some(one) => all.push(one),
            None => note(wrong(text)),
        }
    }
    all
}
