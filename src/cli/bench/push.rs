//! From a rule pushed to a running node to the first request that it serves.
//!
//! The rule is posted to the node's peer port for that node only (an overlay), so no orchestrator
//! and no disk is in between; a client asks over a kept connection until the new answer comes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Instant;

use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;

use super::peers::Peer;
use super::{load, quantile, traffic};
use crate::cli::failure::Failure;
use crate::cli::output::say;

/// Pushes so many times, once the node has so many rules; for each of those numbers.
pub(super) async fn run(rules: &[usize], pushes: usize) -> Result<(), Failure> {
    say!("rules      from the push to the first request served by it, {pushes} pushes");
    say!("                  p50        p99       last   the push answered, p50");
    for count in rules {
        let directory = super::tempdir()?;
        let outcome = measure(&directory, *count, pushes).await;
        let _ = std::fs::remove_dir_all(&directory);
        let (served, answered) = outcome?;
        say!(
            "{count:8} {:9.2} ms {:7.2} ms {:7.2} ms {:14.2} ms",
            quantile(&served, 0.5),
            quantile(&served, 0.99),
            quantile(&served, 1.0),
            quantile(&answered, 0.5),
        );
    }
    say!("load {} at the end", load());
    Ok(())
}

/// Times in milliseconds, sorted: until served, until the push was answered.
async fn measure(
    directory: &std::path::Path,
    rules: usize,
    pushes: usize,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let mut text = String::from("id: up\ndata: { respond: { body: up } }\n");
    for number in 0..rules.saturating_sub(1) {
        let host = format!("h{number}.example");
        let _ = write!(
            text,
            "---\nid: r{number}\ndata: {{ match: {{ hosts: [{host}] }}, respond: {{ body: x }} }}\n"
        );
    }
    let (node, control) = Peer::node(directory, &text)?;
    if !traffic::wait_until_up(node.at, "up".len()).await {
        return Err(node.is_not_up());
    }
    let mut operator = connected(control).await?;
    let mut client = connected(node.at).await?;
    let (mut served, mut answered) = (Vec::new(), Vec::new());
    for number in 0..pushes {
        let answer = number.to_string();
        let rule = format!(
            "{{\"data\":{{\"match\":{{\"hosts\":[\"push.example\"]}},\
             \"respond\":{{\"body\":\"{answer}\"}}}}}}"
        );
        let begun = Instant::now();
        let path = "/v1/configuration/pushed?scope=node&ttl=1h";
        let (status, body) = ask(&mut operator, Method::POST, path, control, rule).await?;
        if !(200..300).contains(&status) {
            let said = String::from_utf8_lossy(&body).into_owned();
            return Err(Failure::failed(format!("the push was a {status}")).evidence(said));
        }
        answered.push(begun.elapsed().as_secs_f64() * 1e3);
        loop {
            let host = "push.example";
            let (_, body) = ask(&mut client, Method::GET, "/", host, String::new()).await?;
            if body == answer.as_bytes() {
                break;
            }
        }
        served.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    served.sort_by(f64::total_cmp);
    answered.sort_by(f64::total_cmp);
    Ok((served, answered))
}

type Sender = SendRequest<Full<Bytes>>;

async fn connected(at: SocketAddr) -> Result<Sender, Failure> {
    let connected = traffic::connect(at).await;
    connected.ok_or_else(|| Failure::failed(format!("nobody answers at {at}")))
}

async fn ask(
    sender: &mut Sender,
    method: Method,
    path: &str,
    host: impl ToString,
    body: String,
) -> Result<(u16, Bytes), Failure> {
    let lost = |error: String| Failure::failed(format!("{path}: {error}"));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| lost(error.to_string()))?;
    sender.ready().await.map_err(|error| lost(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| lost(error.to_string()))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| lost(error.to_string()))?;
    Ok((status, body.to_bytes()))
}
