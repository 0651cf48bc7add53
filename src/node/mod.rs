//! The proxy process: tasks, sockets, disk around the node's mind.
//!
//! `driver` owns the mind; `subscriber` and `peer_client` speak for it, `peer_server` hears for
//! it, `disk` remembers, `activation` puts rules in force; `start` puts them together, `leaving`
//! and `hand_over` take them apart. No global state: many nodes live in
//! one process in tests and in the demo.

mod activation;
mod address_policy;
mod ceilings;
pub(crate) mod connect;
mod disk;
mod driver;
mod files;
pub(crate) mod hand_over;
mod keeping;
mod leaving;
mod metrics;
mod names;
mod options;
mod peer_client;
mod peer_server;
mod priors;
mod shortage;
mod start;
mod subscriber;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, watch};

use crate::proxy::listener::ProxyHandle;
pub(crate) use ceilings::Ceilings;
use disk::Disk;
use driver::Note;
pub(crate) use options::{NodeError, NodeOptions};
pub(crate) use traffic::TrafficOptions;

/// A running node.
pub(crate) struct Node {
    peer: SocketAddr,
    /// For a process that takes over.
    peer_socket: std::net::TcpListener,
    notes: mpsc::Sender<Note>,
    ended: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    disk: Disk,
    proxy: ProxyHandle,
    driver: tokio::task::JoinHandle<()>,
    /// Closes with the last request: until then memory and targets are watched.
    _served: watch::Sender<()>,
}

impl Node {
    /// Where clients reach it.
    pub(crate) fn traffic_addrs(&self) -> &[SocketAddr] {
        self.proxy.addresses()
    }

    /// Where peers reach it.
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}
