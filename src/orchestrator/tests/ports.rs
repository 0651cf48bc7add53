//! Claims about who is let in, and about what the HTTP port answers.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::bed::{channel, put, rules, start};
use crate::orchestrator::{Orchestrator, OrchestratorError, OrchestratorOptions};

async fn fetch(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = http::Request::get(format!("http://{at}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_port_beyond_loopback_needs_a_token() {
    let home = tempfile::tempdir().unwrap();
    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    let local = OrchestratorOptions::local(home.path());
    let options = OrchestratorOptions { grpc_listen: open, ..local.clone() };
    let refused = Orchestrator::start(options).await;
    assert!(matches!(refused, Err(OrchestratorError::OpenPort(_))));
    let options = OrchestratorOptions { http_listen: open, ..local.clone() };
    assert!(Orchestrator::start(options).await.is_err());
    let empty = OrchestratorOptions { token: Some(String::new()), ..local };
    assert!(matches!(Orchestrator::start(empty).await, Err(OrchestratorError::BadToken)));
}

#[tokio::test]
async fn without_the_token_only_health_answers() {
    let home = tempfile::tempdir().unwrap();
    let token = Some("a-long-secret".to_owned());
    let options = OrchestratorOptions { token, ..OrchestratorOptions::local(home.path()) };
    assert!(!format!("{options:?}").contains("a-long-secret"));
    let orchestrator = Orchestrator::start(options).await.unwrap();
    let mut client = rules(&orchestrator).await;
    let refused = client.put_rule(put("a", 9001)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut request = Request::new(put("a", 9001));
    let bearer = "Bearer a-long-secret".parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    client.put_rule(request).await.unwrap();
    let mut health = HealthClient::new(channel(&orchestrator).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    let at = orchestrator.http_addr();
    assert_eq!(fetch(at, "/livez", &[]).await.0, 200);
    for path in ["/metrics", "/v1/rules", "/v1/nodes", "/v1/propagation"] {
        assert_eq!(fetch(at, path, &[]).await.0, 401, "{path}");
        let bearer = [("authorization", "Bearer a-long-secret")];
        assert_eq!(fetch(at, path, &bearer).await.0, 200, "{path}");
    }
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn the_http_port_shows_the_fleet() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    rules(&orchestrator).await.put_rule(put("shop", 9001)).await.unwrap();
    let at = orchestrator.http_addr();
    for path in ["/", "/livez", "/readyz", "/healthz", "/version", "/v1/nodes"] {
        assert_eq!(fetch(at, path, &[]).await.0, 200, "{path}");
    }
    let (_, listed) = fetch(at, "/v1/rules", &[]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["rules"]["shop"]["version"], 1);
    assert_eq!(listed["rules"]["shop"]["data"]["targets"][0]["url"], "http://127.0.0.1:9001");
    let (_, text) = fetch(at, "/metrics", &[]).await;
    assert!(text.contains("tradewind_commits_total 1"), "{text}");
    let (_, spread) = fetch(at, "/v1/propagation?rule=shop", &[]).await;
    assert!(spread.contains("\"revision\":1"), "{spread}");
    assert_eq!(fetch(at, "/v1/propagation?rule=none", &[]).await.0, 404);
    assert_eq!(fetch(at, "/v1/rules?nonsense=1", &[]).await.0, 400);
    assert_eq!(fetch(at, "/nowhere", &[]).await.0, 404);
    assert_eq!(fetch(at, "/v1/rules", &[("host", "evil.example")]).await.0, 421);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn the_http_port_takes_no_bodies() {
    use std::io::{Read, Write};
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let at = orchestrator.http_addr();
    let connect = move || {
        let stream = std::net::TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(super::bed::PATIENCE)).unwrap();
        stream
    };
    let blocking = tokio::task::spawn_blocking(move || {
        for more in ["content-length: 9000000000", "transfer-encoding: chunked"] {
            let mut client = connect();
            let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{more}\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        }
    });
    blocking.await.unwrap();
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn many_live_in_one_process_and_a_directory_has_one() {
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut running = Vec::new();
    for home in &homes {
        running.push(start(home.path()).await);
    }
    let again = Orchestrator::start(OrchestratorOptions::local(homes[0].path())).await;
    assert!(matches!(again, Err(OrchestratorError::Store(_))));
    let clusters: std::collections::BTreeSet<_> =
        running.iter().map(Orchestrator::cluster).collect();
    assert_eq!(clusters.len(), 4);
    for orchestrator in running {
        orchestrator.shutdown().await;
    }
    let orchestrator = start(homes[0].path()).await;
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn reflection_tells_a_plain_client_everything_it_needs() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = ServerReflectionClient::new(channel(&orchestrator).await);
    let mut ask = async |message| -> ServerReflectionResponse {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap()
    };
    let listed = ask(MessageRequest::ListServices(String::new())).await.message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else {
        panic!("a list of services")
    };
    let names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["RuleService", "FollowService", "FleetService", "ControlService"] {
        assert!(names.contains(&format!("tradewind.v1.{name}").as_str()), "{name} in {names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("tradewind.v1.RuleService".to_owned());
    let file = ask(symbol).await.message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))));
    orchestrator.shutdown().await;
}
