//! Draining: what runs comes to its end, what is new goes elsewhere.

use std::cell::Cell;
use std::future::{pending, ready};
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, advance, sleep};

use super::bed::{
    Bed, Origin, PATIENCE, block_on, eventually, field, forward, ok, read_all, silent, status,
};
use crate::proxy::last_call::LastCall;
use crate::proxy::listener::{LAST_CALL, Phase};

#[test]
fn a_drain_lets_what_runs_end_and_says_that_it_closes() {
    fn slow(_: &str, stream: &mut TcpStream) -> bool {
        std::thread::sleep(Duration::from_millis(200));
        ok("", stream)
    }
    let origin = Origin::start(slow);
    let bed = Bed::start(forward(&[origin.address]));
    let at = bed.proxy.addresses()[0];
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    origin.next();
    let (ended, drained) = channel();
    std::thread::spawn(move || {
        block_on(bed.drain(PATIENCE));
        let _ = ended.send(());
    });
    let answer = read_all(&mut client);
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"), "{answer}");
    drained.recv_timeout(PATIENCE).expect("the drain ends with the last request");
    assert!(TcpStream::connect(at).is_err(), "nobody listens any more");
}

#[test]
fn a_drain_does_not_wait_for_idle_connections() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let mut idle = bed.client();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(super::bed::read_until(&mut idle, "ok").is_some());
    let silent = bed.client();
    eventually("both are connected", || {
        bed.metrics.connections.load(std::sync::atomic::Ordering::Relaxed) == 2
    });
    let begun = Instant::now();
    block_on(bed.drain(PATIENCE));
    assert!(begun.elapsed() < PATIENCE / 2);
    drop(silent);
}

#[test]
fn a_drain_ends_when_patience_does() {
    let origin = Origin::start(silent);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    origin.next();
    block_on(bed.drain(Duration::from_millis(100)));
    assert_eq!(read_all(&mut client), "", "cut off");
}

#[test]
fn who_was_already_at_the_door_is_still_served() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let clients: Vec<TcpStream> = (0..32)
        .map(|_| {
            let mut client = bed.client();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            client
        })
        .collect();
    let waiting = std::thread::spawn(move || block_on(bed.drain(PATIENCE)));
    for mut client in clients {
        let answer = read_all(&mut client);
        assert_eq!(status(&answer), 200, "{answer}");
    }
    waiting.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listener_closes_though_clients_never_stop_coming() {
    let (phase, watched) = watch::channel(Phase::Serving);
    let leaving = Cell::new(false);
    let mut last_call = LastCall::new(watched, || leaving.set(true));
    assert_eq!(last_call.next(ready("client")).await, Some("client"));
    assert!(!leaving.get());
    phase.send_replace(Phase::Draining);
    assert_eq!(last_call.next(ready("client")).await, Some("client"));
    assert!(leaving.get(), "who comes from now on hears that the connection closes");
    advance(LAST_CALL - Duration::from_millis(1)).await;
    assert_eq!(last_call.next(ready("client")).await, Some("client"));
    advance(Duration::from_millis(1)).await;
    assert_eq!(last_call.next(ready("client")).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_listener_closes_though_nobody_comes() {
    for told in [Some(Phase::Draining), Some(Phase::Ended), None] {
        let (phase, watched) = watch::channel(Phase::Serving);
        let leaving = Cell::new(false);
        let mut last_call = LastCall::new(watched, || leaving.set(true));
        let begun = Instant::now();
        let tell = async move {
            sleep(Duration::from_secs(1)).await;
            told.map(|told| phase.send_replace(told));
        };
        let (came, ()) = tokio::join!(last_call.next(pending::<()>()), tell);
        assert_eq!(came, None);
        assert_eq!(begun.elapsed(), Duration::from_secs(1) + LAST_CALL);
        assert!(leaving.get());
    }
}
