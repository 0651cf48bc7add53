//! Proxies to be measured beside this one: descriptions, and the processes made of them.
//!
//! A description is a TOML file: a name, a command, files and variables, in which `{listen}`,
//! `{tls_listen}` and `{origin}`, their `_host` and `_port`, `{certificate}` and `{key}` in PEM,
//! `{both}` of them in one file, and `{dir}` stand for what the run decides. Those of the
//! well-known proxies are part of the program.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::certificate::Identity;
use super::process::Process;
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
    /// Where it speaks TLS, if it does.
    pub(super) tls: Option<SocketAddr>,
    process: Process,
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

    /// One in a text, `from` there.
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

    /// Whether it says where TLS is spoken.
    pub(super) fn speaks_tls(&self) -> bool {
        let mut texts = self.command.iter().chain(self.env.values()).chain(self.files.values());
        texts.any(|text| text.contains("{tls_listen"))
    }

    /// Starts it in front of an origin, with a folder of its own below `directory`, and with the
    /// certificate of that directory.
    pub(super) fn start(&self, directory: &Path, origin: SocketAddr) -> Result<Peer, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("{}: {error}", self.name));
        let own = directory.join(&self.name);
        std::fs::create_dir_all(&own).map_err(fail)?;
        let identity = Identity::within(directory)?;
        let [at, tls] = free_ports()?;
        let fill = |text: &str| {
            let mut text = text.to_string();
            for (name, at) in [("listen", at), ("tls_listen", tls), ("origin", origin)] {
                text = text
                    .replace(&format!("{{{name}}}"), &at.to_string())
                    .replace(&format!("{{{name}_host}}"), &at.ip().to_string())
                    .replace(&format!("{{{name}_port}}"), &at.port().to_string());
            }
            text.replace("{dir}", &own.display().to_string())
                .replace("{certificate}", &identity.certificate.display().to_string())
                .replace("{key}", &identity.key.display().to_string())
                .replace("{both}", &identity.both.display().to_string())
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
        let tls = self.speaks_tls().then_some(tls);
        let process = Process::start(&self.name, command, &own)?;
        Ok(Peer { name: self.name.clone(), at, tls, process })
    }
}

impl Peer {
    /// This program in front of an origin.
    pub(super) fn ours(directory: &Path, origin: SocketAddr) -> Result<Peer, Failure> {
        let identity = Identity::within(directory)?;
        let text = format!("id: bench\ndata:\n  targets: [{{ url: \"http://{origin}\" }}]\n");
        let own = directory.join("tradewind");
        let [tls] = free_ports()?;
        let (mut node, _) = Peer::node_with(&own, &text, |command| {
            command.args(["--access-log", "off", "--listen-tls", &tls.to_string()]);
            command.arg("--certificate").arg(&identity.both);
        })?;
        node.tls = Some(tls);
        Ok(node)
    }

    /// This program as a node with these rules and its defaults, but for one thread and no access
    /// log; and where its operators reach it.
    pub(super) fn node(directory: &Path, rules: &str) -> Result<(Peer, SocketAddr), Failure> {
        Peer::node_with(directory, rules, |command| {
            command.args(["--access-log", "off"]);
        })
    }

    /// The same with settings that the caller adds.
    pub(super) fn node_with(
        directory: &Path,
        rules: &str,
        settings: impl FnOnce(&mut Command),
    ) -> Result<(Peer, SocketAddr), Failure> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Failure::failed(format!("this program: {error}")))?;
        Peer::node_of(&program, "bench", directory, rules, settings)
    }

    /// The same of another build of this program, and of another name.
    pub(super) fn node_of(
        program: &Path,
        id: &str,
        directory: &Path,
        rules: &str,
        settings: impl FnOnce(&mut Command),
    ) -> Result<(Peer, SocketAddr), Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("the node: {error}"));
        std::fs::create_dir_all(directory).map_err(fail)?;
        let file = directory.join("rules.yaml");
        std::fs::write(&file, rules).map_err(fail)?;
        let [at, control] = free_ports()?;
        let mut command = Command::new(program);
        command.args(["node", "--id", id, "--traffic-threads", "1"]);
        command.args(["--listen", &at.to_string(), "--peer-listen", &control.to_string()]);
        command.arg("--data").arg(directory.join("node"));
        command.arg("--rules").arg(&file);
        settings(&mut command);
        Ok((Peer::of("tradewind", at, command, directory)?, control))
    }

    /// A program that is told to listen there, with a folder of its own.
    pub(super) fn of(
        name: &str,
        at: SocketAddr,
        command: Command,
        directory: &Path,
    ) -> Result<Peer, Failure> {
        let process = Process::start(name, command, directory)?;
        Ok(Peer { name: name.to_string(), at, tls: None, process })
    }

    pub(super) fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Deref for Peer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Ports that nobody listens at; held together so that none is given twice.
pub(super) fn free_ports<const N: usize>() -> Result<[SocketAddr; N], Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("no port: {error}"));
    let mut held = Vec::with_capacity(N);
    let mut ports = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for port in &mut ports {
        let listener = TcpListener::bind(*port).map_err(fail)?;
        *port = listener.local_addr().map_err(fail)?;
        held.push(listener);
    }
    Ok(ports)
}

const KNOWN: [&str; 7] = [
    include_str!("peers/nginx.toml"),
    include_str!("peers/haproxy.toml"),
    include_str!("peers/envoy.toml"),
    include_str!("peers/caddy.toml"),
    include_str!("peers/traefik.toml"),
    include_str!("peers/sozu.toml"),
    include_str!("peers/pingora.toml"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_of_our_own_can_be_read() {
        let known = Description::known().unwrap();
        let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
        assert_eq!(names, ["nginx", "haproxy", "envoy", "caddy", "traefik", "sozu", "pingora"]);
        assert!(known.iter().all(Description::speaks_tls));
    }

    #[test]
    fn a_description_that_is_none_is_refused_with_its_place() {
        let failed = Description::parse("name = 'x'\ncomand = []\n", "here").unwrap_err();
        assert!(failed.to_string().contains("here"), "{failed}");
        assert!(failed.to_string().contains("comand"), "{failed}");
    }

    #[test]
    fn what_a_run_decides_is_filled_in() {
        let directory = tempfile::tempdir().unwrap();
        let text = "name = 'x'\ncommand = ['sh', '-c', 'cat {dir}/f >&2']\n[files]\n\
                    f = '{origin_host}:{origin_port} {certificate}'\n";
        let description = Description::parse(text, "here").unwrap();
        assert!(!description.speaks_tls());
        let origin = "127.0.0.9:99".parse().unwrap();
        let peer = description.start(directory.path(), origin).unwrap();
        assert_eq!(peer.tls, None);
        let written = std::fs::read_to_string(directory.path().join("x/f")).unwrap();
        let (at, certificate) = written.split_once(' ').unwrap();
        assert_eq!(at, "127.0.0.9:99");
        assert!(Path::new(certificate).exists(), "{certificate}");
    }
}
