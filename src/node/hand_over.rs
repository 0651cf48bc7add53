//! One process takes the place of another without a moment at which nobody accepts.
//!
//! Over a Unix socket: the newcomer greets; the process before gives its data directory free and
//! sends handles of its listening sockets; the newcomer says when it serves; the process before
//! says that it leaves. Until then either can give up, and the process before goes on as if
//! nothing had been. Connections that wait in a socket belong to both, so none is lost. Blocking;
//! every step has a deadline. Only processes of the same user, or root, are listened to.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::proxy::sockets::Inherited;

/// The process before this one, which still serves.
pub(crate) struct Before {
    stream: UnixStream,
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
        // No process, or one that left its socket behind.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    stream.write_all(GREETING)?;
    let mut sockets = Vec::new();
    while receive(&stream, &mut sockets)? == MORE {}
    Ok(Some((Before { stream }, Inherited::new(sockets))))
}

impl Before {
    /// Says that this process serves, and waits until the one before leaves.
    pub(crate) fn replaced(mut self) -> io::Result<()> {
        self.stream.write_all(SERVING)?;
        expect(&mut self.stream, LEAVING)
    }
}

/// Where a newcomer finds this process.
pub(crate) fn listen(path: &Path) -> io::Result<tokio::net::UnixListener> {
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
/// For a newcomer to load its rules and serve.
const START: Duration = Duration::from_secs(60);
