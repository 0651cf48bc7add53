//! How many exchanges a connection takes, and what becomes of it when it cannot get rid of one.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::telemetry::clock::Clock;

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_ends_though_it_has_something_left_to_say() {
    let local = tokio::task::LocalSet::new();
    let until_it_ends = async {
        let exchanges = Rc::new(Cell::new(1));
        let stuck = spawn_local(std::future::pending::<()>());
        let leaving = take_leave(stuck.abort_handle(), &exchanges);
        assert!(tokio::time::timeout(LEAVE * 10, leaving).await.is_err(), "it is in use");
        exchanges.set(0);
        let begun = tokio::time::Instant::now();
        take_leave(stuck.abort_handle(), &exchanges).await;
        assert!((LEAVE..=LEAVE * 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert!(stuck.await.unwrap_err().is_cancelled());
    };
    local.run_until(until_it_ends).await;
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_as_many_as_the_target_allows_and_for_one_before_it_has_said() {
    let local = tokio::task::LocalSet::new();
    let rooms = async {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let Ok(connection) = Multiplexed::open(Box::new(near)).await else { panic!("no h2") };
        let connection = Rc::new(connection);
        assert!(connection.has_room());
        let first = Exchange::begin(connection.clone());
        assert!(!connection.has_room() && connection.most().is_none());
        let brief = Duration::from_secs(1);
        assert!(tokio::time::timeout(brief, connection.told()).await.is_err());
        // SETTINGS_MAX_CONCURRENT_STREAMS.
        let told = connection.told();
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2];
        let (_, said) = tokio::join!(told, far.write_all(&settings));
        said.unwrap();
        tokio::time::sleep(brief).await;
        assert!(connection.has_room() && connection.most() == Some(2));
        let second = Exchange::begin(connection.clone());
        assert!(!connection.has_room());
        drop((first, second));
        assert!(connection.has_room());
        drop(far);

        let (near, _far) = tokio::io::duplex(1 << 16);
        let Ok(given_up) = Multiplexed::open(Box::new(near)).await else { panic!("no h2") };
        let given_up = Rc::new(given_up);
        Exchange::begin(given_up.clone()).spoil();
        given_up.told().await;
        assert!(!given_up.has_room() && !given_up.is_good(), "nobody waits for it");

        let (near, far) = tokio::io::duplex(1 << 16);
        let Ok(silent) = Multiplexed::open(Box::new(near)).await else { panic!("no h2") };
        drop(far);
        silent.told().await;
        assert!(silent.most().is_none(), "it ended without a word");
    };
    local.run_until(rooms).await;
}

/// A target that takes in so many bytes of a request and answers it before it has all; it takes
/// in the rest when told.
async fn early(mut stream: DuplexStream, window: u8, told: impl Future<Output = ()>) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, window];
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    stream.write_all(&[&settings[..], &acknowledged].concat()).await.unwrap();
    let mut seen = Vec::new();
    // All that it takes in of the body.
    while !seen.ends_with(&vec![b'x'; usize::from(window)]) {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    // :status 200, and the end (RFC 7541, appendix A).
    stream.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]).await.unwrap();
    let more = [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 1, 0];
    let (mut told, mut may_tell) = (pin!(told), true);
    loop {
        tokio::select! {
            () = told.as_mut(), if may_tell => {
                may_tell = false;
                stream.write_all(&more).await.unwrap();
            }
            read = stream.read_buf(&mut seen) => {
                if read.is_ok_and(|read| read > 0) {
                    continue;
                }
                return;
            }
        }
    }
}

/// Whether a connection to it is good for long once its early answer is there.
async fn lasts(told: impl Future<Output = ()> + 'static) -> bool {
    let (near, far) = tokio::io::duplex(1 << 16);
    let target = spawn_local(early(far, 10, told));
    let Ok(connection) = Multiplexed::open(Box::new(near)).await else { panic!("no HTTP/2") };
    let connection = Rc::new(connection);
    let mut exchange = Exchange::begin(connection.clone());
    let progress = Progress::new(Clock::new(), tokio::time::Instant::now());
    let body = RequestBody::own(Bytes::from_static(&[b'x'; 20]), &progress);
    let mut request = Request::post("http://a/").body(body).unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    exchange.ask(request);
    let answer = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(exchange.is_sent() && exchange.is_end_stream(), "h2 has the rest of it");
    drop(exchange);
    assert!(connection.has_room());
    tokio::time::sleep(OWED - Duration::from_millis(1)).await;
    assert!(connection.has_room(), "it may still go");
    tokio::time::sleep(Duration::from_millis(2)).await;
    let lasts = connection.is_good();
    drop(connection);
    tokio::time::sleep(LEAVE * 3).await;
    assert!(target.is_finished(), "nothing is left of it");
    lasts
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_get_rid_of_a_request_carries_nothing_new() {
    let local = tokio::task::LocalSet::new();
    let both = async {
        assert!(!lasts(std::future::pending()).await);
        assert!(lasts(tokio::time::sleep(Duration::from_secs(1))).await);
    };
    local.run_until(both).await;
}
