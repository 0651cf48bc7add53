//! The proxies under test, each with a route to the origin of every case: this one, and nginx.

use std::any::Any;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::case::Case;
use super::run::Entrance;
use crate::harness::{Process, RulesNode, eventually, free_ports, http};

/// A running proxy.
pub struct Proxy {
    pub entrance: Entrance,
    /// It ends with this.
    _running: Box<dyn Any>,
}

/// A listener for the origin of each case.
pub fn listeners(cases: &[Case]) -> Vec<TcpListener> {
    cases.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect()
}

/// This proxy as it comes, with a file of rules.
pub fn tradewind(cases: &[Case], listeners: &[TcpListener]) -> Proxy {
    let node = RulesNode::serving("edge", &rules(cases, listeners), LONG);
    let entrance = Entrance { http1: node.traffic, http2: node.traffic, patience: LONG };
    Proxy { entrance, _running: Box::new(node) }
}

fn rules(cases: &[Case], listeners: &[TcpListener]) -> String {
    let mut text = String::new();
    for (case, listener) in cases.iter().zip(listeners) {
        let (name, address) = (case.name, listener.local_addr().unwrap());
        let scheme = if case.http2_origin { "h2c" } else { "http" };
        let condition = if case.by_host {
            format!("hosts: [{name}.test]")
        } else {
            format!("any: [{{ path: {{ prefix: /{name} }} }}]")
        };
        let _ = write!(
            text,
            "- id: {name}\n  data:\n    match: {{ {condition} }}\n    \
             targets: [{{ url: \"{scheme}://{address}\" }}]\n"
        );
        if case.hurried {
            text.push_str("    timeouts: { perTry: 300ms, request: 600ms, idle: 500ms }\n");
        }
    }
    text
}

/// Where nginx is, if it is installed.
pub fn nginx_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("nginx")).find(|file| file.is_file())
}

/// As in `1.22.1`.
pub fn nginx_version(path: &PathBuf) -> String {
    let said = Command::new(path).arg("-v").output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    said.trim().rsplit('/').next().unwrap_or_default().to_string()
}

/// nginx as its manual sets up a proxy: kept connections, WebSockets, the usual fields.
pub fn nginx(path: &PathBuf, cases: &[Case], listeners: &[TcpListener]) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display().to_string();
    let ports = free_ports(2);
    let configuration = configuration(&at, &ports, cases, listeners);
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(path);
    command.args(["-p", &at, "-e", &format!("{at}/error.log"), "-c"]).arg(&file);
    let process = Process::of(command);
    eventually(Duration::from_secs(20), "nginx answers", || http(ports[0], "GET", "/", None));
    let entrance = Entrance { http1: ports[0], http2: ports[1], patience: BRIEF };
    Proxy { entrance, _running: Box::new((process, directory)) }
}

fn configuration(
    at: &str,
    ports: &[SocketAddr],
    cases: &[Case],
    listeners: &[TcpListener],
) -> String {
    let (mut upstreams, mut locations, mut servers) = (String::new(), String::new(), String::new());
    for (case, listener) in cases.iter().zip(listeners) {
        let (name, address) = (case.name, listener.local_addr().unwrap());
        upstreams.push_str(&format!("upstream {name} {{ server {address}; keepalive 4; }}\n"));
        let patience = if case.hurried {
            "proxy_read_timeout 300ms; proxy_send_timeout 500ms; client_body_timeout 500ms; "
        } else {
            ""
        };
        let to = format!("{{ {patience}proxy_pass http://{name}; }}\n");
        if case.by_host {
            let listen = format!("listen {}; listen {} http2", ports[0], ports[1]);
            servers.push_str(&format!(
                "server {{ {listen}; server_name {name}.test; location / {to} }}\n"
            ));
        } else {
            locations.push_str(&format!("location /{name}/ {to}"));
        }
    }
    format!(
        r#"daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 0; server_names_hash_bucket_size 128;
  client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
  uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  proxy_http_version 1.1; proxy_request_buffering off;
  proxy_set_header Host $host;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  {upstreams}
  server {{
    listen {} default_server; listen {} http2 default_server; server_name wire.test;
    location / {{ return 404; }}
    {locations}
  }}
  {servers}
}}
"#,
        ports[0], ports[1]
    )
}

/// Long enough for a loaded machine; no case waits for it when it passes.
const LONG: Duration = Duration::from_secs(20);
/// What nginx does not do at all is waited for no longer.
const BRIEF: Duration = Duration::from_secs(5);
