//! Proxies to be measured beside this one: descriptions, and the processes made of them.
//!
//! A description is a TOML file: a name, a command, files and variables, in which `{listen}`,
//! `{origin}`, their `_host` and `_port`, and `{dir}` stand for what the run decides. Those of the
//! well-known proxies are part of the program.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use crate::cli::failure::Failure;

/// How a proxy is started.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) name: String,
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// A proxy under measurement; it ends with this.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) at: SocketAddr,
    process: Child,
    /// What it says.
    said: PathBuf,
}

impl Description {
    /// The well-known ones.
    pub(super) fn known() -> Result<Vec<Description>, Failure> {
        KNOWN.iter().map(|text| Description::parse(text, "a description of our own")).collect()
    }

    /// One in a file.
    pub(super) fn read(path: &Path) -> Result<Description, Failure> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::configuration(format!("{shown}: {error}")))?;
        Description::parse(&text, &shown)
    }

    /// One in a text.
    pub(super) fn parse(text: &str, from: &str) -> Result<Description, Failure> {
        toml::from_str(text).map_err(|error| Failure::configuration(format!("{from}: {error}")))
    }

    /// Where its program is, if it is installed.
    pub(super) fn program(&self) -> Option<PathBuf> {
        let name = Path::new(self.command.first()?);
        if name.components().count() > 1 {
            return name.is_file().then(|| name.to_path_buf());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    /// Starts it in front of an origin, with a folder of its own below `directory`.
    pub(super) fn start(&self, directory: &Path, origin: SocketAddr) -> Result<Peer, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("{}: {error}", self.name));
        let own = directory.join(&self.name);
        std::fs::create_dir_all(&own).map_err(fail)?;
        let at = free_port()?;
        let fill = |text: &str| {
            text.replace("{dir}", &own.display().to_string())
                .replace("{listen}", &at.to_string())
                .replace("{listen_host}", &at.ip().to_string())
                .replace("{listen_port}", &at.port().to_string())
                .replace("{origin}", &origin.to_string())
                .replace("{origin_host}", &origin.ip().to_string())
                .replace("{origin_port}", &origin.port().to_string())
        };
        for (name, text) in &self.files {
            std::fs::write(own.join(name), fill(text)).map_err(fail)?;
        }
        let program = self.program().ok_or_else(|| {
            Failure::failed(format!("{}: the program is not installed", self.name))
        })?;
        let mut command = Command::new(program);
        command.args(self.command.iter().skip(1).map(|argument| fill(argument)));
        command.envs(self.env.iter().map(|(name, value)| (name, fill(value))));
        Peer::of(&self.name, at, command, &own)
    }
}

impl Peer {
    /// This program in front of an origin.
    pub(super) fn ours(directory: &Path, origin: SocketAddr) -> Result<Peer, Failure> {
        let text = format!("id: bench\ndata:\n  targets: [{{ url: \"http://{origin}\" }}]\n");
        Peer::node(directory, &text).map(|(node, _)| node)
    }

    /// This program as a node with these rules and its defaults, but for one thread and no access
    /// log; and where its operators reach it.
    pub(super) fn node(directory: &Path, rules: &str) -> Result<(Peer, SocketAddr), Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("the node: {error}"));
        let file = directory.join("rules.yaml");
        std::fs::write(&file, rules).map_err(fail)?;
        let (at, control) = (free_port()?, free_port()?);
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.args(["node", "--id", "bench", "--traffic-threads", "1", "--access-log", "off"]);
        command.args(["--listen", &at.to_string(), "--peer-listen", &control.to_string()]);
        command.arg("--data").arg(directory.join("node"));
        command.arg("--rules").arg(&file);
        Peer::of("tradewind", at, command, directory).map(|node| (node, control))
    }

    /// A program that is told to listen there, with a folder of its own.
    pub(super) fn of(
        name: &str,
        at: SocketAddr,
        mut command: Command,
        directory: &Path,
    ) -> Result<Peer, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("{name} cannot start: {error}"));
        let said = directory.join("said");
        let errors = std::fs::File::create(&said).map_err(fail)?;
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let process = quiet.spawn().map_err(fail)?;
        Ok(Peer { name: name.to_string(), at, process, said })
    }

    /// Why it does not answer, as far as it says.
    pub(super) fn is_not_up(&self) -> Failure {
        let said = std::fs::read_to_string(&self.said).unwrap_or_default();
        let failure = Failure::failed(format!("{} did not come up", self.name));
        match said.trim().lines().last() {
            Some(last) => failure.evidence(last),
            None => failure,
        }
    }

    /// User and system time of its processes, in seconds (proc(5), fields 14 and 15 of stat).
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.each(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = text.rsplit_once(')').map_or("", |(_, after)| after);
            let ticks = after.split_whitespace().skip(11).take(2);
            ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
        })
    }

    /// What its processes hold of memory, in KiB.
    pub(super) fn resident_kib(&self) -> f64 {
        self.each(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
        })
    }

    /// The sum over its process and all below.
    fn each(&self, figure: impl Fn(u32) -> f64) -> f64 {
        let mut left = vec![self.process.id()];
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

impl Drop for Peer {
    fn drop(&mut self) {
        // Asked first, so that a master ends its workers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        for _ in 0..100 {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens at.
pub(super) fn free_port() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::failed(format!("no port: {error}")))
}

const KNOWN: [&str; 5] = [
    include_str!("peers/nginx.toml"),
    include_str!("peers/haproxy.toml"),
    include_str!("peers/envoy.toml"),
    include_str!("peers/caddy.toml"),
    include_str!("peers/traefik.toml"),
];
/// Clock ticks a second on Linux, as user space sees them.
const TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_of_our_own_can_be_read() {
        let names: Vec<String> =
            Description::known().unwrap().into_iter().map(|known| known.name).collect();
        assert_eq!(names, ["nginx", "haproxy", "envoy", "caddy", "traefik"]);
    }

    #[test]
    fn a_description_that_is_none_is_refused_with_its_place() {
        let failed = Description::parse("name = 'x'\ncomand = []\n", "here").unwrap_err();
        assert!(failed.to_string().contains("here"), "{failed}");
        assert!(failed.to_string().contains("comand"), "{failed}");
    }
}
