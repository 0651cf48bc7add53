//! The node as a client of orchestrators: the stream here, writes in `writes`.
//!
//! One task per stream: opens it, says hello, turns messages into inputs, and says once that it
//! is over. When to open one is the mind's decision.

pub(crate) mod writes;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use super::connect::Connector;
use crate::engine::port::{Input, StreamMessage, Ticket};
use crate::model::exchange::{FromNode, FromOrchestrator};
use crate::wire::follow_proto::{OrchestratorReader, follow_requests};
use crate::wire::proto::follow_service_client::FollowServiceClient;

/// Runs one stream to its end. Inputs go to `heard`; `StreamClosed` is always the last.
pub(crate) async fn run(
    ticket: Ticket,
    url: String,
    token: Option<MetadataValue<Ascii>>,
    connector: Connector,
    mut said: mpsc::Receiver<FromNode>,
    heard: mpsc::Sender<Input>,
) {
    let (requests, outgoing) = mpsc::channel(64);
    let sending = async {
        while let Some(word) = said.recv().await {
            for message in follow_requests(&word) {
                if requests.send(message).await.is_err() {
                    return;
                }
            }
        }
    };
    let receiving = listen(ticket, &url, token, connector, outgoing, &heard);
    let ended = tokio::select! {
        ended = receiving => ended,
        () = sending => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%url, %error, "the stream ended");
    }
    // The mind may be gone; then nobody cares.
    let _ = heard.send(Input::StreamClosed { ticket }).await;
}

async fn listen(
    ticket: Ticket,
    url: &str,
    token: Option<MetadataValue<Ascii>>,
    connector: Connector,
    outgoing: mpsc::Receiver<crate::wire::proto::FollowRequest>,
    heard: &mpsc::Sender<Input>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let endpoint = Endpoint::from_shared(url.to_string())?
        .http2_keep_alive_interval(Duration::from_secs(40))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector(connector).await?;
    let mut client = FollowServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    let mut messages = client.follow(request).await?.into_inner();
    let mut reader = OrchestratorReader::default();
    while let Some(message) = messages.next().await {
        let Some(word) = reader.push(&message?)? else { continue };
        let message = match word {
            FromOrchestrator::Welcome(welcome) => {
                heard.send(Input::StreamOpened { ticket, welcome: *welcome }).await?;
                continue;
            }
            FromOrchestrator::Delta(delta) => StreamMessage::Delta(delta),
            FromOrchestrator::Beacon(beacon) => StreamMessage::Beacon(beacon),
            FromOrchestrator::Link(link) => StreamMessage::Link(link),
            FromOrchestrator::Settled(settled) => StreamMessage::Settled(settled),
            FromOrchestrator::LedgerRequest => StreamMessage::LedgerRequest,
        };
        heard.send(Input::Stream { ticket, message }).await?;
    }
    Ok(())
}

/// A frame and its envelope.
const MESSAGE_BYTES: usize = 4 << 20;
