//! `orchestrator`, `node` and `token`: processes that stay.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::arguments::{NodeArguments, OrchestratorArguments, TlsArguments};
use super::failure::Failure;
use super::output::say;
use super::read_token;
use super::traffic::each;
use crate::config::distances::Distances;
use crate::engine::config::Pace;
use crate::model::ids::{NodeId, PeerAddr};
use crate::model::key::PublicKey;
use crate::model::network::Network;
use crate::node::{Node, NodeError, NodeOptions, hand_over};
use crate::orchestrator::{Orchestrator, OrchestratorOptions};
use crate::proxy::certificates::Certificates;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{logs, service};
use crate::wire::quantity::parse_duration;

/// `tradewind orchestrator`.
pub(crate) fn orchestrator(arguments: OrchestratorArguments) -> Result<(), Failure> {
    if let Some(command) = arguments.command {
        return super::keep::run(command);
    }
    refuse_tls(&arguments.tls)?;
    let token = read_token(arguments.token_file.as_deref())?;
    logs::begin("info");
    control_runtime()?.block_on(async move {
        let mut signals = Signals::new()?;
        let options = OrchestratorOptions {
            grpc_listen: arguments.grpc_listen,
            http_listen: arguments.http_listen,
            data: arguments.data,
            cluster: arguments.cluster,
            token,
            beacon_interval: Duration::from_secs(1),
        };
        let running = Orchestrator::start(options)
            .await
            .map_err(|error| Failure::failed(format!("the orchestrator cannot start: {error}")))?;
        signals.ended().await;
        tokio::select! {
            () = running.shutdown() => {}
            () = signals.ended() => {}
        }
        Ok(())
    })
}

/// `tradewind node`.
pub(crate) fn node(arguments: NodeArguments) -> Result<(), Failure> {
    refuse_tls(&arguments.tls)?;
    let options = node_options(&arguments)?;
    let pace = drain_pace(&arguments)?;
    logs::begin("info");
    let path = arguments.hand_over;
    let failed = |what: &str, error: std::io::Error| {
        Failure::failed(format!("{what}: {error}")).next("look at the process that runs already")
    };
    let (before, inherited) = hand_over::sockets(path.as_deref())
        .map_err(|error| failed("the process before does not hand over", error))?;
    let log = options.access_log.clone();
    to_its_end(async move {
        let mut signals = Signals::new()?;
        let certificates = options.traffic.certificates.clone();
        tokio::spawn(reread_on_hangup(log.clone(), certificates));
        let running = Node::start_with(options, inherited).await.map_err(|error| match error {
            NodeError::Settings(_) => Failure::configuration(error.to_string()),
            other => Failure::failed(format!("the node cannot start: {other}")),
        })?;
        tracing::info!(
            traffic = ?running.traffic_addrs(), peer = %running.peer_addr(), "the node is up"
        );
        let taken_over = before.is_some();
        if let Some(before) = before
            && let Err(error) = before.replaced()
        {
            running.shutdown(Duration::ZERO, pace.1, CancellationToken::new()).await;
            return Err(failed("the process before did not leave", error));
        }
        let open = |path: &Path| hand_over::door(path, taken_over);
        let door = path.as_deref().map(open).transpose().map_err(|error| {
            Failure::configuration(format!("--hand-over cannot be listened on: {error}"))
        })?;
        let door = door.flatten();
        service::notify(&service::ready());
        let replaced = async {
            match &door {
                Some(door) => running.replaced(door).await,
                None => std::future::pending().await,
            }
        };
        let handed_over = tokio::select! {
            () = signals.ended() => false,
            () = replaced => true,
        };
        let hurry = CancellationToken::new();
        let leaving = async {
            if handed_over {
                tracing::info!("another process has taken over");
                running.leave(pace.1, hurry.clone()).await;
            } else {
                service::notify("STOPPING=1");
                running.shutdown(pace.0, pace.1, hurry.clone()).await;
            }
        };
        let hurrying = async {
            signals.ended().await;
            hurry.cancel();
            tokio::time::sleep(LAST_MOMENT).await;
        };
        tokio::select! {
            () = leaving => {}
            () = hurrying => {}
        }
        if let Some(log) = log {
            log.flush();
        }
        Ok(())
    })
}

/// Runs the control side of a node, and nothing that is left of it: a name that is being looked up,
/// a process that asks to take over and says nothing more.
fn to_its_end(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = control_runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// HUP: whoever rotates logs has moved the file; whoever renews certificates has written them.
async fn reread_on_hangup(log: Option<Arc<AccessLog>>, certificates: Option<Arc<Certificates>>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        if let Some(log) = &log {
            log.reopen();
        }
        let Some(certificates) = certificates.clone() else { continue };
        match tokio::task::spawn_blocking(move || certificates.reload()).await {
            Ok(Err(why)) => tracing::error!(%why, "the last good certificates stay"),
            Ok(Ok(_)) => tracing::info!("the certificates were read"),
            Err(_) => return,
        }
    }
}

