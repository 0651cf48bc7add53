//! Probes targets for the checks of rules, on a thread of its own: no request waits for a probe.
//!
//! A probe is a GET over a connection of its own (one that HTTP/2 shares may carry several); an
//! answer from 200 to 399 within the time-out is good. The policy on addresses holds as for
//! requests. A probe tells nothing about latency.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::{Request, uri};
use rand::RngExt;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::body::{Progress, RequestBody};
use super::checks::Check;
use super::dial::{Dialer, Distance};
use super::http2_target;
use super::pool::Pool;
use super::resolve::{AddressPolicy, Resolver};
use super::routes::RoutesState;
use super::target_tls::TargetTls;
use crate::model::rule::Scheme;
use crate::telemetry::clock::Clock;

/// What the prober works with.
pub(crate) struct Prober {
    pub(crate) routes: Arc<Mutex<RoutesState>>,
    pub(crate) policy: Arc<AddressPolicy>,
    pub(crate) distance: Option<Distance>,
    pub(crate) target_tls: Arc<TargetTls>,
    pub(crate) clock: Clock,
}

impl Prober {
    /// Starts its thread, which ends when `ended` says so.
    pub(crate) fn start(self, ended: watch::Receiver<bool>) -> std::io::Result<()> {
        let named = std::thread::Builder::new().name("prober".to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        named.spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, self.run(ended));
            drop(local);
            // A name that is being looked up is nobody's business any more.
            runtime.shutdown_background();
        })?;
        Ok(())
    }

    async fn run(self, mut ended: watch::Receiver<bool>) {
        let pool = Pool::new(Dialer {
            resolver: Resolver::new(self.policy),
            distance: self.distance,
            tls: self.target_tls,
        });
        tokio::task::spawn_local(pool.clone().keep());
        loop {
            let fresh = {
                let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
                routes.fresh_checks()
            };
            for check in fresh {
                tokio::task::spawn_local(probe_on(check, pool.clone(), self.clock));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = ended.wait_for(|ended| *ended) => return,
            }
        }
    }
}

/// Probes for as long as a rule wants to know.
async fn probe_on(check: Weak<Check>, pool: Rc<Pool>, clock: Clock) {
    while let Some(held) = check.upgrade() {
        let probed = tokio::time::timeout(held.health.timeout, probe(&held, &pool, clock)).await;
        let good = probed.unwrap_or(false);
        if held.tell(good) {
            let (target, path) = (&held.endpoint.address, &held.health.path);
            if good {
                tracing::info!(%target, path, "the target passes its health check");
            } else {
                tracing::warn!(%target, path, "the target fails its health check");
            }
        }
        // Those that began together drift apart.
        let next = held.health.interval.mul_f64(rand::rng().random_range(0.9..1.1));
        drop(held);
        tokio::time::sleep(next).await;
    }
}

async fn probe(check: &Check, pool: &Rc<Pool>, clock: Clock) -> bool {
    let Ok((mut lease, _)) = pool.open(&check.endpoint, false).await else { return false };
    let progress = Progress::new(clock, Instant::now().into());
    let address = &check.endpoint.address;
    let Ok(host) = HeaderValue::try_from(address.authority()) else { return false };
    let request = Request::get(check.health.path.as_str())
        .header(HOST, host)
        .header(USER_AGENT, concat!("tradewind/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .header(ACCEPT, "*/*")
        .body(RequestBody::empty(&progress));
    // The path was parsed with its rule.
    let Ok(mut request) = request else { return false };
    if lease.is_http2() {
        let secure = address.scheme == Scheme::Https;
        let scheme = if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
        http2_target::rewrite(&mut request, &http::HeaderMap::new(), scheme);
    }
    let Ok(response) = lease.send(request).await else { return false };
    (200..400).contains(&response.status().as_u16())
}

/// How often new checks are looked for.
const LOOK: Duration = Duration::from_millis(100);
