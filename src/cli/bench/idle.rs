//! Memory per connection that had an answer and then nothing to do.

use std::time::Duration;

use super::peers::Peer;
use super::traffic;
use crate::cli::failure::Failure;
use crate::cli::output::say;

/// Holds so many connections at each, one proxy after the other, and prints what they cost.
pub(super) async fn run(peers: &[Peer], connections: usize, size: usize) -> Result<(), Failure> {
    say!("\nidle: {connections} connections after a request each");
    say!("            KiB/connection at once   after {} s", SETTLED.as_secs());
    for peer in peers {
        let before = {
            let few = traffic::idle(peer.at, connections / 20 + 1, size).await?;
            drop(few);
            tokio::time::sleep(Duration::from_secs(1)).await;
            peer.resident_kib()
        };
        let held = traffic::idle(peer.at, connections, size).await?;
        let each = || (peer.resident_kib() - before) / connections as f64;
        let at_once = each();
        tokio::time::sleep(SETTLED).await;
        say!("{:11} {at_once:22.2} {:12.2}", peer.name, each());
        drop(held);
    }
    Ok(())
}

/// What programs need to notice that nothing happens, and to give memory back.
const SETTLED: Duration = Duration::from_secs(25);
