//! The follow service, wired by hand: tonic's generated server would encode every message anew
//! for every follower.
//!
//! Only the wiring; what is said on a stream stands in `session`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::follow_codec::FollowCodec;
use super::session::Session;
use crate::model::limits;
use crate::orchestrator::shared::Shared;
use crate::wire::proto::FollowRequest;
use crate::wire::proto::follow_service_server::SERVICE_NAME;

/// Serves `tradewind.v1.FollowService`.
#[derive(Clone)]
pub(in crate::orchestrator) struct FollowServer {
    pub(in crate::orchestrator) shared: Arc<Shared>,
}

impl NamedService for FollowServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for FollowServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Follow { shared: self.shared.clone() };
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("there is only Follow").into_http());
            }
            let mut grpc = Grpc::new(FollowCodec)
                .max_decoding_message_size(limits::FRAME_BYTES + limits::FRAME_SLACK);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Follow {
    shared: Arc<Shared>,
}

impl StreamingService<FollowRequest> for Follow {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<FollowRequest>>) -> Self::Future {
        // One frame waits; everything else is a cursor.
        let (out, frames) = mpsc::channel(1);
        let session = Session::new(self.shared.clone(), request.into_inner(), out);
        tokio::spawn(session.run());
        std::future::ready(Ok(Response::new(ReceiverStream::new(frames))))
    }
}

const PATH: &str = "/tradewind.v1.FollowService/Follow";
