//! A konnectivity proxy for tests, without agents: it connects to destinations itself.
#![allow(clippy::panic, reason = "an unexpected message fails the test")]

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::egress::packets::{CloseDial, CloseResponse, Data, DialResponse, Packet, Payload};

/// The answers of the proxy to a request for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Connects.
    Honest,
    /// Says that the destination refuses.
    Refuses,
    /// Ends the request.
    ClosesDial,
    /// Answers other requests only.
    AnswersOthers,
    /// Ends the stream.
    HangsUp,
    /// Connects, and sends data of other connections too.
    MixesConnections,
    /// Connects, and reads nothing more.
    StopsReading,
    /// Says at great length that the destination refuses.
    RefusesAtLength,
}

/// A running proxy. It stops to accept clients when it is dropped.
pub struct KonnectivityProxy {
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

/// The addresses that clients have asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The destinations that were dialled.
    pub dialled: Vec<String>,
    /// The connections that clients have ended.
    pub closed: Vec<i64>,
    /// The number of clients that are connected.
    pub connections: usize,
}

impl KonnectivityProxy {
    /// Starts a proxy on a new socket.
    pub fn start(socket: &Path, behaviour: Behaviour) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let seen = Arc::clone(&log);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, open) = (Arc::clone(&seen), Arc::clone(&seen));
                let serve = service_fn(move |request| {
                    ready(Ok::<_, Infallible>(answer(request, behaviour, Arc::clone(&seen))))
                });
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), serve);
                open.lock().connections += 1;
                tokio::spawn(async move {
                    drop(connection.await);
                    open.lock().connections -= 1;
                });
            }
        });
        Self { log, task }
    }

    /// Returns what clients have asked for so far.
    pub fn log(&self) -> Log {
        self.log.lock().clone()
    }
}

impl Drop for KonnectivityProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(request: Request<Incoming>, behaviour: Behaviour, log: Arc<Mutex<Log>>) -> Response<Messages> {
    assert_eq!(request.uri().path(), "/ProxyService/Proxy");
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(serve(request.into_body(), Client { sender, behaviour, log }));
    let response = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    response.body(Messages(Some(receiver))).unwrap()
}

/// Serves the messages of a client: one connection.
async fn serve(mut body: Incoming, client: Client) {
    let mut buffer = BytesMut::new();
    let mut writes = None;
    while let Some(Ok(frame)) = body.frame().await {
        buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(packet) = take(&mut buffer) {
            match packet.payload.unwrap() {
                Payload::DialRequest(request) => {
                    assert_eq!((packet.kind, &*request.protocol), (0, "tcp"));
                    client.log.lock().dialled.push(request.address.clone());
                    if client.behaviour == Behaviour::HangsUp {
                        return;
                    }
                    if let Some(reads) = client.dial(&request.address, request.random, &mut writes).await {
                        tokio::spawn(client.clone().copy(reads));
                    }
                    if client.behaviour == Behaviour::StopsReading {
                        return std::future::pending().await;
                    }
                }
                Payload::Data(data) => {
                    assert_eq!((packet.kind, data.connect_id), (4, ID));
                    let to: &mut tokio::net::tcp::OwnedWriteHalf = writes.as_mut().unwrap();
                    // The destination may have gone.
                    let _ = to.write_all(&data.content).await;
                }
                Payload::CloseRequest(request) => {
                    client.log.lock().closed.push(request.connect_id);
                    if request.connect_id == ID {
                        writes = None;
                        client.closed().await;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A client's stream.
#[derive(Clone)]
struct Client {
    sender: mpsc::Sender<Bytes>,
    behaviour: Behaviour,
    log: Arc<Mutex<Log>>,
}

impl Client {
    async fn send(&self, payload: Payload) {
        let message = Packet::of(payload).encode_to_vec();
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.put_slice(&message);
        // The client may have gone.
        let _ = self.sender.send(framed.freeze()).await;
    }

    async fn dial(
        &self,
        address: &str,
        random: i64,
        writes: &mut Option<tokio::net::tcp::OwnedWriteHalf>,
    ) -> Option<OwnedReadHalf> {
        let response = DialResponse { connect_id: ID, random, ..DialResponse::default() };
        let refused = |error: String| Payload::DialResponse(DialResponse { error, ..response.clone() });
        match self.behaviour {
            Behaviour::Refuses => self.send(refused("connection refused".to_owned())).await,
            Behaviour::RefusesAtLength => self.send(refused("no ".repeat(1 << 20))).await,
            Behaviour::ClosesDial => self.send(Payload::CloseDial(CloseDial { random })).await,
            Behaviour::AnswersOthers => {
                let other = DialResponse { random: random - 1, ..response };
                self.send(Payload::DialResponse(other)).await;
            }
            _ => match TcpStream::connect(address).await {
                Err(error) => self.send(refused(error.to_string())).await,
                Ok(stream) => {
                    self.send(Payload::DialResponse(response)).await;
                    let (from, to) = stream.into_split();
                    *writes = Some(to);
                    return Some(from);
                }
            },
        }
        None
    }

    /// Copies what a destination sends.
    async fn copy(self, mut reads: OwnedReadHalf) {
        let mut piece = vec![0; 8 << 10];
        while let Ok(read @ 1..) = reads.read(&mut piece).await {
            let data =
                Data { connect_id: ID, content: Bytes::copy_from_slice(&piece[..read]), ..Data::default() };
            if self.behaviour == Behaviour::MixesConnections {
                self.send(Payload::Data(Data { connect_id: ID + 1, ..data.clone() })).await;
            }
            self.send(Payload::Data(data)).await;
        }
        self.closed().await;
    }

    async fn closed(&self) {
        self.send(Payload::CloseResponse(CloseResponse { connect_id: ID, error: String::new() })).await;
    }
}

/// Takes a message off a buffer.
fn take(buffer: &mut BytesMut) -> Option<Packet> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().unwrap()) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(Packet::decode(buffer.split_to(length).freeze()).unwrap())
}

/// The body of a response: messages, then the status OK.
struct Messages(Option<mpsc::Receiver<Bytes>>);

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(messages) = &mut self.0 else { return Poll::Ready(None) };
        messages.poll_recv(cx).map(|message| {
            let end = || {
                self.0 = None;
                let status = (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                Frame::trailers(HeaderMap::from_iter([status]))
            };
            Some(Ok(message.map_or_else(end, Frame::data)))
        })
    }
}

/// The identifier of a client's only connection.
const ID: i64 = 7;
