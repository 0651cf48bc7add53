//! What a node may hold at once: connections, requests, memory. And the watch over the last.
//!
//! Descriptors never run out, since connections end before: each may need one to a target, too,
//! and the control side keeps some for itself.

use std::fs::read_to_string;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shortage::Shortage;
use crate::proxy::listener::Bounds;
use crate::proxy::shedding::{self, Shedding};
use crate::telemetry::clock::Clock;

/// What a node may hold at once; none: as much as fits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ceilings {
    /// Of clients, over all traffic threads.
    pub(crate) connections: Option<usize>,
    /// Under way, over all traffic threads.
    pub(crate) requests: Option<u32>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
}

impl Ceilings {
    /// What each of so many traffic threads may hold.
    pub(super) fn bounds(&self, threads: usize) -> Bounds {
        let most = Bounds::default().connections * threads;
        let connections = self.connections.unwrap_or_else(|| most.min(by_descriptors()));
        Bounds { connections: connections.div_ceil(threads).max(1), ..Bounds::default() }
    }

    /// What all of them go by.
    pub(super) fn shedding(&self) -> Arc<Shedding> {
        Arc::new(Shedding::beyond(self.requests.unwrap_or(shedding::REQUESTS)))
    }

    /// Compares what the process holds with what it may, until the node ends.
    pub(super) async fn watch_memory(
        self,
        shedding: Arc<Shedding>,
        clock: Clock,
        last_served: watch::Receiver<()>,
    ) {
        // Without it there is nothing to compare with.
        let Some(most) = self.memory.or_else(available) else { return };
        watch(most, resident, &shedding, clock, last_served).await;
    }
}

/// Compares what is held with what may be; `shortage` decides.
async fn watch(
    most: u64,
    held: impl Fn() -> Option<u64>,
    shedding: &Shedding,
    clock: Clock,
    mut last_served: watch::Receiver<()>,
) {
    let mut shortage = Shortage::default();
    loop {
        let held = held();
        // A figure that cannot be read, since descriptors have run out, says nothing of memory.
        let short = held.is_some_and(|held| shortage.look(held, most, clock.now()));
        if shedding.memory_is_short(short) {
            tracing::warn!(held, most, short, "memory: requests are refused while it is short");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = last_served.changed() => return,
        }
    }
}

/// Connections that the limit of descriptors has room for.
fn by_descriptors() -> usize {
    let limit = rlimit::Resource::NOFILE.get().map_or(1_024, |(soft, _)| soft);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    (limit - RESERVED.min(limit / 4)) / 2
}

/// Bytes that this process holds (proc(5)).
fn resident() -> Option<u64> {
    kib(&read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Bytes that it may hold: its group's limit (cgroups(7), both versions), else all there are.
fn available() -> Option<u64> {
    let all = kib(&read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter();
    // Where there is none, the file says so in a word.
    let limits = limits.filter_map(|path| read_to_string(path).ok()?.trim().parse().ok());
    Some(limits.fold(all, u64::min))
}

/// Where the limits stand of the groups that a process is in, and of those around them; within a
/// container the own group is the root.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{name}"));
            let Some(up) = path.rfind('/') else { break };
            path = &path[..up];
        }
    }
    files
}

/// The bytes of a line such as `VmRSS:   123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// Descriptors for the control side: peers, streams, files.
const RESERVED: usize = 512;
/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn limits_stand_in_the_own_group_and_those_around_it() {
        assert_eq!(
            limit_files("0::/system.slice/edge.service\n"),
            [
                "/sys/fs/cgroup/system.slice/edge.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            limit_files("4:memory:/a\n3:cpu,cpuacct:/a\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert!(limit_files("odd").is_empty());
    }

    #[test]
    fn the_system_says_what_there_is() {
        assert_eq!(kib("VmPeak:  9 kB\nVmRSS:\t   123 kB\n", "VmRSS:"), Some(123 << 10));
        assert_eq!(kib("VmRSS: much\n", "VmRSS:"), None);
        if cfg!(target_os = "linux") {
            assert!(resident().is_some_and(|held| held > 1 << 20));
            assert!(available().is_some_and(|most| most > 1 << 20));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_figure_that_cannot_be_read_is_no_shortage_and_no_end() {
        let (looks, shedding) = (Cell::new(0), Shedding::default());
        let (served, last_served) = watch::channel(());
        let served = Cell::new(Some(served));
        let held = || {
            looks.set(looks.get() + 1);
            match looks.get() {
                1 => return Some(95),
                2 => assert!(!shedding.memory_is_short(true), "it was short"),
                3 => {
                    assert!(!shedding.memory_is_short(false), "nothing is known to be short");
                    return Some(96);
                }
                _ => {
                    assert!(!shedding.memory_is_short(true), "it is looked at again");
                    drop(served.take());
                }
            }
            None
        };
        watch(100, held, &shedding, Clock::new(), last_served).await;
        assert_eq!(looks.get(), 4);
    }

    #[test]
    fn threads_share_the_connections_and_leave_descriptors_to_others() {
        let given = Ceilings { connections: Some(10), ..Ceilings::default() };
        assert_eq!(given.bounds(4).connections, 3);
        assert_eq!(given.bounds(16).connections, 1);
        let fits = Ceilings::default().bounds(1).connections;
        assert!((1..=50_000).contains(&fits), "{fits}");
    }
}
