//! The gRPC port: all services behind the guard, with reflection and health.
//!
//! Health needs no token. Bounds on calls stand here, those on connections in `gate`.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use super::guard::Guard;
use super::strict::Strict;
use super::{control, fleet, follow, gate, rules};
use crate::model::limits;
use crate::orchestrator::shared::Shared;
use crate::wire::proto;
use crate::wire::proto::control_service_server::ControlServiceServer;
use crate::wire::proto::fleet_service_server::FleetServiceServer;
use crate::wire::proto::rule_service_server::RuleServiceServer;

/// Serves until the orchestrator goes down.
pub(in crate::orchestrator) async fn serve_grpc(
    shared: Arc<Shared>,
    guard: Guard,
    token: Option<String>,
    listener: TcpListener,
) {
    let stopping = shared.stopping.clone();
    let rules = RuleServiceServer::new(rules::Rules { shared: shared.clone() })
        .max_decoding_message_size(limits::RULE_TEXT_BYTES)
        .max_encoding_message_size(limits::RULE_TEXT_BYTES);
    let fleet = FleetServiceServer::new(fleet::Fleet { shared: shared.clone() })
        .max_encoding_message_size(limits::RULE_TEXT_BYTES);
    let control = control::Control { shared: shared.clone(), token: token.map(Arc::from) };
    let control = ControlServiceServer::new(control);
    let follow = follow::FollowServer { shared: shared.clone() };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RuleServiceServer<rules::Rules>>().await;
    health.set_serving::<FleetServiceServer<fleet::Fleet>>().await;
    health.set_serving::<follow::FollowServer>().await;
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (Ok(reflection), Ok(reflection_alpha)) =
        (described().build_v1(), described().build_v1alpha())
    else {
        tracing::error!("the descriptors of this program cannot be read");
        return;
    };
    // The one service that anybody may ask: it has to be cheap to be asked.
    let health_service = health_service.max_decoding_message_size(HEALTH_BYTES);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .http2_max_header_list_size(HEADER_BYTES)
        .add_service(health_service)
        .add_service(InterceptedService::new(Strict::new(rules), guard.clone()))
        .add_service(InterceptedService::new(fleet, guard.clone()))
        .add_service(InterceptedService::new(control, guard.clone()))
        .add_service(InterceptedService::new(follow, guard.clone()))
        .add_service(InterceptedService::new(reflection, guard.clone()))
        .add_service(InterceptedService::new(reflection_alpha, guard))
        .serve_with_incoming_shutdown(
            gate::incoming(listener, gate::BOUNDS),
            stopping.cancelled_owned(),
        )
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "gRPC is not served any more");
    }
}

/// Calls at one time on one connection.
const STREAMS: u32 = 256;
/// Bytes of a question after health: the name of a service.
const HEALTH_BYTES: usize = 1 << 10;
/// Bytes that a stream may have under way: a frame and a bit.
const WINDOW: u32 = 2 << 20;
/// Bytes of the headers of one call.
const HEADER_BYTES: u32 = 16 << 10;
/// More often tears down healthy streams by the thousand where one machine holds them all.
const KEEPALIVE: Duration = Duration::from_secs(40);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
