//! Words to a service manager (systemd's notify protocol): ready, stopping.
//!
//! Without `NOTIFY_SOCKET` in the environment nobody listens and nothing is said.

use std::os::unix::net::UnixDatagram;

/// This process serves, and is the one to watch: with a hand-over it is another than before.
pub(crate) fn ready() -> String {
    format!("READY=1\nMAINPID={}", std::process::id())
}

/// Says it to whoever started this process and wants to know.
pub(crate) fn notify(words: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path.to_string_lossy(), words) {
        tracing::warn!(%error, "the service manager does not hear");
    }
}

fn send(path: &str, words: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match path.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(words.as_bytes(), &address)?;
        }
        _ => {
            socket.send_to(words.as_bytes(), path)?;
        }
    }
    Ok(())
}
