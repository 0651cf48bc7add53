//! A program under measurement as a process: what it takes of the machine, as the system says it,
//! and what it has to say itself. It ends with this.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::failure::Failure;

/// A running program, with the processes below it.
pub(super) struct Process {
    name: String,
    child: Child,
    /// What it says, to standard error.
    said: PathBuf,
}

impl Process {
    /// Starts it; what it says goes to a file in `directory`, what it prints is nobody's business.
    pub(super) fn start(
        name: &str,
        mut command: Command,
        directory: &Path,
    ) -> Result<Process, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("{name} cannot start: {error}"));
        let said = directory.join("said");
        let errors = std::fs::File::create(&said).map_err(fail)?;
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = quiet.spawn().map_err(fail)?;
        Ok(Process { name: name.to_string(), child, said })
    }

    /// Why it does not answer, as far as it says.
    pub(super) fn is_not_up(&self) -> Failure {
        let said = self.said();
        let failure = Failure::failed(format!("{} did not come up", self.name));
        match said.trim().lines().last() {
            Some(last) => failure.evidence(last),
            None => failure,
        }
    }

    /// All that it said so far.
    pub(super) fn said(&self) -> String {
        std::fs::read(&self.said).map_or(String::new(), |it| String::from_utf8_lossy(&it).into())
    }

    /// Whether it still runs.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// User and system time, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.each(|pid| cpu_of_threads(pid).unwrap_or_else(|| cpu_by_ticks(pid)))
    }

    /// What it holds of memory, in KiB.
    pub(super) fn resident_kib(&self) -> f64 {
        self.each(|pid| status(pid, "VmRSS:"))
    }

    /// Its threads.
    pub(super) fn threads(&self) -> f64 {
        self.each(|pid| status(pid, "Threads:"))
    }

    /// Its open files and sockets.
    pub(super) fn descriptors(&self) -> f64 {
        self.each(|pid| {
            std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0.0, |all| all.count() as f64)
        })
    }

    /// Ends it at once, without a word.
    pub(super) fn kill(&mut self) {
        // One that has ended already is as dead.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits until it has; one that does not is killed.
    pub(super) fn end(&mut self) {
        // The number of one that has ended may be somebody else's by now.
        if !self.runs() {
            return;
        }
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..100 {
            if !self.runs() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// The sum over its process and all below.
    fn each(&self, figure: impl Fn(u32) -> f64) -> f64 {
        let mut left = vec![self.child.id()];
        let mut sum = 0.0;
        while let Some(pid) = left.pop() {
            sum += figure(pid);
            let children = format!("/proc/{pid}/task/{pid}/children");
            let text = std::fs::read_to_string(children).unwrap_or_default();
            left.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        sum
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first, so that a master ends its workers.
        self.end();
    }
}

/// What the scheduler has given to each thread that there is, to the nanosecond (the first field of
/// schedstat); none where the kernel does not say.
fn cpu_of_threads(pid: u32) -> Option<f64> {
    let mut sum = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        sum += text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9;
    }
    Some(sum)
}

/// The same in hundredths of a second (proc(5), fields 14 and 15 of stat).
fn cpu_by_ticks(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// A number in a process's status (proc(5)).
fn status(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Clock ticks a second on Linux, as user space sees them.
const TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_a_process_takes_is_seen_and_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo here >&2; exec sleep 60"]);
        let mut process = Process::start("sh", command, directory.path()).unwrap();
        if cfg!(target_os = "linux") {
            assert!(process.resident_kib() > 0.0);
            assert!(process.descriptors() >= 3.0);
            assert!(process.threads() >= 1.0);
        }
        assert!(process.runs());
        // It has said so once it is the other program. What it takes is accounted for when it
        // sleeps, or at the next tick.
        let deadline = Instant::now() + Duration::from_secs(20);
        let accounted = |process: &Process| {
            !cfg!(target_os = "linux") || (0.0001..5.0).contains(&process.cpu_seconds())
        };
        while process.said().is_empty() || !accounted(&process) {
            assert!(Instant::now() < deadline, "{} {}", process.said(), process.cpu_seconds());
            std::thread::yield_now();
        }
        if cfg!(target_os = "linux") {
            let own = std::process::id();
            let (exact, ticks) = (cpu_of_threads(own), cpu_by_ticks(own));
            // Threads that have ended count in ticks alone.
            assert!(exact.is_none_or(|exact| exact > 0.0 && exact < ticks + 1.0), "{exact:?}");
        }
        process.end();
        assert!(!process.runs());
        assert_eq!(process.said(), "here\n");
        assert!(process.is_not_up().to_string().contains("here"));
    }
}
