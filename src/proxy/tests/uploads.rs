//! Requests to targets that speak HTTP/2 and take nothing in: who ends them, and when.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};

use super::bed::{Bed, PATIENCE, eventually, forward_by, read_until, status};
use super::targets::Origin2;
use crate::model::rule::{Rule, Scheme};
use crate::proxy::listener::Bounds;

const SHORT: Duration = Duration::from_millis(150);

/// An origin that answers at once, wholly or in part, and lets in no more of a request than the
/// window it began with; and what became of the requests.
fn shut(whole: bool) -> (Origin2, Receiver<Option<Reason>>) {
    let (told, ends) = channel();
    let origin = Origin2::start(move |_, request, respond| {
        let told = told.clone();
        async move {
            let _ = told.send(hold(request, respond, whole).await);
        }
    });
    (origin, ends)
}

async fn hold(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    whole: bool,
) -> Option<Reason> {
    let mut sending = respond.send_response(Response::new(()), false).unwrap();
    sending.send_data(Bytes::from_static(b"early"), whole).unwrap();
    let mut body = request.into_body();
    loop {
        match body.data().await {
            // Taken, and no room made for more.
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.reason(),
            None => return None,
        }
    }
}

fn rule(origin: &Origin2, idle: Duration) -> Rule {
    let mut rule = forward_by(Scheme::H2c, &[origin.address]);
    rule.timeouts.idle = idle;
    rule
}

/// A client that sends more than all buffers on the way take in, and has heard the answer.
fn begin(bed: &Bed) -> (TcpStream, JoinHandle<()>) {
    let mut client = bed.client();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20);
    client.write_all(head.as_bytes()).unwrap();
    let mut sending = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || while sending.write_all(&[b'x'; 1 << 16]).is_ok() {});
    let answer = read_until(&mut client, "early").unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    (client, writer)
}

fn under_way(bed: &Bed) -> i64 {
    bed.metrics.in_flight.load(Relaxed)
}

#[test]
fn what_nobody_takes_in_behind_a_whole_answer_counts_and_is_given_up_in_time() {
    let (origin, ends) = shut(true);
    let bounds = Bounds { lingering: SHORT, ..Bounds::default() };
    let mut bed = Bed::within(rule(&origin, PATIENCE * 2), bounds);
    let (patient, waiting) = begin(&bed);
    assert_eq!(under_way(&bed), 1, "the request is not gone yet");
    bed.put("one", rule(&origin, SHORT));
    let (_client, writer) = begin(&bed);
    let end = ends.recv_timeout(PATIENCE).expect("the target hears of it");
    assert_eq!(end, Some(Reason::CANCEL));
    eventually("and the client is let go", || bed.metrics.connections.load(Relaxed) == 1);
    writer.join().unwrap();
    assert_eq!(under_way(&bed), 1, "it is over; the other rule had more patience");
    assert!(ends.try_recv().is_err(), "and its stream goes on");
    patient.shutdown(Shutdown::Both).unwrap();
    waiting.join().unwrap();
}

#[test]
fn what_nobody_takes_in_ends_with_its_answer_when_that_breaks_off() {
    let (origin, ends) = shut(false);
    let bed = Bed::start(rule(&origin, SHORT));
    let (_client, writer) = begin(&bed);
    let end = ends.recv_timeout(PATIENCE).expect("the target hears of it");
    assert_eq!(end, Some(Reason::CANCEL));
    writer.join().unwrap();
    eventually("nothing is left", || under_way(&bed) == 0);
}
