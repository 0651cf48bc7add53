//! One process takes the place of another without a moment at which nobody accepts.
//!
//! Over a Unix socket: the newcomer greets; the process before gives its data directory free and
//! sends handles of its listening sockets; the newcomer says when it serves; the process before
//! says that it leaves. Until then either can give up, and the process before goes on as if
//! nothing had been, unless it is gone: then the newcomer stays. Connections that wait in a socket
//! belong to both, so none is lost. Blocking; every step has a deadline. Only processes of the same
//! user, or root, are listened to.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::proxy::sockets::Inherited;

/// The process before this one, which still serves.
pub(crate) struct Before {
    stream: UnixStream,
    path: PathBuf,
}

/// Sockets that a service manager passed (LISTEN_FDS), and those of the process that serves at
/// `path`, where there is one.
pub(crate) fn sockets(path: Option<&Path>) -> io::Result<(Option<Before>, Inherited)> {
    let (before, mut inherited) = match path.map(take).transpose()?.flatten() {
        Some((before, inherited)) => (Some(before), inherited),
        None => (None, Inherited::default()),
    };
    let mut passed = listenfd::ListenFd::from_env();
    for index in 0..passed.len() {
        inherited.extend(passed.take_tcp_listener(index)?.into_iter().collect());
    }
    Ok((before, inherited))
}

/// The listening sockets of the process that serves at `path`; none when there is no such process.
fn take(path: &Path) -> io::Result<Option<(Before, Inherited)>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    stream.write_all(GREETING)?;
    let mut sockets = Vec::new();
    while receive(&stream, &mut sockets)? == MORE {}
    Ok(Some((Before { stream, path: path.to_owned() }, Inherited::new(sockets))))
}

impl Before {
    /// Says that this process serves, and waits until the one before leaves. One that is gone
    /// without that word has left too: whoever ended now would leave nobody.
    pub(crate) fn replaced(mut self) -> io::Result<()> {
        let said = self.stream.write_all(SERVING);
        let error = match said.and_then(|()| expect(&mut self.stream, LEAVING)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let ended = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
        );
        if !ended || is_there(&self.path) {
            return Err(error);
        }
        tracing::warn!(%error, "the process before is gone and did not say so; going on");
        Ok(())
    }
}

/// Whether a process is at `path`. One that is being killed may still seem to be: its sockets close
/// one after the other, so it must also keep a connection.
fn is_there(path: &Path) -> bool {
    for _ in 0..LOOKS {
        let mut stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) => return !is_nobody(&error),
        };
        let kept = stream.set_read_timeout(Some(LOOK)).and_then(|()| stream.read(&mut [0]));
        if kept.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return true;
        }
    }
    true
}

/// No process, or one that left its socket behind.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The same as `listen` for whoever may have `taken_over`, and serves without it then: nobody else
/// does any more.
pub(crate) fn door(path: &Path, taken_over: bool) -> io::Result<Option<tokio::net::UnixListener>> {
    match listen(path) {
        Ok(door) => Ok(Some(door)),
        Err(error) if taken_over => {
            let path = path.display();
            tracing::error!(%path, %error, "nobody will be able to take over from this process");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Where a newcomer finds this process.
fn listen(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("it exists and is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = tokio::net::UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Hears a newcomer's greeting.
pub(super) fn greeted(stream: tokio::net::UnixStream) -> io::Result<UnixStream> {
    let theirs = stream.peer_cred()?.uid();
    if theirs != rustix::process::geteuid().as_raw() && theirs != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    expect(&mut stream, GREETING)?;
    Ok(stream)
}

/// Sends the sockets and waits until the newcomer serves. After `Ok` it counts on this process
/// to leave.
pub(super) fn give(mut stream: UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    for some in sockets.chunks(AT_ONCE) {
        send(&stream, some, MORE)?;
    }
    send(&stream, &[], LAST)?;
    stream.set_read_timeout(Some(START))?;
    expect(&mut stream, SERVING)?;
    stream.write_all(LEAVING)
}

fn send(stream: &UnixStream, sockets: &[TcpListener], word: u8) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handles: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    if !handles.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&handles));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(&[word])], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive(stream: &UnixStream, sockets: &mut Vec<TcpListener>) -> io::Result<u8> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut word)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handles) = message {
            sockets.extend(handles.map(TcpListener::from));
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(word[0])
}

fn expect(stream: &mut UnixStream, expected: &[u8]) -> io::Result<()> {
    let mut said = vec![0; expected.len()];
    stream.read_exact(&mut said)?;
    if said == expected { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

const GREETING: &[u8] = b"tradewind hand-over 1\n";
const SERVING: &[u8] = b"serving\n";
const LEAVING: &[u8] = b"leaving\n";
/// Comes with sockets, and more follow.
const MORE: u8 = b'+';
/// Nothing follows.
const LAST: u8 = b'.';
/// Sockets in one message; the kernel takes 253.
const AT_ONCE: usize = 64;
/// For every step that needs no work.
const STEP: Duration = Duration::from_secs(10);
/// For a process to let a connection go, if it is being killed.
const LOOK: Duration = Duration::from_secs(1);
/// The connection of the first may go down with it; then nobody answers the next.
const LOOKS: usize = 3;
/// For a newcomer to load its rules and serve.
const START: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The process before and the newcomer's hold on it.
    fn handing_over(directory: &Path) -> (UnixListener, UnixStream, Before) {
        let path = directory.join("door");
        let door = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let (held, _) = door.accept().unwrap();
        (door, held, Before { stream, path })
    }

    #[test]
    fn whoever_is_killed_before_its_last_word_has_left() {
        let directory = tempfile::tempdir().unwrap();
        let (door, held, before) = handing_over(directory.path());
        drop((door, held));
        before.replaced().unwrap();
        fs::remove_file(directory.path().join("door")).unwrap();
        let (door, held, before) = handing_over(directory.path());
        drop(held);
        std::thread::scope(|scope| {
            let replaced = scope.spawn(|| before.replaced());
            // What closes last, of a process that is being killed, is what it listens at.
            let look = door.accept().unwrap();
            drop(door);
            drop(look);
            replaced.join().unwrap().unwrap();
        });
    }

    #[test]
    fn whoever_goes_on_has_not_left() {
        let directory = tempfile::tempdir().unwrap();
        let (_door, held, before) = handing_over(directory.path());
        drop(held);
        before.replaced().unwrap_err();
    }
}