/// How long to stay unready before connections are refused, and how long what runs may take.
fn drain_pace(arguments: &NodeArguments) -> Result<(Duration, Duration), Failure> {
    let parse = |flag: &str, text: &str| {
        parse_duration(text).map_err(|_| {
            Failure::configuration(format!("{flag} {text:?} is not a duration such as 500ms"))
        })
    };
    Ok((
        parse("--drain-delay", &arguments.drain_delay)?,
        parse("--drain-timeout", &arguments.drain_timeout)?,
    ))
}

fn read_label(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_string(), value.to_string()))
}

/// Typed settings, or everything that is wrong with them.
fn node_options(arguments: &NodeArguments) -> Result<NodeOptions, Failure> {
    let mut wrong = Vec::new();
    let mut note = |what: String| wrong.push(what);
    let id = NodeId::parse(&arguments.id);
    if id.is_none() {
        note(format!("--id {:?} is not [a-z0-9-]{{1,63}}", arguments.id));
    }
    let labels = each(&arguments.labels, read_label, &mut note, |label| {
        format!("--label {label:?} is not NAME=VALUE")
    });
    let advertise = arguments.peer_advertise.as_deref().map(PeerAddr::parse);
    if advertise == Some(None) {
        note("--peer-advertise is not http://ADDRESS:PORT with an address literal".to_string());
    }
    let trusted = each(&arguments.trust, PublicKey::parse, &mut note, |key| {
        format!("--trust {key:?} is not 64 hexadecimal digits")
    });
    let allow_targets = each(&arguments.allow_target, Network::parse, &mut note, |network| {
        format!("--allow-target {network:?} is not a network such as 10.0.0.0/8")
    });
    let traffic = arguments.traffic.options(&mut note);
    let distances = match arguments.simulate.as_deref().map(read_distances) {
        None => None,
        Some(Ok(distances)) => Some(distances),
        Some(Err(why)) => {
            note(why);
            None
        }
    };
    let (Some(id), true) = (id, wrong.is_empty()) else {
        return Err(Failure::configuration(wrong.join("\n")));
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.traffic_threads;
    Ok(NodeOptions {
        id,
        region: arguments.region.clone(),
        labels: labels.into_iter().collect(),
        listen: arguments.listen.clone(),
        traffic,
        traffic_threads: if threads == 0 { cores } else { threads },
        peer_listen: arguments.peer_listen,
        peer_advertise: advertise.flatten(),
        orchestrators: arguments.orchestrators.clone(),
        seeds: arguments.seeds.clone(),
        neighbours: arguments.neighbours.clone(),
        near: arguments.near,
        far: arguments.far,
        data: arguments.data.clone(),
        rules: arguments.rules.clone(),
        trusted,
        token: read_token(arguments.token_file.as_deref())?,
        access_log: access_log(&arguments.access_log)?,
        allow_targets,
        distances,
        pace: Pace::default(),
    })
}

fn access_log(path: &Path) -> Result<Option<Arc<AccessLog>>, Failure> {
    if path == Path::new("off") {
        return Ok(None);
    }
    let opened = AccessLog::open(path).map_err(|error| {
        Failure::configuration(format!("--access-log {}: {error}", path.display()))
    })?;
    Ok(Some(Arc::new(opened)))
}

fn read_distances(path: &Path) -> Result<Arc<Distances>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--simulate {}: {error}", path.display()))?;
    Distances::parse(&text, |text| parse_duration(text).ok())
        .map(Arc::new)
        .map_err(|error| format!("--simulate {}: {error}", path.display()))
}

fn refuse_tls(tls: &TlsArguments) -> Result<(), Failure> {
    let given = tls.tls_cert.is_some() || tls.tls_key.is_some() || tls.tls_ca.is_some();
    if !given {
        return Ok(());
    }
    Err(Failure::configuration(
        "--tls-cert, --tls-key and --tls-ca are unsupported in this release",
    )
    .next("use --token-file on control ports, and a network that you trust"))
}

/// `tradewind token --out FILE`.
pub(crate) fn token(out: &Path) -> Result<(), Failure> {
    if out.exists() {
        read_token(Some(out))?;
        say!("{} holds a token already; it stays", out.display());
        return Ok(());
    }
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let failed = |error: std::io::Error| {
        Failure::failed(format!("{} cannot be written", out.display())).evidence(error.to_string())
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(out).map_err(failed)?;
    writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(failed)?;
    say!("made a token in {}", out.display());
    Ok(())
}

/// The runtime of the control side; traffic has threads of its own. Who needs it needs sockets too,
/// so the soft limit of descriptors is raised to the hard one first (getrlimit(2)).
pub(crate) fn control_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // Where it cannot be raised, the limit that stands is met as any shortage is.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime could be made: {error}")))
}

/// TERM and INT; HUP does not end a process: its terminal may go, and there is nothing to reload.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("no signals: {error}")));
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn ended(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => tracing::info!("HUP: nothing to reload"),
            }
        }
    }
}

/// From a second signal to the end, whatever still runs: threads let go of what they hold, the disk
/// is closed.
const LAST_MOMENT: Duration = Duration::from_secs(2);
