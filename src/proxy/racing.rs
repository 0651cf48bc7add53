//! Connecting to a name that has several addresses: whichever is there first.
//!
//! After RFC 8305, section 5: the next address is tried once the one before has failed, or beside
//! it when that has said nothing for a while; an address where nobody answers would otherwise use
//! up all the time there is. Finds no addresses, and speaks over no connection.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::reply::Failure;

/// The first connection that is there. `addresses` keeps, in their order, those that have not
/// failed, for whom the winner disappoints.
pub(super) async fn first<T, F>(
    addresses: &mut Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    // Nearly all targets have one, and pay nothing for the others.
    if let [only] = addresses[..] {
        addresses.clear();
        return connect(only).await;
    }
    let mut waiting = std::mem::take(addresses).into_iter();
    let mut running: Vec<(SocketAddr, Pin<Box<F>>)> = Vec::new();
    let mut patience = pin!(sleep(STAGGER));
    let mut last = Failure::NameUnknown;
    let outcome = poll_fn(|cx| {
        loop {
            let (mut index, mut failed) = (0, running.is_empty());
            while let Some((_, attempt)) = running.get_mut(index) {
                let Poll::Ready(outcome) = attempt.as_mut().poll(cx) else {
                    index += 1;
                    continue;
                };
                running.remove(index);
                match outcome {
                    Ok(connection) => return Poll::Ready(Ok(connection)),
                    Err(failure) => (last, failed) = (failure, true),
                }
            }
            if waiting.len() == 0 {
                return if running.is_empty() { Poll::Ready(Err(last)) } else { Poll::Pending };
            }
            if !failed && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            patience.as_mut().reset(Instant::now() + STAGGER);
            running.extend(waiting.next().map(|address| (address, Box::pin(connect(address)))));
        }
    });
    let outcome = outcome.await;
    addresses.extend(running.into_iter().map(|(address, _)| address).chain(waiting));
    outcome
}

/// How long an address may say nothing before the next is tried beside it (RFC 8305, section 8).
pub(super) const STAGGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What becomes of an attempt after how many milliseconds; none: nothing ever.
    type Course = Option<(u64, Result<(), Failure>)>;

    const REFUSED: Result<(), Failure> = Err(Failure::ConnectRefused);

    /// Who wins among addresses with these ends, in their order, and after how long; when each was
    /// asked, and whom a second race would ask.
    async fn race(courses: &[Course]) -> (Result<u16, Failure>, u128, Vec<u128>, Vec<u16>) {
        let all = 0..u16::try_from(courses.len()).unwrap();
        let mut addresses: Vec<_> = all.map(|port| ([192, 0, 2, 1], port).into()).collect();
        let (begun, asked) = (Instant::now(), RefCell::new(Vec::new()));
        let connect = async |address: SocketAddr| {
            asked.borrow_mut().push(begun.elapsed().as_millis());
            let course = courses[usize::from(address.port())];
            let Some((after, end)) = course else { return std::future::pending().await };
            sleep(Duration::from_millis(after)).await;
            end.map(|()| address.port())
        };
        let won = first(&mut addresses, connect).await;
        let took = begun.elapsed().as_millis();
        (won, took, asked.take(), addresses.iter().map(SocketAddr::port).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_says_nothing_holds_nobody_up() {
        let raced = race(&[None, Some((20, Ok(()))), None]).await;
        assert_eq!(raced, (Ok(1), 270, vec![0, 250], vec![0, 2]));
        let raced = race(&[None, None, None, Some((1, Ok(())))]).await;
        assert_eq!(raced, (Ok(3), 751, vec![0, 250, 500, 750], vec![0, 1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_is_followed_at_once() {
        let raced = race(&[Some((3, REFUSED)), Some((5, REFUSED)), Some((7, Ok(())))]).await;
        assert_eq!(raced, (Ok(2), 15, vec![0, 3, 8], vec![]));
        // Also by the third while the first says nothing; it has its own patience.
        let raced = race(&[None, Some((10, REFUSED)), None, Some((40, Ok(())))]).await;
        assert_eq!(raced, (Ok(3), 550, vec![0, 250, 260, 510], vec![0, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_may_still_be_first() {
        let raced = race(&[Some((400, Ok(()))), Some((300, Ok(()))), None]).await;
        assert_eq!(raced, (Ok(0), 400, vec![0, 250], vec![1, 2]));
        let raced = race(&[Some((240, Ok(()))), Some((1, Ok(())))]).await;
        assert_eq!(raced, (Ok(0), 240, vec![0], vec![1]), "nobody is asked without need");
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_without_a_winner_ends_with_the_last_failure() {
        let unknown = Err(Failure::NameUnknown);
        let raced = race(&[Some((300, REFUSED)), Some((10, unknown))]).await;
        assert_eq!(raced, (Err(Failure::ConnectRefused), 300, vec![0, 250], vec![]));
        let raced = race(&[Some((9, unknown))]).await;
        assert_eq!(raced, (Err(Failure::NameUnknown), 9, vec![0], vec![]), "the only one");
    }
}
